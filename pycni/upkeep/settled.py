# SPDX-License-Identifier: Apache-2.0
"""Parts that were well at the last look, and by what they show that nothing changed since.

To compare the tables of 5,000 nodes takes half a second. Whether they are as they were takes
milliseconds: a part with a `state` is looked at only if that is another one, or after TRUST. A
state is read from the kernel, so what others damage is another one.

A part of others may change every second and take seconds, such as rules with a set of 100,000
addresses, and is not mended here. What a look at it took is paid for by a rest, in which its faults
are those of that look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from loader.errors import LoaderError
from pycni.errors import PycniError
from pycni.faults import Fault
from pycni.upkeep import parts
from pycni.upkeep.description import Description
from pycni.upkeep.part import Part
from pycni.upkeep.seen import Seen

TRUST = 600.0
"""Seconds after which a part is looked at though nothing seems to have changed."""
SHARE, FREE = 0.01, 0.1
"""Of one processor, for each part of others; and seconds of its time that need no rest."""


class Resting(NamedTuple):
    """A part that is not looked at."""

    until: float
    """In seconds of the clock."""
    faults: tuple[Fault, ...]


class Settled:
    """What one agent knows of its parts. `make_seen` asks the kernel anew. `spent` is the processor
    time of the thread, in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._spent = spent
        self._resting: dict[str, Resting] = {}
        self._well: dict[str, tuple[Description, object, float]] = {}
        """By part: with which description and in which state there was no fault, and when that was
        looked at."""

    def look(
        self, d: Description, make_seen: Callable[[], Seen], which: Iterable[Part]
    ) -> list[Fault]:
        """The faults of parts, as parts.look."""
        seen = make_seen()
        return [fault for part in which for fault in self._faults(part, d, seen, make_seen)]

    def _faults(
        self, part: Part, d: Description, seen: Seen, make_seen: Callable[[], Seen]
    ) -> Iterator[Fault]:
        resting = self._resting.get(part.name)
        if resting is not None and self._clock() < resting.until:
            yield from resting.faults
            return
        state = _state(part, d, seen)
        if state is not None and self._is_well(part, d, state):
            return
        begin = self._spent()
        found = list(parts.faults_of(part, d, seen))
        self._rest(part, found, self._spent() - begin)
        yield from found
        self._well.pop(part.name, None)
        # what was looked at may have changed since the state was read
        if not found and state is not None and _state(part, d, make_seen()) == state:
            self._well[part.name] = d, state, self._clock()

    def _rest(self, part: Part, found: Iterable[Fault], took: float) -> None:
        if part.is_others and took > FREE:
            until = self._clock() + min(took / SHARE, TRUST)
            self._resting[part.name] = Resting(until, tuple(found))

    def _is_well(self, part: Part, d: Description, state: object) -> bool:
        described, before, when = self._well.get(part.name, (None, None, 0.0))
        is_young = self._clock() - when < TRUST
        return described is d and before == state and is_young


def _state(part: Part, d: Description, seen: Seen) -> object:
    """None if there is none, or it cannot be had: then the faults say why."""
    if part.state is None:
        return None
    try:
        return part.state(d, seen)
    except (PycniError, LoaderError, OSError):
        return None
