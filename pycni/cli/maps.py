# SPDX-License-Identifier: Apache-2.0
"""`pycni maps`: the dataplane's BPF maps."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from pycni.cli import privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_SYS_ADMIN


def _names() -> tuple[str, ...]:
    """The maps that have a reader. Importing the readers costs too much for `--help`."""
    from pycni.dataplane import dumps

    return tuple(dumps.NAMES)


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return click.Choice(_names()).convert(value, parameter, context)


def _complete_name(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return click.Choice(_names()).shell_complete(context, parameter, incomplete)


@click.group()
@output_option
def maps() -> None:
    """The BPF maps of this node."""


@maps.command("list")
@output_option
@pass_invocation
def list_maps(invocation: Invocation) -> None:
    """The pinned maps, and how many entries each holds."""
    privilege.require(CAP_BPF, CAP_SYS_ADMIN)
    from pycni.cli import rows

    columns = ("name", "type", "entries", "max_entries", "pin")
    invocation.emit(rows.maps(invocation.settings()), columns=columns)


@maps.command("dump")
@click.argument("name", callback=_check_name, shell_complete=_complete_name)
@output_option
@pass_invocation
def dump_map(invocation: Invocation, name: str) -> None:
    """The entries of the map NAME, field by field. `pycni maps list` shows the names.

    Fields are as in bpf/lib/types.h. MTUs and lengths are in bytes. What ends in NS is a time of
    the clock that counts from the boot (CLOCK_MONOTONIC), in nanoseconds.
    """
    privilege.require(CAP_BPF, CAP_SYS_ADMIN)
    from pycni.cli import rows

    found, columns = rows.entries(invocation.settings(), name)
    invocation.emit(found, columns=columns)
