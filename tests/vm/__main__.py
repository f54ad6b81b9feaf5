# SPDX-License-Identifier: Apache-2.0
"""`python -m vm [--kernel NAME] [--step NAME]`: `make test-kernels`.

Status 0 if every step passed on every kernel.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from vm import cache, kernels, payload, report, root, scenarios
from vm.apt import ArchiveError
from vm.cluster import upgrade_busy
from vm.qemu import Disks

WIDTH = 150
"""Characters of the table, whatever the terminal has: cut cells would say nothing."""


@click.command()
@click.option("--kernel", "names", multiple=True, type=click.Choice([*kernels.SUITES]))
@click.option("--step", "steps", multiple=True, type=click.Choice([*scenarios.STEPS]))
@click.option(
    "--upgrades",
    type=click.IntRange(min=1),
    help="Only so many upgrades in a row, with busy processors.",
)
@click.option("--refresh", is_flag=True, help="Fetch the newest kernels of their suites again.")
@click.option("--fetch", is_flag=True, help="Only fetch what every test run boots.")
def main(
    *, names: tuple[str, ...], steps: tuple[str, ...], upgrades: int | None, refresh: bool,
    fetch: bool,
) -> None:  # fmt: skip
    """Boot distribution kernels and show that the dataplane loads and forwards on them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    console = Console()
    wanted = steps or [name for name in scenarios.STEPS if name not in scenarios.LONG]
    columns = {name: body for name, body in scenarios.STEPS.items() if name in wanted}
    if upgrades:
        columns = {
            "load": scenarios.load,
            f"{upgrades} upgrades, busy": partial(
                upgrade_busy, rounds=upgrades, tell=console.print
            ),
        }
    where = cache.directory()

    def progress(step: scenarios.Step) -> None:
        console.print(f"  {step.name}: {report.verdict(step)}")
        if step.found:
            console.print(step.found, highlight=False, markup=False, soft_wrap=True)

    outcomes = []
    try:
        if fetch:
            root.fetch(where)
            kernels.fetch(kernels.TESTED, where)
            return
        with tempfile.TemporaryDirectory(prefix="pycni-vm-") as scratch:
            console.print("preparing the guests' disks ...")
            disks = Disks(root.fetch(where), payload.build(Path(scratch)))
            for name in names or kernels.SUITES:
                if refresh:
                    kernels.forget(name, where)
                kernel = kernels.fetch(name, where)
                console.print(f"{kernel.release} ...", highlight=False)
                logs = cache.logs(name)
                outcomes.append(scenarios.run(
                    kernel, disks, logs, columns, pcap=Path(scratch, f"{name}.pcap"),
                    report=progress,
                ))  # fmt: skip
    except ArchiveError as error:
        sys.exit(f"vm: {error}")
    report.show(Console(width=WIDTH), outcomes, columns)
    sys.exit(not all(outcome.passed for outcome in outcomes))


if __name__ == "__main__":
    main()
