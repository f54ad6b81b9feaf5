"""`pycni lab`: a cluster on this machine, in namespaces of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

import click
from rich.console import Console

from pycni.cli.output import emit
from pycni.lab import checks, cluster, processes
from pycni.lab.checks import Check
from pycni.lab.cluster import Lab

name_option = click.option("--name", default="lab", show_default=True, help="Name of the lab.")
nodes_option = click.option("--nodes", type=click.IntRange(1, 200), default=2, show_default=True)
pods_option = click.option(
    "--pods", type=click.IntRange(1, 200), default=3, show_default=True, help="Pods per node."
)


@click.group()
def lab() -> None:
    """A cluster on this machine: nodes and pods as network namespaces."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean up, as Ctrl-C


@lab.command()
@name_option
@nodes_option
@pods_option
def up(name: str, nodes: int, pods: int) -> None:
    """Bring a lab up."""
    made = cluster.up(name, nodes=nodes, pods=pods, report=_progress)
    for pod in made.layout.pods:
        click.echo(f"{pod.name}  {'  '.join(made.addresses(pod))}")


@lab.command()
@name_option
def ping(name: str) -> None:
    """Ping from every pod to every other pod, both families."""
    _finish(_show(checks.matrix(Lab.load(name))))


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, pod: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in a POD's network namespace (or in a node's: name the node)."""
    found = Lab.load(name)
    nodes = {node.name: node.netns for node in found.layout.nodes}
    netns = nodes.get(pod) or found.pod(pod).netns
    argv = processes.inside(netns, command)
    os.execvp(argv[0], argv)


@lab.command()
@name_option
def down(name: str) -> None:
    """Take a lab down."""
    cluster.down(Lab.load(name))


@lab.command()
@name_option
@nodes_option
@pods_option
def run(name: str, nodes: int, pods: int) -> None:
    """Bring a lab up, prove that it works, show the tables and take it down."""
    made = cluster.up(name, nodes=nodes, pods=pods, report=_progress)
    try:
        done = _show(checks.everything(made))
        for node in made.layout.nodes:
            for noun in (("endpoints",), ("maps", "dump", "remotes")):
                rows = made.pycni(node, *noun)
                click.echo(f"\n{node.name}: {' '.join(noun)}")
                emit(rows, "table", columns=tuple(rows[0]) if rows else ())
    finally:
        cluster.down(made)
    _finish(done)


def _show(results: Iterable[Check]) -> list[Check]:
    console = Console(highlight=False, soft_wrap=True)
    done = []
    for check in results:
        mark = "[green]ok  [/]" if check.passed else "[red]FAIL[/]"
        console.print(f"{mark} {check.name}  [dim]{check.found}[/]")
        done.append(check)
    return done


def _finish(done: list[Check]) -> None:
    failed = sum(not check.passed for check in done)
    click.echo(f"lab: {len(done) - failed} checks passed, {failed} failed")
    if failed or not done:
        sys.exit(1)


def _progress(step: str) -> None:
    click.echo(f"lab: {step}", err=True)
