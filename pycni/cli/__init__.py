"""The command line: nouns read, verbs change. Works with the agent dead.

Only this package prints. Errors become one paragraph on stderr (what, found, what to do) and exit
status 1; wrong usage is click's status 2.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from loader.errors import LoaderError
from pycni import settings
from pycni.cli.lab import lab
from pycni.cli.nouns import (
    drops,
    endpoints,
    maps_group,
    nodes,
    ports,
    status,
)
from pycni.cli.verbs import (
    agent,
    forget,
    install,
    setup,
    teardown,
    uninstall,
)
from pycni.errors import PycniError
from pycni.kernel.netlink import NetlinkError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="PYCNI_CONFIG",
    help=f"Settings file (TOML); {settings.DEFAULT_PATH} if there is one.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, to stderr.")
@click.version_option(package_name="pycni")
@click.pass_context
def cli(context: click.Context, path: Path | None, verbose: bool) -> None:
    """A Kubernetes network plugin whose dataplane is eBPF."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s level=%(levelname)s module=%(module)s %(message)s",
    )
    context.obj = path


for command in (
    setup,
    teardown,
    agent,
    install,
    uninstall,
    forget,
    status,
    endpoints,
    ports,
    nodes,
    maps_group,
    drops,
    lab,
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    try:
        cli()
    except (PycniError, LoaderError) as error:
        sys.exit(explain(error))
    except NetlinkError as error:
        sys.exit(f"pycni: the kernel refused a change of the network: {error.strerror}")
    except OSError as error:
        sys.exit(f"pycni: {error}")


def explain(error: PycniError | LoaderError) -> str:
    """An error for people: what happened, what was found, what to do."""
    parts = [f"pycni: {error.message}"]
    if error.details:
        parts.append(f"  found: {error.details}")
    if error.hint:
        parts.append(f"  to do: {error.hint}")
    return "\n".join(parts)
