# SPDX-License-Identifier: Apache-2.0
"""`pycni ports`: the node's ports that lead to pods, from its nftables table."""

from __future__ import annotations

import click

from pycni.cli import privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation


@click.command()
@output_option
@pass_invocation
def ports(invocation: Invocation) -> None:
    """The ports of this node that lead to pods on it."""
    privilege.require(privilege.CAP_NET_ADMIN)
    from pycni.cli import rows

    columns = ("port", "protocol", "address", "pod", "pod_port", "pod_name", "container")
    invocation.emit(rows.ports(invocation.settings()), columns=columns)
