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
from pycni.logfmt import FORMATS, LEVELS, LOGFMT
from pycni.names import SETTINGS_PATH

COMMANDS = {
    "prepare": "pycni.cli.prepare",
    "setup": "pycni.cli.setup",
    "teardown": "pycni.cli.setup",
    "agent": "pycni.cli.agent",
    "install": "pycni.cli.install",
    "uninstall": "pycni.cli.install",
    "forget": "pycni.cli.forget",
    "config": "pycni.cli.config",
    "status": "pycni.cli.status",
    "endpoints": "pycni.cli.endpoints",
    "ports": "pycni.cli.ports",
    "nodes": "pycni.cli.nodes",
    "bgp": "pycni.cli.bgp",
    "pools": "pycni.cli.pools",
    "services": "pycni.cli.services",
    "flows": "pycni.cli.flows",
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
@click.option("-v", "--verbose", is_flag=True, help="The same as --log-level info.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    envvar="PYCNI_LOG_LEVEL",
    help="What is written to stderr, also PYCNI_LOG_LEVEL. Default: warning; of `agent`, the "
    "settings' log_level.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    envvar="PYCNI_LOG_FORMAT",
    help="Also PYCNI_LOG_FORMAT. Default: logfmt; of `agent`, the settings' log_format.",
)
@output_option
@click.version_option(__version__, prog_name="pycni")
@click.pass_context
def cli(
    context: click.Context,
    /,
    *,
    path: Path | None,
    verbose: bool,
    log_level: str | None,
    **_: str | None,
) -> None:
    """A Kubernetes network plugin whose dataplane is eBPF."""
    invocation = context.ensure_object(Invocation)
    invocation.path = path
    invocation.log_options = _log_options(context)
    if verbose and log_level is None:
        invocation.log_options["log_level"] = ("info", "--verbose")
    invocation.log(level="warning", form=LOGFMT)


def _log_options(context: click.Context) -> dict[str, tuple[str, str]]:
    """What was said about the log before the command: by key, the value and where it was said."""
    found = {}
    for key in ("log_level", "log_format"):
        if (value := context.params[key]) is not None:
            source = context.get_parameter_source(key)
            by_option = source is click.core.ParameterSource.COMMANDLINE
            name = f"--{key.replace('_', '-')}" if by_option else f"PYCNI_{key.upper()}"
            found[key] = (value, name)
    return found


def main() -> None:
    """Entry point of the console script."""
    invocation = Invocation()
    try:
        status = cli.main(obj=invocation, standalone_mode=False)
    except Exception as error:
        as_json = invocation.as_json or failure.wants_json(sys.argv)
        status = failure.report(error, as_json=as_json)
    failure.drop_unwritten()
    sys.exit(status if isinstance(status, int) else failure.OK)
