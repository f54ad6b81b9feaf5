# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/forgotten.py: works when there is work, until the agent stops."""

from __future__ import annotations

from pycni.agent import forgotten
from pycni.kernel.forgetting import Forgetting
from unit.agent.runs import OneRun


class Work(Forgetting):
    """Notes what is asked of it; `run` ends with the second work."""

    def __init__(self, run: OneRun) -> None:
        super().__init__()
        self.done: list[str] = []
        self.run = run

    def wait(self) -> None:
        self.done.append("wait")

    def work(self) -> None:
        self.done.append("work")
        if self.done.count("work") == 2:
            self.run.end()


def test_it_works_each_time_that_there_is_work() -> None:
    run = OneRun()
    work = Work(run)

    forgotten.follow(work, run)

    assert work.done == ["wait", "work", "wait", "work"]
