"""`pycni endpoints`: the pods on this node, from the dataplane's map and the links' aliases."""

from __future__ import annotations

import click

from pycni.cli import privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_SYS_ADMIN


@click.command()
@output_option
@pass_invocation
def endpoints(invocation: Invocation) -> None:
    """The pods on this node."""
    privilege.require(CAP_BPF, CAP_SYS_ADMIN)
    from pycni.cli import rows

    columns = ("address", "container", "host_interface", "mac", "masquerade")
    invocation.emit(rows.endpoints(invocation.settings()), columns=columns)
