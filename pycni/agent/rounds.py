# SPDX-License-Identifier: Apache-2.0
"""Rounds: following the kernel's events, together as they wait, at a bounded cost (budget.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pycni.agent.budget import Rest
from pycni.agent.loops import Run
from pycni.kernel.event_socket import Event, EventSocket
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted

REST = 0.05
"""Seconds, the shortest rest after a round that had something to do."""
LOOK = 5.0
"""Seconds between two looks at whether to stop. The process does not wait for it."""

log = logging.getLogger(__name__)


def follow(
    events: EventSocket,
    run: Run,
    *,
    everything: Callable[[], object],
    some: Callable[[list[Event]], object],
) -> None:
    """Do everything, then `some` for what happens, until the agent stops; everything again after
    events were lost. Raises what the two raise, or OSError."""
    everything()
    run.well()
    rest, limit = Rest(run.budget), LineLimit()
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
