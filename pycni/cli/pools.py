# SPDX-License-Identifier: Apache-2.0
"""`pycni pools`: the pools that nodes claim blocks of, in a cluster that has some."""

from __future__ import annotations

import click

from pycni.cli.invocation import Invocation, note, output_option, pass_invocation


@click.command()
@output_option
@pass_invocation
def pools(invocation: Invocation) -> None:
    """The pools of addresses, and how much of each is claimed.

    SILENT NODES have claims and give no sign of life. If one is gone for good,
    `kubectl delete node NODE` frees what it has. Where there are no pools, stderr says why.
    """
    from pycni.cli import rows

    columns = ("name", "cidr", "blocks", "claimed", "silent_nodes", "state")
    found, why = rows.pools(invocation.settings())
    invocation.emit(found, columns=columns)
    if why:
        note(why)
