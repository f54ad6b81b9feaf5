# SPDX-License-Identifier: Apache-2.0
"""What a run of the dataplane's bench says: tables in Markdown, JSON, a plot."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Samples, figure_rows, goal_rows, ratio
from bench.measures import FIGURES, GOALS
from bench.paths import (
    BRIDGE,
    CROWDED,
    DIRECT,
    LIMIT,
    LIMIT_LOCAL,
    METADATA,
    NODE_TO_NODE,
    OWN,
    OWN_IPIP,
    OWN_LOCAL,
    ROUTED,
    VETH,
)
from bench.table import markdown
from bench.traffic import CLIENT_CPU, SERVER_CPU
from pycni.kernel import sysctl

BETWEEN = (NODE_TO_NODE, ROUTED, METADATA, OWN, CROWDED, DIRECT, OWN_IPIP, LIMIT)
LOCAL = (VETH, BRIDGE, OWN_LOCAL, LIMIT_LOCAL)
COLOURS = {
    ROUTED: "#c0c0c0",
    BRIDGE: "#c0c0c0",
    METADATA: "#8fb3d9",
    OWN: "#1f5fa8",
    OWN_IPIP: "#8a5fb0",
    DIRECT: "#2e8b57",
    OWN_LOCAL: "#1f5fa8",
    LIMIT: "#e0a030",
    LIMIT_LOCAL: "#e0a030",
}
BEGIN, END = "<!-- written by make bench: begin -->", "<!-- written by make bench: end -->"


def machine() -> str:
    """What the figures depend on, beside the code."""
    congestion = sysctl.read("net/ipv4/tcp_congestion_control")
    return (
        f"{os.cpu_count()} CPUs, {_cpu_model()}, Linux {platform.release()}, TCP with {congestion}"
    )


@dataclass(frozen=True)
class Report:
    """A whole run; `nodes` is what the crowded pair knew, `seconds` what it all took.

    `load` is the machine's load average before: above 0, others are in the rates.
    """

    samples: Samples
    rounds: int
    nodes: int
    seconds: float
    load: float
    machine: str = field(default_factory=machine)


def text(made: Report) -> str:
    """The tables, and what they were measured on."""
    return "\n".join(
        [
            *markdown(goal_rows(GOALS, made.samples)),
            "",
            "Between nodes: median (quartiles) **ratio to node-to-node**",
            "",
            *markdown(figure_rows(FIGURES, BETWEEN, made.samples)),
            "",
            "On a node: median (quartiles) **ratio to the veth pair**",
            "",
            *markdown(figure_rows(FIGURES, LOCAL, made.samples)),
            "",
            f"{made.rounds} rounds, {made.seconds:.0f} s, on {made.machine}, load {made.load:.1f} "
            f"before; client on CPU {CLIENT_CPU}, server on CPU {SERVER_CPU}; *many nodes* are "
            f"{made.nodes:,}.",
        ]
    )


def document(made: Report) -> dict[str, Any]:
    """For JSON: every sample, and what the goals found in them."""
    return {
        "machine": made.machine,
        "rounds": made.rounds,
        "nodes": made.nodes,
        "seconds": round(made.seconds, 1),
        "load": made.load,
        "goals": [
            {
                **vars(goal),
                "found": goal.found(made.samples.of(goal.figure)),
                "met": goal.met(made.samples.of(goal.figure)),
            }
            for goal in GOALS
        ],
        "figures": {
            figure.key: {**vars(figure), "samples": made.samples.of(figure.key)}
            for figure in FIGURES
        },
    }


def write(made: Report, directory: Path) -> None:
    """benchmarks.md between its marks, benchmarks.json, benchmarks.png.

    Raises ModuleNotFoundError if there is no matplotlib; the page and the JSON are written then.
    """
    page = directory / "benchmarks.md"
    page.write_text(put_between_marks(page.read_text(), text(made)))
    (directory / "benchmarks.json").write_text(json.dumps(document(made), indent=1) + "\n")
    draw(made, directory / "benchmarks.png")


def put_between_marks(page: str, tables: str) -> str:
    """The page with what is between the marks replaced. Raises ValueError if they are not there."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{tables}\n\n{END}{tail}"


def draw(made: Report, path: Path) -> None:
    """Ratios to the reference as bars, longer being better."""
    import matplotlib  # an extra: only those who draw need it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = (
        ("between nodes", tuple(path for path in BETWEEN if path != CROWDED)),
        ("on a node", LOCAL),
    )
    figure, axes = pyplot.subplots(1, len(groups), figsize=(13, 7), layout="constrained")
    for axis, (title, paths) in zip(axes, groups, strict=True):
        _draw_group(axis, made.samples, title, paths)
    figure.suptitle(f"{made.machine}, {made.rounds} rounds", fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_group(axis: Any, samples: Samples, title: str, paths: tuple[str, ...]) -> None:
    reference, *others = paths
    shown = [one for one in FIGURES if one.more_is_better and reference in samples.of(one.key)]
    height = 0.8 / len(others)
    for number, path in enumerate(others):
        places = [row + number * height for row in range(len(shown))]
        found = [ratio(samples.of(one.key), path, reference) for one in shown]
        bars = axis.barh(places, found, height=height * 0.9, label=path, color=COLOURS[path])
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks([row + 0.4 - height / 2 for row in range(len(shown))])
    axis.set_yticklabels([one.title for one in shown], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(f"{title}: ratio to {reference}", fontsize=10)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=len(others))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
