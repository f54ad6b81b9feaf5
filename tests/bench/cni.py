# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.cni`: what pycni's ADD and DEL cost, beside Debian's ptp and bridge.

Run as root in tests/; needs Debian's plugins in /usr/lib/cni. Everything happens in namespaces
that end with the run. A target that is missed is said, and fails nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import inside, nodes, report, rounds, table
from bench.calls import PluginFailed
from bench.table import Measurement


@dataclass(frozen=True)
class Plan:
    """How often each thing is measured."""

    single: int
    bursts: int
    growth: int
    dual: int
    dual_bursts: int
    inside: int


FULL = Plan(single=60, bursts=6, growth=40, dual=8, dual_bursts=1, inside=40)
QUICK = Plan(single=15, bursts=3, growth=12, dual=2, dual_bursts=0, inside=15)

NOTE = """
Ratios and differences are medians over the rounds, each taken within its round. With IPv6, ptp's
ADD waits for duplicate address detection: read the bridge's row there."""


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    missing = [kind for kind in nodes.SUBNETS if not (nodes.DEBIAN_PLUGINS / kind).exists()]
    if missing:
        sys.exit(f"{nodes.DEBIAN_PLUGINS} has no {', '.join(missing)}: "
                 "apt install containernetworking-plugins")  # fmt: skip
    plan = QUICK if options.quick else FULL
    begin = time.monotonic()
    try:
        if options.profile:
            _profile(plan, options)
        else:
            _compare(plan, options)
    except PluginFailed as error:
        sys.exit(str(error))
    _say(f"\n{time.monotonic() - begin:.0f} s on {_machine()}")


def _compare(plan: Plan, options: argparse.Namespace) -> None:
    done: list[Measurement] = []
    for one in _measurements(plan):
        done.append(one)
        sys.stderr.write(f"{one.title}\n")
    text = "\n".join(table.lines(done))
    _say(text + "\n" + NOTE)
    if options.docs is not None:
        page = options.docs / "benchmarks-cni.md"
        machine = f"{plan.single} rounds, on {_machine()}."
        page.write_text(report.put_between_marks(page.read_text(), f"{text}\n\n{machine}"))
    _write(options.json, {"machine": _machine(), "measurements": table.document(done)})


def _profile(plan: Plan, options: argparse.Namespace) -> None:
    with nodes.made(dual=options.dual, pods=1, crowd=0) as field:
        parts = inside.measure(field, plan.inside)
    _say("\n".join(inside.lines(parts)))
    _write(options.json, {"machine": _machine(), **parts})


def _measurements(plan: Plan) -> Iterator[Measurement]:
    with nodes.made(dual=False, pods=rounds.AT_ONCE, crowd=rounds.MANY) as field:
        yield from rounds.one_by_one(field, plan.single, label="IPv4")
        yield from rounds.without_work(field, plan.single)
        yield from rounds.at_once(field, plan.bursts, label="IPv4")
        yield from rounds.growth(field, plan.growth)
    with nodes.made(dual=True, pods=rounds.AT_ONCE if plan.dual_bursts else 1, crowd=0) as field:
        yield from rounds.one_by_one(field, plan.dual, label="IPv4 and IPv6")
        if plan.dual_bursts:
            yield from rounds.at_once(field, plan.dual_bursts, label="IPv4 and IPv6")


def _machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {load:.1f}"
    )


def _write(path: Path | None, document: object) -> None:
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cni", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead")
    parser.add_argument("--dual", action="store_true", help="profile with IPv4 and IPv6")
    parser.add_argument(
        "--docs", type=Path, help="write the table into benchmarks-cni.md there, too"
    )
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
