# SPDX-License-Identifier: Apache-2.0
"""What BIRD knows at one moment: sessions, and routes both ways."""

from __future__ import annotations

from dataclasses import dataclass

from pycni.bgp import answers
from pycni.bgp.answers import Route, Session
from pycni.bgp.bird import Bird
from pycni.errors import BirdError

NO_TABLES = 9001
"""The code for a session that exchanges no routes by now."""


@dataclass(frozen=True)
class View:
    """One look at BIRD."""

    sessions: tuple[Session, ...]
    routes: tuple[Route, ...]
    """Of its tables of routes to pods and to the fabric, without what this node itself says."""
    boot: str
    """When BIRD started."""

    @property
    def received(self) -> tuple[Route, ...]:
        """What speakers said and filters let in."""
        names = {one.name for one in self.sessions}
        return tuple(one for one in self.routes if one.protocol in names)


def look(bird: Bird) -> View:
    """Raises BirdError."""
    return View(
        tuple(answers.sessions(bird.ask("show protocols all"))),
        _routes(bird, "show route all where source = RTS_BGP"),
        answers.boot(bird.ask("show status")),
    )


def announced(bird: Bird, session: Session) -> tuple[Route, ...]:
    """What a session tells its speaker; nothing while it is not up. Raises BirdError."""
    if not session.tells:
        return ()
    command = f"show route export {session.name} all"
    return _routes(bird, command, nothing=NO_TABLES)


def _routes(bird: Bird, command: str, *, nothing: int | None = None) -> tuple[Route, ...]:
    try:
        return tuple(answers.routes(bird.ask(command, nothing=nothing)))
    except ValueError as error:
        raise BirdError(
            f"BIRD's answer to `{command}` cannot be read: {error}",
            hint="is it BIRD 2.0 or later, and nothing else, that answers? (docs/bgp.md)",
        ) from error
