# SPDX-License-Identifier: Apache-2.0
"""`pycni agent`: the node's daemon, in the foreground."""

from __future__ import annotations

import click

from pycni.cli import failure, privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN


@click.command()
@click.option("--setup/--no-setup", "with_setup", default=True, help="Set the node up first.")
@output_option
@pass_invocation
def agent(invocation: Invocation, /, *, with_setup: bool) -> None:
    """Serve the plugin and follow the cluster.

    Ends at SIGTERM or Ctrl-C. Packets flow on without an agent.
    """
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    with failure.ended_by_interrupt():
        from pycni.agent import agent as daemon

        settings = invocation.settings()
        invocation.log(level=settings.log_level, form=settings.log_format)
        daemon.run(invocation.settings, setup=with_setup)
