# SPDX-License-Identifier: Apache-2.0
"""`python -m chaos [--minutes N] [--seed N]`: `make chaos`. Status 0 if all held."""

from __future__ import annotations

import random
import sys

import click

from chaos import table
from chaos.run import Verdict, chaos
from chaos.storm import Wound


@click.command()
@click.option("--minutes", type=float, default=15.0, show_default=True)
@click.option("--seed", type=int, help="Repeat the order of a run that printed this.")
def main(*, minutes: float, seed: int | None) -> None:
    """Hurt the nodes of a lab while traffic flows, and show that each damage is mended."""
    number = random.randrange(1 << 32) if seed is None else seed
    click.echo(f"{minutes:g} minutes, seed {number}")
    verdict = chaos(seconds=60 * minutes, seed=number, tell=_tell)
    click.echo(
        "\n".join(["", *table.by_damage(verdict.wounds), "", *table.by_way(verdict.heard), ""])
    )
    sys.exit(_judge(verdict))


def _tell(wound: Wound) -> None:
    click.echo(f"{wound.node}: {wound.damage}: named after {wound.named:.2f} s, "
          f"mended after {wound.mended:.2f} s")  # fmt: skip


def _judge(verdict: Verdict) -> int:
    found = [
        *(f"lost without a damage: {way} at {moment:.2f}" for way, moment in verdict.strays),
        *(f"in the end: {name}" for name in verdict.unreached),
        *(f"changed: {line}" for line in verdict.changes),
    ]
    click.echo("\n".join(found) or f"{len(verdict.wounds)} damages, all named and mended; "
          "everything forwards, and every node is as it was")  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    main()
