# SPDX-License-Identifier: Apache-2.0
"""`pycni status`: whether this node forwards packets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pycni.cli import privilege
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN

if TYPE_CHECKING:
    from pycni.settings import Settings
    from pycni.upkeep.report import Row

FORWARDS, DEGRADED, BROKEN = 0, 1, 2
WAIT = 60.0
"""Seconds that `--wait` waits if it is not told how many."""
LOOK = 0.5
"""Seconds between two looks."""


class Seconds(click.FloatRange):
    """So many of them."""

    name = "number of seconds"


@click.command()
@click.option(
    "--wait",
    type=Seconds(min=0),
    is_flag=False,
    flag_value=WAIT,
    metavar="[SECONDS]",
    help=f"Wait until the node forwards, at most so long. Without a number: {WAIT:.0f} s. There is "
    "one look at least, however long it takes.",
)
@output_option
@click.pass_context
@pass_invocation
def status(invocation: Invocation, context: click.Context, *, wait: float | None) -> None:
    """Whether this node forwards packets, and what it lacks.

    There is a row for each thing; docs/upkeep.md says what each means. Exit status 0: it forwards.
    1: it forwards, but something is degraded, such as a store that is away or an agent that does
    not run. 2: packets of pods are lost.
    """
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.upkeep.report import State, worst

    found = _look(invocation.settings(), wait=wait or 0.0)
    rows = [
        {"name": row.name, "state": str(row.state), "cause": row.cause, "to_do": row.todo or None}
        for row in found
    ]
    columns = ["name", "state", "cause"]
    has_todo = any(row["to_do"] for row in rows)
    invocation.emit(rows, columns=columns + ["to_do"] * has_todo, below="to_do")
    codes = {State.DEGRADED: DEGRADED, State.BROKEN: BROKEN}
    context.exit(codes.get(worst(found), FORWARDS))


def _look(settings: Settings, *, wait: float) -> list[Row]:
    """The rows once the node forwards, or after `wait` seconds. No look begins that would end
    later, if it takes as long as the one before."""
    from pycni.upkeep import report

    deadline = time.monotonic() + wait
    while True:
        begin = time.monotonic()
        found = [*report.rows(settings), *_other_networks()]
        now = time.monotonic()
        left = deadline - now - (now - begin)
        if report.worst(found) is not report.State.BROKEN or left <= 0:
            return found
        time.sleep(min(LOOK, left))


def _other_networks() -> list[Row]:
    """A row if the runtime of this host uses another network than ours for new pods."""
    from pycni.cni import network_lists
    from pycni.setup import runtimes
    from pycni.setup.conflist import PLUGIN
    from pycni.upkeep.report import Row, State

    for ours in network_lists.users(runtimes.find().runtime.conf_dir, PLUGIN)[:1]:
        if first := network_lists.first_of_others(ours):
            cause = f"{first} {network_lists.GOES_FIRST.format(ours=ours.name)}"
            return [Row("network list", State.DEGRADED, cause, network_lists.GIVE_WAY)]
    return []
