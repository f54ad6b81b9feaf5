# SPDX-License-Identifier: Apache-2.0
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
    """The pods on this node, one row for each address.

    CONTAINER is the runtime's ID of the pod's sandbox, HOST INTERFACE the end of the pod's link
    that is on the host ("gone": the address waits to be released), MAC that of the pod's end.
    MASQUERADE says whether the pod has the node's address outside of the cluster.
    """
    privilege.require(CAP_BPF, CAP_SYS_ADMIN)
    from pycni.cli import rows

    columns = ("address", "container", "host_interface", "mac", "masquerade")
    invocation.emit(rows.endpoints(invocation.settings()), columns=columns)
