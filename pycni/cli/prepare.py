# SPDX-License-Identifier: Apache-2.0
"""`pycni prepare`: a host for a pycni that runs in a container."""

from __future__ import annotations

from pathlib import Path

import click

from pycni.cli import privilege
from pycni.cli.install import bin_dir_option, conf_dir_option
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_SYS_ADMIN


@click.command()
@bin_dir_option
@conf_dir_option
@output_option
@pass_invocation
def prepare(invocation: Invocation, /, *, bin_dir: Path | None, conf_dir: Path | None) -> None:
    """Make a host ready for pycni in a container.

    Mounts the host's BPF file system if there is none, and refuses a host where another agent runs
    or whose directories cannot be written. The only step that needs a privileged container.
    """
    privilege.require(CAP_SYS_ADMIN)
    from pycni.setup import container, runtimes

    settings = invocation.settings()
    runtime = runtimes.find().runtime
    mounted = container.prepare(
        settings, bin_dir=bin_dir or runtime.bin_dir, conf_dir=conf_dir or runtime.conf_dir
    )
    done = f"mounted {settings.bpffs}" if mounted else f"{settings.bpffs} is the host's"
    invocation.say(f"the host is ready: {done}", bpffs=str(settings.bpffs), mounted=mounted)
