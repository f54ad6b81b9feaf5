# SPDX-License-Identifier: Apache-2.0
"""Each component hurt in each way once, under traffic, while pods come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle

from cluster import manifests
from cluster.kills import victims
from cluster.kills.stage import Stage, weighed
from cluster.kills.traffic import Balance
from cluster.kills.victims import Kind, Victim
from cluster.verdicts import Found, one
from pycni.lab.checks import Check

AWAY_SECONDS = 5.0
UNDER_WAY_SECONDS = 0.3
"""From the making of pods to the blow: then the runtime is at work with them."""
READY_SECONDS = 180.0
GONE_SECONDS = 120.0


def every_component(stage: Stage) -> Iterator[Check]:
    """Each in each way; those of workers on one worker after the other. Raises PycniError."""
    number = 0
    leaving: list[str] = []
    for places in victims.everybody(stage.cluster):
        for kind, victim in zip(Kind, cycle(places), strict=False):
            number += 1
            blow = _Blow(stage, victim, kind, number)
            yield from blow.checks(leaving)
            leaving = blow.names
    stage.crowd.delete(leaving)


class _Blow:
    """One component hurt in one way, and the pods that are made while it is."""

    def __init__(self, stage: Stage, victim: Victim, kind: Kind, number: int) -> None:
        self._stage = stage
        self._victim = victim
        self._kind = kind
        self._early = self._pods(f"early{number}")
        self._late = self._pods(f"late{number}")

    @property
    def names(self) -> list[str]:
        return [*self._early, *self._late]

    def checks(self, leaving: list[str]) -> Iterator[Check]:
        """`leaving`: pods to be deleted while it is away. Raises PycniError."""
        blow = f"{self._victim} {self._kind}"
        with self._stage.flowing() as meter:
            yield one(f"{blow}, comes back", partial(self._strike, leaving))
            yield one(f"{blow}: pods made before and meanwhile run and are reached", self._run)
            yield one(f"{blow}: pods deleted meanwhile are gone", partial(self._gone, leaving))
            balance: Balance = meter.end()
        yield weighed(blow, balance)

    def _strike(self, leaving: list[str]) -> Found:
        crowd = self._stage.crowd
        crowd.create(list(self._early.values()))
        time.sleep(UNDER_WAY_SECONDS)
        with ThreadPoolExecutor(1) as pool:
            struck = pool.submit(victims.strike, self._victim, self._kind, seconds=AWAY_SECONDS)
            time.sleep(UNDER_WAY_SECONDS)
            crowd.delete(leaving)
            crowd.create(list(self._late.values()))
            struck.result()
        return None

    def _run(self) -> Found:
        ready = self._stage.crowd.wait_until_ready(self.names, READY_SECONDS)
        return self._stage.reached(ready)

    def _gone(self, leaving: list[str]) -> Found:
        self._stage.crowd.wait_until_gone(leaving, GONE_SECONDS)
        return None

    def _pods(self, head: str) -> dict[str, dict[str, object]]:
        """One on each worker, by name."""
        return {
            f"{head}-{node.name}": manifests.server(f"{head}-{node.name}", node.name)
            for node in self._stage.cluster.workers
        }
