# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.dataplane`: how fast packets are between nodes and on a node, beside other ways.

Run as root in tests/; needs iperf3 and clang. Everything happens in namespaces that end with the
run, also when it is interrupted. A goal that is missed is said, and fails nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

from bench import paths, report, traffic
from bench.figures import Samples
from bench.measures import MEASURES, Lengths
from bench.paths import Path
from bench.rounds import turned
from bench.traffic import Traffic, TrafficFailed
from pycni.errors import PycniError
from pycni.files import make_private_directory


@dataclass(frozen=True)
class Plan:
    """`seconds`: no round begins that would not end within them."""

    rounds: int
    seconds: float
    nodes: int
    """How many nodes the crowded pair knows."""
    lengths: Lengths


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asked: list[int] = []
"""Signals that came."""

ONE_SECOND = ("--time", "1")

PLANS = {
    "full": Plan(12, 570, 5000, Lengths(ONE_SECOND, 0.5, 0.7, 0.4, 0.2)),
    "quick": Plan(3, 110, 5000, Lengths(ONE_SECOND, 0.3, 0.4, 0.3, 0.1)),
    "smoke": Plan(1, 120, 50, Lengths(("--bytes", "8M"), 0.05, 0.1, 0.05, 0.02)),
}


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    if shutil.which(traffic.IPERF) is None:
        sys.exit(f"no {traffic.IPERF} on PATH: apt install {traffic.IPERF}")
    for number in STOPPING:
        signal.signal(number, lambda number, _: _asked.append(number))
    begin, load = time.monotonic(), os.getloadavg()[0]
    plan = PLANS[options.plan]
    try:
        samples, rounds = run(plan)
    except (TrafficFailed, PycniError) as error:
        stop_if_asked()  # a terminal tells those that the bench has started, too
        sys.exit(str(error))
    made = report.Report(samples, rounds, plan.nodes, time.monotonic() - begin, load)
    sys.stdout.write(report.text(made) + "\n")
    if options.docs is not None:
        report.write(made, options.docs)


def stop_if_asked() -> None:
    """Ends the bench between two steps: in the midst of one, half of it could stay behind."""
    if _asked:
        sys.exit(128 + _asked[0])


def run(plan: Plan) -> tuple[Samples, int]:
    """All rounds that fit; their samples and number."""
    begin = time.monotonic()
    samples, longest, number = Samples(), 0.0, 0
    with _prepared(plan) as (tool, laid):
        while number < plan.rounds and time.monotonic() + longest < begin + plan.seconds:
            started = time.monotonic()
            _round(number, tool, laid, plan.lengths, samples)
            longest = max(longest, time.monotonic() - started)
            number += 1
            sys.stderr.write(f"round {number} of {plan.rounds}: {time.monotonic() - begin:.0f} s\n")
    return samples, number


@contextmanager
def _prepared(plan: Plan) -> Iterator[tuple[Traffic, Sequence[Path]]]:
    directory = FilePath(f"/run/bench{os.getpid()}-traffic")
    with ExitStack() as undo:
        make_private_directory(directory)
        undo.callback(shutil.rmtree, directory)
        tool = undo.enter_context(traffic.compiled(directory))
        laid = undo.enter_context(paths.laid(nodes=plan.nodes, between=stop_if_asked))
        undo.enter_context(traffic.iperf_servers(laid, directory))
        yield tool, laid


def _round(
    number: int, tool: Traffic, laid: Sequence[Path], lengths: Lengths, samples: Samples
) -> None:
    """Each measure over all its paths, one right after the other."""
    for measure in MEASURES:
        for path in turned([path for path in laid if measure.over(path)], number):
            stop_if_asked()
            samples.add(path.name, measure.run(tool, path, lengths))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dataplane", description=__doc__)
    parser.add_argument(
        "--quick", dest="plan", action="store_const", const="quick", default="full",
        help="two minutes instead of ten",
    )  # fmt: skip
    parser.add_argument(
        "--smoke", dest="plan", action="store_const", const="smoke",
        help="one tiny round: shows that it works, its numbers mean nothing",
    )  # fmt: skip
    parser.add_argument(
        "--docs", type=FilePath, metavar="DIRECTORY",
        help="write the tables into benchmarks.md there, every sample into benchmarks.json, and "
        "a plot, benchmarks.png, which needs matplotlib",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
