"""`pycni nodes`: the cluster, as its store has it."""

from __future__ import annotations

import click

from pycni.cli.invocation import Invocation, output_option, pass_invocation


@click.command()
@output_option
@pass_invocation
def nodes(invocation: Invocation) -> None:
    """The nodes of the cluster, as the store has them."""
    from pycni.cli import rows

    columns = ["name", "id", "vtep", "pod_cidrs", "agent", "seen_seconds_ago"]
    found = rows.nodes(invocation.settings())
    invocation.emit(found, columns=columns + ["rejected"] * any(row["rejected"] for row in found))
