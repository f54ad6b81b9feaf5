"""`pycni status`: whether this node forwards packets."""

from __future__ import annotations

import click

from pycni.cli import failure, privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN


@click.command()
@output_option
@click.pass_context
@pass_invocation
def status(invocation: Invocation, context: click.Context) -> None:
    """Whether this node forwards packets, and what it lacks.

    Exit status 1: a check failed without which packets do not flow. The agent and the store are
    optional: without them packets of the pods that are there still flow.
    """
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.attachments import health

    found = health.checks(invocation.settings())
    rows = [
        {
            "check": check.name,
            "ok": check.ok,
            "optional": check.optional,
            "state": check.state,
            "hint": check.hint or None,
        }
        for check in found
    ]
    columns = ["check", "ok", "state"]
    invocation.emit(rows, columns=columns + ["hint"] * any(row["hint"] for row in rows))
    if not all(check.ok or check.optional for check in found):
        context.exit(failure.FAILED)
