# SPDX-License-Identifier: Apache-2.0
"""Rounds: following the kernel's events, together as they wait, at a bounded cost.

The cost is bounded because what others do must not become work without end: after each round the
thread rests so long that it uses no more than its share of a processor. What happens meanwhile
waits in the socket, and is read as one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pycni.agent.loops import Run
from pycni.kernel.event_socket import Event, EventSocket
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted

SHARE = 0.04
"""Of one processor, unless a caller says less."""
REST = 0.05
"""Seconds, the shortest rest after a round that had something to do."""
LONGEST_REST = 1.0
"""Seconds. A round that costs more than its share of this second exceeds it: rather that than to be
late."""
LOOK = 5.0
"""Seconds between two looks at whether to stop. The process does not wait for it."""

log = logging.getLogger(__name__)


class Rest:
    """How long the calling thread has to rest, by the processor time that it used."""

    def __init__(
        self, clock: Callable[[], float] = time.thread_time, *, share: float = SHARE
    ) -> None:
        self._clock = clock
        self._share = share
        self._before = clock()

    def due(self) -> float:
        """Seconds, for what was used since the last call."""
        now = self._clock()
        used, self._before = now - self._before, now
        return min(used * (1 / self._share - 1), LONGEST_REST)


def follow(
    events: EventSocket,
    run: Run,
    *,
    everything: Callable[[], object],
    some: Callable[[list[Event]], object],
    share: float = SHARE,
) -> None:
    """Do everything, then `some` for what happens, until the agent stops; everything again after
    events were lost. `share`: of one processor. Raises what the two raise, or OSError."""
    everything()
    run.well()
    rest, limit = Rest(share=share), LineLimit()
    while not run.stopping:
        if not events.wait(LOOK):
            rest.due()
            continue
        happened = events.take()
        if happened is None:
            if limit.take("lost") is not None:
                log.warning("events were lost, looking at everything loop=%s", quoted(run.name))
            everything()
        elif happened:
            some(happened)
        run.wait(max(rest.due(), REST))
