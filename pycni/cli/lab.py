# SPDX-License-Identifier: Apache-2.0
"""`pycni lab`: a cluster on this machine, in namespaces of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pycni.cli import failure, privilege
from pycni.cli.invocation import Invocation, note, output_option, pass_invocation
from pycni.cli.output import escape
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN

if TYPE_CHECKING:
    from pycni.lab.checks import Check

Option = Callable[..., Any]

name_option: Option = click.option(
    "--name", default="lab", show_default=True, help="Name of the lab."
)
nodes_option: Option = click.option(
    "--nodes", type=click.IntRange(1, 200), default=2, show_default=True, help="Nodes."
)
pods_option: Option = click.option(
    "--pods", type=click.IntRange(1, 200), default=3, show_default=True, help="Pods per node."
)


@click.group()
@output_option
def lab() -> None:
    """A cluster of namespaces on this machine."""
    # Clean up at SIGTERM, too, as at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(failure.ENDED))


@lab.command()
@name_option
@nodes_option
@pods_option
@click.option(
    "--services",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Forward the Services in this file (YAML or JSON), and follow its changes.",
)
@output_option
@pass_invocation
def up(invocation: Invocation, name: str, nodes: int, pods: int, services: Path | None) -> None:
    """Bring a lab up."""
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.lab import cluster

    made = cluster.up(name, nodes=nodes, pods=pods, services=services, report=_progress)
    found = [
        {"pod": pod.name, "node": pod.node, "addresses": made.addresses(pod)}
        for pod in made.layout.pods
    ]
    lines = [f"{row['pod']}  {'  '.join(row['addresses'])}" for row in found]
    invocation.say(*lines, lab=name, pods=found)


@lab.command("list")
@output_option
@pass_invocation
def list_labs(invocation: Invocation) -> None:
    """The labs that are up, with their nodes and pods."""
    from pycni.lab import cluster
    from pycni.lab.topology import NETNS_DIR

    rows = [
        {
            "lab": made.layout.name,
            "node": node.name,
            "agent": "alive" if made.has_agent(node) else "dead",
            "netns": str(NETNS_DIR / node.netns),
            "pods": [pod.name for pod in node.pods],
        }
        for made in cluster.all_labs()
        for node in made.layout.nodes
    ]
    invocation.emit(rows, columns=("lab", "node", "agent", "netns", "pods"))


@lab.command()
@name_option
@output_option
@pass_invocation
def ping(invocation: Invocation, name: str) -> None:
    """Ping from every pod to every other pod, IPv4 and IPv6."""
    privilege.require(CAP_SYS_ADMIN)
    from pycni.lab import checks
    from pycni.lab.cluster import Lab

    _finish(invocation, _show(invocation, checks.matrix(Lab.load(name))))


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("place")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, place: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the network namespace of PLACE, a pod or a node.

    On a node, PYCNI_CONFIG is that node's settings file: `pycni lab exec node2 -- pycni status` is
    about node2.

    The exit status is that of COMMAND; 1 if there is no such lab or place, 127 if there is no such
    command.
    """
    privilege.require(CAP_SYS_ADMIN)
    import os

    from pycni.lab import processes
    from pycni.lab.cluster import Lab

    netns, environment = Lab.load(name).place(place)
    argv = processes.inside(netns, command)
    os.execvpe(argv[0], argv, environment)


@lab.command()
@name_option
@output_option
@pass_invocation
def down(invocation: Invocation, name: str) -> None:
    """Take a lab down."""
    privilege.require(CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.lab import cluster
    from pycni.lab.cluster import Lab

    cluster.down(Lab.load(name))
    if invocation.as_json:
        invocation.say(lab=name)


@lab.command()
@name_option
@nodes_option
@pods_option
@output_option
@pass_invocation
def run(invocation: Invocation, name: str, nodes: int, pods: int) -> None:
    """Bring a lab up, prove that it works, and take it down."""
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.lab import checks, cluster

    made = cluster.up(name, nodes=nodes, pods=pods, report=_progress)
    try:
        done = _show(invocation, checks.everything(made))
        for node in made.layout.nodes * (not invocation.as_json):
            for noun in (("endpoints",), ("maps", "dump", "remotes")):
                rows = made.pycni(node, *noun)
                click.echo(f"\n{node.name}: {' '.join(noun)}")
                invocation.emit(rows, columns=tuple(rows[0]) if rows else ())
    finally:
        cluster.down(made)
    _finish(invocation, done)


def _show(invocation: Invocation, results: Iterable[Check]) -> list[Check]:
    """Print each check as it comes; as JSON they are printed together in the end."""
    done = []
    for check in results:
        done.append(check)
        if not invocation.as_json:
            mark = (
                click.style("ok  ", fg="green") if check.passed else click.style("FAIL", fg="red")
            )
            found = click.style(escape(check.found), dim=True) if check.found else ""
            click.echo(f"{mark} {escape(check.name)}  {found}".rstrip())
    return done


def _finish(invocation: Invocation, done: list[Check]) -> None:
    """Print the sum, and exit with 1 if a check failed or there was none."""
    failed = sum(not check.passed for check in done)
    invocation.say(
        f"lab: {len(done) - failed} checks passed, {failed} failed",
        checks=[{"check": one.name, "ok": one.passed, "found": one.found} for one in done],
        passed=len(done) - failed,
        failed=failed,
    )
    if failed or not done:
        click.get_current_context().exit(failure.FAILED)


def _progress(step: str) -> None:
    note(f"lab: {step}")
