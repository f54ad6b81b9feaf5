# SPDX-License-Identifier: Apache-2.0
"""The table: a column per kernel, a row per step, with seconds; then what each kernel lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from vm.scenarios import Outcome, Step


def show(console: Console, outcomes: Sequence[Outcome], steps: Iterable[str]) -> None:
    """Print it all."""
    kernels = [outcome.kernel.release.partition("-")[0] for outcome in outcomes]
    table = Table("kernel", *kernels, caption="seconds", box=SIMPLE, pad_edge=False)
    boots = (one.boot_seconds for one in outcomes)
    table.add_row("boot", *(f"{boot:.0f}" if boot else "FAILED" for boot in boots))
    cells = [{step.name: verdict(step) for step in outcome.steps} for outcome in outcomes]
    for step in steps:
        table.add_row(step, *(one.get(step, "not run") for one in cells))
    table.add_row("run", *(f"{outcome.seconds:.0f}" for outcome in outcomes))
    console.print(table)
    for outcome in outcomes:
        console.print(f"{outcome.kernel.release} lacks" if outcome.missing else
                      f"{outcome.kernel.release} lacks nothing", highlight=False)  # fmt: skip
        for feature in outcome.missing:
            console.print(
                f"  {feature['name']} ({feature['reason']}): {feature['fallback']}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


def verdict(step: Step) -> str:
    """A cell: whether it passed, and its seconds."""
    return f"{'passed' if step.passed else 'FAILED'} {step.seconds:.0f}"
