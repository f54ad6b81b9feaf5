# SPDX-License-Identifier: Apache-2.0
"""Random frames of a pod and of a host on the underlay, against the rules of the overlay.

`python -m fuzz.wire --count 10000000`, in tests/, runs on every processor and says what went where.
The same seed gives the same frames. Nothing is attached or pinned: BPF_PROG_TEST_RUN.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from bpf.dataplane import Dataplane, compile_recorded
from fuzz.wire_trial import Trial, Wrong
from fuzz.wire_worlds import WORLDS, World
from loader.objects import Objects

COUNT = 10_000_000


@contextmanager
def loaded(objects: Objects, world: World) -> Iterator[Dataplane]:
    with Dataplane(objects, world.underlay, **world.constants()) as dataplane:
        yield dataplane


def trial(objects: Objects, world: World, *, seed: int, count: int) -> Counter[str]:
    """Send `count` frames in a world; what became of them. Raises Wrong."""
    with loaded(objects, world) as dataplane:
        one = Trial(world, dataplane)
        try:
            one.run(random.Random(f"{seed} {world.name}"), count)
        except Wrong as wrong:
            raise Wrong(f"{world.name}, seed {seed}, {wrong}") from None
        counted = sum(packets for packets, _ in dataplane.drops().values())
    dropped = one.seen["dropped"] + one.seen["dropped behind the device"]
    if counted != dropped:
        raise Wrong(f"{world.name}, seed {seed}: {dropped} dropped, {counted} counted")
    return one.seen


def run(objects: Objects, *, seed: int, count: int, report: Callable[[str], object]) -> None:
    """`count` frames in all worlds, on all processors. Raises Wrong."""
    share = count // len(WORLDS)
    begin = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        work = {
            world: pool.submit(trial, objects, world, seed=seed, count=share) for world in WORLDS
        }
        for world, future in work.items():
            report(f"{world.name}: {_table(future.result())}")
    report(f"{share * len(WORLDS)} frames, 0 delivered wrongly, {time.monotonic() - begin:.0f} s")


def _table(seen: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(seen.items()))


def main() -> None:
    """Exit status 0 if nobody got what he may not have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as directory:
        objects = compile_recorded(Path(directory))
        run(objects, seed=options.seed, count=options.count, report=_say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
