# SPDX-License-Identifier: Apache-2.0
"""The command line: nouns read, verbs change. Works without the agent.

Only this package prints. Each command has a module of its own, and COMMANDS says which. At the top
such a module imports click and other light modules only. It imports what does the work inside the
command: `--help` and the shell's completion load every module of this package and nothing else.

A new command: one module, and one line in COMMANDS.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pycni import __version__
from pycni.cli import failure
from pycni.cli.invocation import Invocation, output_option
from pycni.cli.lazy import LazyGroup
from pycni.names import SETTINGS_PATH

COMMANDS = {
    "setup": "pycni.cli.setup",
    "teardown": "pycni.cli.setup",
    "agent": "pycni.cli.agent",
    "install": "pycni.cli.install",
    "uninstall": "pycni.cli.install",
    "forget": "pycni.cli.forget",
    "status": "pycni.cli.status",
    "endpoints": "pycni.cli.endpoints",
    "ports": "pycni.cli.ports",
    "nodes": "pycni.cli.nodes",
    "maps": "pycni.cli.maps",
    "drops": "pycni.cli.drops",
    "lab": "pycni.cli.lab",
    "version": "pycni.cli.version",
}
"""The module of each command. The command is the module's attribute of the same name."""


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=failure.EXIT_STATUSES,
)
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    envvar="PYCNI_CONFIG",
    help=f"Settings file (TOML), also PYCNI_CONFIG. Default: {SETTINGS_PATH}, if it exists.",
)
@click.option("-v", "--verbose", is_flag=True, help="Write a log to stderr.")
@output_option
@click.version_option(__version__, prog_name="pycni")
@click.pass_context
def cli(context: click.Context, /, *, path: Path | None, verbose: bool) -> None:
    """A Kubernetes network plugin whose dataplane is eBPF."""
    import logging

    context.ensure_object(Invocation).path = path
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s level=%(levelname)s module=%(module)s %(message)s",
    )


def main() -> None:
    """Entry point of the console script."""
    invocation = Invocation()
    try:
        status = cli.main(obj=invocation, standalone_mode=False)
    except Exception as error:
        sys.exit(failure.report(error, as_json=invocation.as_json or failure.wants_json(sys.argv)))
    sys.exit(status if isinstance(status, int) else failure.OK)
