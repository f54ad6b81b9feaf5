# SPDX-License-Identifier: Apache-2.0
"""Whether BIRD's tables are complete, so that what is not in them is not there. Pure.

A BIRD that was started again knows no route for a while, though the others still forward. So
nothing that was learnt is forgotten before all sessions have been up for some seconds, or will not
come up in the time that a speaker has to start again.
"""

from __future__ import annotations

from collections.abc import Iterable

from pycni.bgp.answers import Session
from pycni.bgp.config import RESTART_TIME

SETTLING = 3.0
"""Seconds in which a new session has told all."""


class Trust:
    """What one connection after the other to BIRD has shown. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._boot = ""
        self._up_since: float | None = None
        self._is_complete = False

    def lost(self) -> None:
        """BIRD did not answer: what it knew may be gone."""
        self._began = None

    def is_complete(self, sessions: Iterable[Session], boot: str, now: float) -> bool:
        """Whether what BIRD does not list now can be forgotten. `boot` is when BIRD started, in
        any form."""
        if self._began is None or boot != self._boot:
            self._began, self._boot = now, boot
            self._up_since, self._is_complete = None, False
        if not self._is_complete:
            if not all(one.is_up for one in sessions):
                self._up_since = None
            elif self._up_since is None:
                self._up_since = now
            is_settled = self._up_since is not None and now - self._up_since >= SETTLING
            self._is_complete = is_settled or now - self._began >= RESTART_TIME
        return self._is_complete
