"""The table: kernels down, steps across, with seconds; then what each kernel lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from vm.scenarios import Outcome, Step


def show(console: Console, outcomes: Sequence[Outcome], columns: Iterable[str]) -> None:
    """Print it all."""
    columns = tuple(columns)
    table = Table("kernel", "boot", *columns, "run", caption="seconds", box=SIMPLE, pad_edge=False)
    for outcome in outcomes:
        cells = {step.name: verdict(step) for step in outcome.steps}
        table.add_row(
            outcome.kernel.release,
            f"{outcome.boot_seconds:.0f}" if outcome.boot_seconds else "FAILED",
            *(cells.get(column, "not run") for column in columns),
            f"{outcome.seconds:.0f}",
        )
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
