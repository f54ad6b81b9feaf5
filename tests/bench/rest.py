# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.rest`: memory and processor time of an agent at rest, beside many pods.

Run as root in tests/. Everything happens in namespaces that end with the run. The time of a fixed
piece of work is printed with each round, because a machine that others use is not always as fast.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from support.labs import made_lab, made_pod
from support.plugin import execute

SETTLING = 35.0
"""Seconds after the last ADD: the agent's next look at everything is over."""
STEPS = 2_000_000
"""Of the fixed work."""


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    for line in _lines(options.pods, options.seconds, options.rounds):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _lines(pods: int, seconds: float, rounds: int) -> Iterator[str]:
    with made_lab(nodes=2, pods=1) as lab, ExitStack() as made:
        node = lab.layout.nodes[0]
        for _ in range(pods - 1):
            reply = execute(lab, made.enter_context(made_pod(lab, node)), "ADD")
            if reply.status:
                sys.exit(reply.text)
        process = Path("/proc") / str(lab.agents[node.name].pid)
        time.sleep(SETTLING)
        yield f"{'pods':>6} {'MiB':>6} {'% of a core':>12} {'fixed work ms':>14}"
        for _ in range(rounds):
            before = _used(process)
            time.sleep(seconds)
            share = 100 * (_used(process) - before) / seconds
            yield f"{pods:6} {_resident(process):6.1f} {share:12.2f} {1000 * _fixed_work():14.0f}"


def _used(process: Path) -> float:
    """Seconds of a processor that all its threads have used; proc(5), schedstat."""
    tasks = (process / "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _resident(process: Path) -> float:
    """MiB."""
    pages = int((process / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _fixed_work() -> float:
    """Seconds of a processor."""
    begin, total = time.process_time(), 0
    for step in range(STEPS):
        total += step
    return time.process_time() - begin


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rest", description=__doc__)
    parser.add_argument("--pods", type=int, default=250)
    parser.add_argument("--seconds", type=float, default=90.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
