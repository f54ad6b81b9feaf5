# SPDX-License-Identifier: Apache-2.0
"""A loop's run that a test ends, and that counts how often the loop was well."""

from __future__ import annotations

import threading

from pycni.agent.budget import Budget
from pycni.agent.loops import Loop, Run


class OneRun(Run):
    """Does not begin again: what the work raises is the test's to see."""

    def __init__(self) -> None:
        super().__init__(Loop("test", lambda _: None, 1.0), threading.Event(), Budget())
        self.rounds = 0

    def well(self) -> None:
        self.rounds += 1
        super().well()

    def end(self) -> None:
        self.stop.set()
