# SPDX-License-Identifier: Apache-2.0
"""Hundreds of pods made and deleted, under traffic, while components are hurt at random.

The same seed gives the same blows in the same order, and deletes the same pods; what they hit is
chance.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster import manifests
from cluster.kills import victims
from cluster.kills.stage import Stage, weighed
from cluster.kills.victims import Kind, Victim
from cluster.kubectl import Json
from cluster.verdicts import Found, one, words
from pycni.errors import PycniError
from pycni.lab.checks import Check

BATCH = 20
DOOMED = 3
"""One pod of so many is deleted while it is being made."""
KEPT = 1
"""Of each batch, pods that are wanted until the end."""
PORTED = 4
"""One pod of so many has a host port."""
FIRST_HOST_PORT = 20000
DOOM_SECONDS = (0.0, 3.0)
AWAY_SECONDS = (1.0, 8.0)
PAUSE_SECONDS = (1.0, 6.0)
"""Between two blows."""
READY_SECONDS = 600.0
"""The kubelet lets an agent that was killed often wait for up to 300 s."""
GONE_SECONDS = 300.0


@dataclass(frozen=True)
class Plan:
    """What befalls a batch: the pods that are deleted at once, and after how many seconds."""

    pods: tuple[Json, ...]
    doomed: tuple[str, ...]
    after: float
    kept: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods]

    @property
    def wanted(self) -> list[str]:
        """Those that must run."""
        return [name for name in self.names if name not in self.doomed]


@dataclass
class Storm:
    """Blows, one after the other, until it is calmed."""

    blows: Iterator[tuple[Victim, Kind]]
    chance: random.Random
    told: queue.SimpleQueue[Check] = field(default_factory=queue.SimpleQueue)
    _calm: threading.Event = field(default_factory=threading.Event)

    def rage(self) -> None:
        """Each blow is told as a check: whether its victim has come back."""
        while not self._calm.wait(self.chance.uniform(*PAUSE_SECONDS)):
            victim, kind = next(self.blows)
            seconds = self.chance.uniform(*AWAY_SECONDS)
            name = f"{victim} {kind}, for {seconds:.1f} s"
            try:
                victims.strike(victim, kind, seconds=seconds)
            except PycniError as error:
                self.told.put(Check(name, passed=False, found=words(error)))
            else:
                self.told.put(Check(name, passed=True))

    def calm(self) -> None:
        """No more blows; one that has begun ends."""
        self._calm.set()

    def news(self) -> Iterator[Check]:
        """What was told since the last time."""
        while not self.told.empty():
            yield self.told.get()


def storm(stage: Stage, *, pods: int, seed: int) -> Iterator[Check]:
    """`pods` of them, in batches. Raises PycniError."""
    chance = random.Random(seed)
    begun = time.monotonic()
    kept: list[str] = []
    left: list[str] = []
    with stage.flowing() as meter:
        with _raging(stage, chance.randrange(1 << 32)) as raging:
            for number, plan in enumerate(plans(stage, chance, pods), 1):
                yield _batch(stage, number, plan)
                yield from raging.news()
                ended = [name for name in plan.wanted if name not in plan.kept]
                stage.crowd.delete(ended)
                kept += plan.kept
                left += [*ended, *plan.doomed]
        yield from raging.news()
        yield one(f"{len(kept)} pods that are still wanted run and are reached",
                  lambda: _run(stage, kept))  # fmt: skip
        yield one(f"{len(left)} pods that were deleted are gone", lambda: _gone(stage, left))
        balance = meter.end()
    yield weighed(f"{pods} pods in {time.monotonic() - begun:.0f} s", balance)


def plans(stage: Stage, chance: random.Random, pods: int) -> Iterator[Plan]:
    """Batches of pods, spread over the workers."""
    nodes = [node.name for node in stage.cluster.workers]
    for first in range(0, pods, BATCH):
        numbers = range(first, min(first + BATCH, pods))
        made = tuple(_pod(number, nodes[number % len(nodes)]) for number in numbers)
        names = [pod["metadata"]["name"] for pod in made]
        doomed = chance.sample(names, len(names) // DOOMED)
        wanted = [name for name in names if name not in doomed]
        kept = chance.sample(wanted, min(KEPT, len(wanted)))
        yield Plan(made, tuple(doomed), chance.uniform(*DOOM_SECONDS), tuple(kept))


def blows(stage: Stage, chance: random.Random) -> Iterator[tuple[Victim, Kind]]:
    """Without end; each component in each way comes once before any comes again."""
    places = victims.everybody(stage.cluster)
    pairs = [(where, kind) for where in places for kind in Kind]
    while True:
        for where, kind in chance.sample(pairs, len(pairs)):
            yield chance.choice(where), kind


@contextmanager
def _raging(stage: Stage, seed: int) -> Iterator[Storm]:
    """A storm while the block runs; after it the last victim is back."""
    chance = random.Random(seed)
    raging = Storm(blows(stage, chance), chance)
    thread = threading.Thread(target=raging.rage, name="storm")
    thread.start()
    try:
        yield raging
    finally:
        raging.calm()
        thread.join()


def _batch(stage: Stage, number: int, plan: Plan) -> Check:
    """Make its pods, delete the doomed ones, and wait until the others run."""
    begun = time.monotonic()
    found = ""
    try:
        stage.crowd.create(plan.pods)
        time.sleep(plan.after)
        stage.crowd.delete(plan.doomed)
        stage.crowd.wait_until_ready(plan.wanted, READY_SECONDS)
    except PycniError as error:
        found = words(error)
    seconds = time.monotonic() - begun
    name = (f"batch {number}: {len(plan.pods)} pods, {len(plan.doomed)} deleted after "
            f"{plan.after:.1f} s; the others run after {seconds:.0f} s")  # fmt: skip
    return Check(name, not found, found)


def _run(stage: Stage, names: list[str]) -> Found:
    return stage.reached(stage.crowd.wait_until_ready(names, READY_SECONDS))


def _gone(stage: Stage, names: list[str]) -> Found:
    stage.crowd.wait_until_gone(names, GONE_SECONDS)
    return None


def _pod(number: int, node: str) -> Json:
    """Some have a host port, each another one: the one before may not be gone yet."""
    host_port = None if number % PORTED else FIRST_HOST_PORT + number
    return manifests.server(f"pod{number}", node, host_port=host_port)
