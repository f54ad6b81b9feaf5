# SPDX-License-Identifier: Apache-2.0
"""`pycni agent`: the node's daemon, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pycni.cli import failure, privilege
from pycni.cli.install import bin_dir_option, conf_dir_option, write_list
from pycni.cli.invocation import Invocation, note, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN

if TYPE_CHECKING:
    from pycni.settings import Settings


@click.command()
@click.option(
    "--setup/--no-setup",
    "with_setup",
    default=True,
    show_default=True,
    help="Set the node up first.",
)
@click.option(
    "--install-list",
    is_flag=True,
    help="Write the network list when the node is served: from then on the runtime calls the "
    "plugin. It stays when the agent ends. While it runs, it writes list and plugin again if they "
    "are taken away.",
)
@bin_dir_option
@conf_dir_option
@output_option
@pass_invocation
def agent(
    invocation: Invocation, /, *, with_setup: bool, install_list: bool, **where: Path | None
) -> None:
    """Serve the plugin and follow the cluster.

    Ends at SIGTERM or Ctrl-C. Packets flow on without an agent.
    """
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    with failure.ended_by_interrupt():
        from pycni.agent import agent as daemon

        def served(settings: Settings) -> None:
            if install_list:
                for path in write_list(settings, invocation.path, dict(where)):
                    note(f"wrote {path}")

        settings = invocation.settings()
        invocation.log(level=settings.log_level, form=settings.log_format)
        daemon.run(invocation.settings, setup=with_setup, served=served)
