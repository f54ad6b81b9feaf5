# SPDX-License-Identifier: Apache-2.0
"""What is wrong with things of others, which the agent leaves alone: said in the log once when it
comes, and once when it is well again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from pycni.faults import Fault
from pycni.line_limit import LineLimit, mention
from pycni.logfmt import quoted
from pycni.upkeep.book import Key, key_of

THINGS, LINES = 32, 8
"""Things that the log names in one interval of its limit, and lines about each."""

log = logging.getLogger(__name__)


class Left:
    """Used by one thread."""

    def __init__(self) -> None:
        self._told: dict[Key, Fault] = {}
        self._limit = LineLimit(lines=LINES, subjects=THINGS)

    def tell(self, faults: Iterable[Fault], looked: Collection[str]) -> None:
        """Say what is new among these faults, and what is gone. `looked`: the parts of others that
        were looked at, whatever faults are of other parts."""
        now = {key_of(fault): fault for fault in faults if fault.part in looked}
        for key, fault in now.items():
            if key not in self._told and (left_out := self._take(fault)) is not None:
                log.warning("left to a person part=%s thing=%s found=%s to_do=%s%s",
                            quoted(fault.part), quoted(fault.thing), quoted(fault.found),
                            quoted(fault.todo), mention(left_out))  # fmt: skip
        for key, fault in list(self._told.items()):
            if fault.part in looked and key not in now:
                del self._told[key]
                if (left_out := self._take(fault)) is not None:
                    log.info("well again part=%s thing=%s%s", quoted(fault.part),
                             quoted(fault.thing), mention(left_out))  # fmt: skip
        self._told |= now

    def _take(self, fault: Fault) -> int | None:
        return self._limit.take(f"{fault.part} {fault.thing}")
