# SPDX-License-Identifier: Apache-2.0
"""`python -m cluster`: a Kubernetes on this machine. `make cluster` runs it with its checks."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import click

from cluster import (
    boots,
    build,
    checks,
    e2e,
    installers,
    life,
    multus,
    multus_checks,
    recipe,
    rest,
    rollout,
    runtime,
)
from cluster.kills import short, stage, storm
from cluster.layout import Cluster
from cluster.life import Running
from cluster.machine import Machine
from cluster.options import (
    cluster_options,
    containerd_option,
    kubernetes_option,
    name_option,
)
from cluster.suites import FOCUS
from pycni.errors import PycniError
from pycni.lab import processes
from pycni.lab.checks import Check
from vm.apt import ArchiveError

AS_GIVEN = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Of a command whose arguments another program takes, "--" with them."""

TELL = partial(click.echo, err=True)


@click.group()
def main() -> None:
    """A real Kubernetes with pycni on this machine, in namespaces of its own."""
    # Clean up as at Ctrl-C when asked to end, and when the terminal goes away, unless by nohup it
    # may; a shell's "&" has SIGINT ignored.
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


@main.command()
@cluster_options("k8s")
@click.option("--bare", is_flag=True, help="Without a network plugin.")
def up(cluster: Cluster, *, bare: bool) -> None:
    """Bring a cluster up; it stays up until `down`."""
    life.up(cluster, TELL, bare=bare)
    click.echo(
        f"cluster {cluster.name} is up; try: cd tests; "
        f"{sys.executable} -m cluster kubectl --name {cluster.name} get nodes"
    )


@main.command()
@name_option
def check(name: str) -> None:
    """Run the checks on a cluster that is up."""
    sys.exit(_report(_run_checks(life.load(name))))


@main.command()
@name_option
def down(name: str) -> None:
    """Take everything of a cluster down, whatever state it is in."""
    life.down(life.load(name).cluster)


@main.command()
@cluster_options("k8s")
@click.option("--focus", type=click.Choice(tuple(FOCUS)), help="And Kubernetes' own tests.")
def run(cluster: Cluster, focus: str | None) -> None:
    """Bring a cluster up, run the checks, take it down."""
    if focus:
        _build(cluster.kubernetes, with_tests=True)
    with life.lifetime(cluster, TELL) as running:
        results = _run_checks(running)
        outcomes = e2e.run(running, focus, TELL) if focus else None
    status = 0 if outcomes is None else e2e.report(outcomes, click.echo)
    sys.exit(_report(results) or status)


@main.command("rollout")
@cluster_options("rollout")
@click.option("--by", type=click.Choice(tuple(installers.BY)), default=rollout.MANIFEST,
              show_default=True, help="How it is installed.")  # fmt: skip
def roll_out(cluster: Cluster, *, by: str) -> None:
    """Install, upgrade, roll back and uninstall pycni, in a cluster of that name without a network
    plugin: one that is up (`up --bare`), or a new one."""
    if cluster.name in life.names():
        results = _roll_out(life.load(cluster.name), by)
    else:
        with life.lifetime(cluster, TELL, bare=True) as running:
            results = _roll_out(running, by)
    sys.exit(_report(results))


@main.command("multus")
@cluster_options("multus")
@click.option("--multus", "version", default=multus.VERSION, show_default=True,
              help="Its version.")  # fmt: skip
def second_networks(cluster: Cluster, version: str) -> None:
    """Give pods a second network by Multus, in a cluster of that name: one that is up, or a new
    one."""
    known = life.load(cluster.name).cluster if cluster.name in life.names() else cluster
    multus.refuse_older_runtime(known)
    program = multus.provide(version, TELL)
    with _up(cluster) as running:
        results = _told(multus_checks.everything(running, program))
    sys.exit(_report(results))


@main.command("e2e")
@cluster_options("e2e")
@click.option("--focus", type=click.Choice(tuple(FOCUS)), default="conformance", show_default=True)
def end_to_end(cluster: Cluster, focus: str) -> None:
    """Run Kubernetes' own tests, in a cluster of that name: one that is up, or a new one."""
    _build(cluster.kubernetes, with_tests=True)
    with _up(cluster) as running:
        outcomes = e2e.run(running, focus, TELL)
    sys.exit(e2e.report(outcomes, click.echo))


@main.command("kills")
@cluster_options("kills")
@click.option("--pods", type=click.IntRange(min=1), help="So many pods while all die at random.")
@click.option("--seed", type=int, help="Repeat the order of a run that printed this.")
def run_kills(cluster: Cluster, pods: int | None, seed: int | None) -> None:
    """Kill and stop components under traffic, in a cluster of that name: one that is up, or a new
    one. Each in each way once; or at random, with --pods."""
    group: stage.Group = short.every_component
    if pods is not None:
        number = random.randrange(1 << 32) if seed is None else seed
        click.echo(f"{pods} pods, seed {number}")
        group = partial(storm.storm, pods=pods, seed=number)
    with _up(cluster) as running:
        results = _told(stage.framed(group, running))
    sys.exit(_report(results))


@main.command("boots")
@cluster_options("boots")
@click.option("--pods", type=click.IntRange(min=20), default=boots.FULL, show_default=True,
              help="On the node, all together.")  # fmt: skip
def full_node_boots(cluster: Cluster, *, pods: int) -> None:
    """A node full of pods loses its power, and is shut down in good order, in a cluster of that
    name: one that is up, or a new one."""
    with _up(cluster) as running:
        results = _told(boots.everything(running, pods=pods))
    sys.exit(_report(results))


@main.command("rest")
@cluster_options("rest")
@click.option("--seconds", type=click.IntRange(min=1), default=600, show_default=True)
def at_rest(cluster: Cluster, *, seconds: int) -> None:
    """Count what is written while nothing happens, in a cluster of that name: one that is up, or a
    new one."""
    with _up(cluster) as running:
        results = _told(rest.at_rest(running, seconds=seconds))
    sys.exit(_report(results))


@main.command("list")
def list_clusters() -> None:
    """The clusters that are up or half up."""
    for name in life.names():
        cluster = life.load(name).cluster
        click.echo(f"{name}: {cluster.nodes} nodes, Kubernetes {cluster.kubernetes}, "
                   f"kube-proxy {cluster.kube_proxy}, "
                   f"containerd {cluster.containerd or 'of Debian'}")  # fmt: skip


@main.command(context_settings=AS_GIVEN)
@name_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl as the cluster's administrator; --name comes before its arguments."""
    running = life.load(name)
    command = running.kubectl.command(*arguments)
    argv = processes.inside(running.cluster.control.netns, command)
    os.execvp(argv[0], argv)


@main.command("exec", context_settings=AS_GIVEN)
@name_option
@click.argument("machine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, machine: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on MACHINE: control, node1, node2, ..."""
    argv = _machine(life.load(name).cluster, machine).inside(command)
    os.execvp(argv[0], argv)


@main.command()
@name_option
def kubeconfig(name: str) -> None:
    """The path of the administrator's kubeconfig, right in the control plane's network."""
    click.echo(life.load(name).cluster.keys / "admin.kubeconfig")


@main.command()
@name_option
@click.argument("machine", required=False)
@click.argument("daemon", required=False)
def logs(name: str, machine: str | None, daemon: str | None) -> None:
    """The paths of all logs, or of a machine's; the text of one daemon's log."""
    cluster = life.load(name).cluster
    wanted = [_machine(cluster, machine)] if machine else list(map(Machine, cluster.machines))
    for one in wanted:
        found = one.logs()
        if daemon is None:
            click.echo("\n".join(map(str, found.values())))
        elif daemon in found:
            click.echo(found[daemon].read_text(errors="replace"), nl=False)
        else:
            raise PycniError(
                f"{one.name} has no log of {daemon}", hint=f"it has those of {', '.join(found)}"
            )


@main.command("build")
@kubernetes_option
@containerd_option
@click.option("--e2e", is_flag=True, help="Kubernetes' own tests, too.")
def build_only(kubernetes: str, containerd_version: str, *, e2e: bool) -> None:
    """Build Kubernetes, and a containerd, into the cache, as `up` does if need be."""
    runtime.provide(containerd_version, TELL)
    click.echo(_build(kubernetes, with_tests=e2e))


def _build(kubernetes: str, *, with_tests: bool) -> Path:
    parts = recipe.CLUSTER + (recipe.END_TO_END if with_tests else ())
    return build.provide(recipe.Kubernetes(kubernetes), parts, tell=TELL)


def _machine(cluster: Cluster, name: str) -> Machine:
    for node in cluster.machines:
        if node.name == name:
            return Machine(node)
    known = ", ".join(node.name for node in cluster.machines)
    raise PycniError(f"the cluster {cluster.name} has no machine {name}", hint=f"it has {known}")


@contextmanager
def _up(cluster: Cluster) -> Iterator[Running]:
    """The cluster of that name if it is up, and it stays up; else a new one for the block."""
    if cluster.name in life.names():
        yield life.load(cluster.name)
        return
    with life.lifetime(cluster, TELL) as running:
        yield running


def _run_checks(running: Running) -> list[Check]:
    return _told(checks.everything(running))


def _roll_out(running: Running, by: str) -> list[Check]:
    return _told(rollout.everything(rollout.prepare(running, TELL, by)))


def _told(found: Iterable[Check]) -> list[Check]:
    """Print each check as it ends."""
    results = []
    begun = time.monotonic()
    for one in found:
        results.append(one)
        verdict = f"ok      {one.name}" if one.passed else f"FAILED  {one.name}: {one.found}"
        click.echo(f"{time.monotonic() - begun:6.1f} s  {verdict}")
    return results


def _report(results: Sequence[Check]) -> int:
    """Print the sums. Returns the exit status."""
    passed = sum(one.passed for one in results)
    failed = len(results) - passed
    click.echo(f"cluster: {passed} checks passed, {failed} failed")
    return 1 if failed or not passed else 0


def _run() -> None:
    """The commands, with errors in words: what was found, and what to do."""
    try:
        main(prog_name="python -m cluster")
    except PycniError as error:
        lines = (error.message, error.details, error.hint and f"to do: {error.hint}")
        sys.exit("\n".join(["cluster: " + lines[0], *filter(None, lines[1:])]))
    except ArchiveError as error:
        sys.exit(f"cluster: {error}")


if __name__ == "__main__":
    _run()
