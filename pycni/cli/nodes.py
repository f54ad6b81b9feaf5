# SPDX-License-Identifier: Apache-2.0
"""`pycni nodes`: the cluster, as its store has it."""

from __future__ import annotations

import click

from pycni.cli.invocation import Invocation, output_option, pass_invocation


@click.command()
@output_option
@pass_invocation
def nodes(invocation: Invocation) -> None:
    """The nodes of the cluster, and which of them answer.

    The store says which nodes there are. MODE: how packets of this node to it leave: in vxlan, in
    ipip, or direct, without outer headers. ANSWERS: whether a node's kernel answers at its address.
    FORWARDS: whether it does so through the overlay. `-`: the agent has not asked, or not yet.
    """
    from pycni.cli import rows

    columns = ["name", "id", "vtep", "pod_cidrs", "mode", "agent", "answers", "forwards"]
    columns.append("seen_seconds_ago")
    found = rows.nodes(invocation.settings())
    invocation.emit(found, columns=columns + ["rejected"] * any(row["rejected"] for row in found))
