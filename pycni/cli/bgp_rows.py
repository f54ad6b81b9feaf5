# SPDX-License-Identifier: Apache-2.0
"""What `pycni bgp` shows, as rows: asked of BIRD at its socket."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pycni.bgp import file
from pycni.bgp.answers import Route
from pycni.bgp.bird import Bird
from pycni.bgp.view import announced, look
from pycni.errors import NotAvailable
from pycni.settings import Settings

Row = dict[str, Any]


def sessions(settings: Settings) -> list[Row]:
    """By name. Raises NotAvailable or BirdError."""
    with _bird(settings) as bird:
        view = look(bird)
        counts = Counter(one.protocol for one in view.received)
        return [
            {
                "name": one.name,
                "speaker": one.neighbour,
                "asn": int(one.asn) if one.asn.isdigit() else None,
                "state": one.state,
                "since": one.since,
                "received": counts[one.name],
                "announced": len(announced(bird, one)),
                "last_error": one.error,
            }
            for one in sorted(view.sessions, key=lambda one: one.name)
        ]


def routes(settings: Settings) -> list[Row]:
    """Received ones first. Raises NotAvailable or BirdError."""
    with _bird(settings) as bird:
        view = look(bird)
        found = [_row("received", one.protocol, one) | {"used": one.is_best}
                 for one in view.received]  # fmt: skip
        for session in view.sessions:
            found += [_row("announced", session.name, one) for one in announced(bird, session)]
    return found


def _row(direction: str, session: str, route: Route) -> Row:
    return {
        "direction": direction,
        "network": str(route.prefix),
        "next_hop": str(route.next_hop) if route.next_hop is not None else None,
        "session": session,
        "as_path": route.as_path,
        "communities": list(route.communities),
        "used": None,
    }


def _bird(settings: Settings) -> Bird:
    if settings.bgp is None:
        raise NotAvailable(
            "this node speaks no BGP: its settings have no table [bgp]",
            hint="add one, and restart the agent (docs/bgp.md)",
        )
    return Bird(file.socket_path(settings))
