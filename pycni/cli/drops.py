# SPDX-License-Identifier: Apache-2.0
"""`pycni drops`: packets that the dataplane dropped, counted, or one by one as they are dropped."""

from __future__ import annotations

import click

from pycni.cli import failure, privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Print a sample of drops as they happen.")
@output_option
@pass_invocation
def drops(invocation: Invocation, /, *, follow: bool) -> None:
    """Packets dropped, by reason and program.

    The program `nft` is the table pycni_guard, which drops in the host's stack. bpf/README.md says
    what each reason means. NORMAL: every host sends such packets, and nothing is to be done.
    With --follow, `-o json` prints one object a line.
    """
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.cli import rows

    if not follow:
        found, columns = rows.drops(invocation.settings())
        invocation.emit(found, columns=columns)
        return
    with failure.ended_by_interrupt():
        for row in rows.drop_events(invocation.settings()):
            click.echo(rows.line(row, as_json=invocation.as_json))
