# SPDX-License-Identifier: Apache-2.0
"""tests/cluster: a machine of a cluster, with all that it leaves when it ends: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import cgroups, init, life, network, proc, runtime
from cluster.kills import remains, victims
from cluster.kills.victims import Kind, Victim
from cluster.layout import Cluster
from cluster.life import Running
from cluster.machine import Machine
from cluster.node import start_runtime
from cluster.proc import pid_namespace
from pycni.errors import PycniError
from pycni.kernel import namespaces
from pycni.kernel.links import End
from pycni.lab import processes, topology
from runtimes.images import sleeping_program
from support import leftovers
from support.waiting import wait_until

NAME = f"c{os.getpid()}"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One node, recorded; no machine runs yet. It is taken down in the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Cluster(NAME, 1, "none", "1.37.2", life.base())
    life._record(Running(made, tmp_path))
    topology.make_underlay(made.layout)
    for node in made.layout.nodes:
        topology.make_node(made.layout, node)
    try:
        yield made
    finally:
        life.down(made)


@pytest.fixture
def pause(tmp_path: Path) -> Path:
    program = tmp_path / "pause"
    program.write_bytes(sleeping_program())
    program.chmod(0o755)
    return program


@pytest.fixture
def machine(cluster: Cluster, pause: Path) -> Machine:
    made = Machine(cluster.workers[0])
    made.start(pause)
    return made


def count_processes(machine: Machine) -> int:
    """With the one that counts."""
    return len(machine.run(["sh", "-c", "echo /proc/[0-9]*"]).stdout.split())


def test_a_machine_has_its_own_name_processes_and_directories(machine: Machine) -> None:
    machine.path("/etc/own").write_text("of the machine")
    machine.path("/var/lib/own").touch()

    assert machine.run(["hostname"]).stdout == "node1\n"
    assert machine.run(["cat", "/etc/own"]).stdout == "of the machine"
    assert "lock" in machine.run(["ls", "/run"]).stdout
    assert count_processes(machine) == 2
    assert not Path("/etc/own").exists()
    assert not Path("/var/lib/own").exists()


def test_a_machine_starts_where_mounts_hide_others(cluster: Cluster, pause: Path) -> None:
    """As in a mount namespace that has a /run of its own, beside a cluster."""
    hiding = Path(f"/run/{NAME}-hiding")
    hidden = hiding / "hidden"
    hidden.mkdir(parents=True)
    for place in (hidden, hiding):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        made = Machine(cluster.workers[0])
        made.start(pause)
        assert made.run(["hostname"]).stdout == "node1\n"
    finally:
        for place in (hiding, hidden):
            subprocess.run(["umount", "--lazy", place], check=True)
        hidden.rmdir()
        hiding.rmdir()


def test_a_user_namespace_of_a_machine_can_have_a_proc_of_its_own(machine: Machine) -> None:
    """As pods with users of their own need it."""
    own = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]

    assert machine.run([*own, "cat", "/proc/self/uid_map"]).stdout.split()[1:] == ["0", "1"]


def test_kernel_parameters_of_the_computer_are_only_shown(machine: Machine) -> None:
    parameter = "kernel/keys/root_maxkeys"
    computers = Path("/proc/sys", parameter)
    before = computers.read_text()

    shown = machine.run(["cat", f"/proc/sys/{parameter}"]).stdout
    try:
        machine.run(["sh", "-c", f"echo {int(before) - 1} >/proc/sys/{parameter}"])
        after = computers.read_text()
    finally:
        if computers.read_text() != before:
            computers.write_text(before)

    assert shown == f"{init.PARAMETERS[parameter]}\n"
    assert after == before


def test_a_daemon_is_in_the_machine_and_ends_when_it_is_told(machine: Machine) -> None:
    machine.start_daemon("sleeper", ["sleep", "1000"])
    kept = machine.daemon("sleeper")

    assert kept is not None
    assert kept.alive
    first = machine.daemon("init")
    assert first is not None
    assert pid_namespace(kept.pid) == pid_namespace(first.pid) != pid_namespace(os.getpid())
    machine.require("sleeper")

    machine.stop_daemon("sleeper")

    assert not kept.alive
    with pytest.raises(PycniError, match="sleeper of node1 has ended"):
        machine.require("sleeper")


def test_a_daemon_that_cannot_be_started_is_said(machine: Machine) -> None:
    with pytest.raises(PycniError) as error:
        _start_and_require(machine, "/no/such/program")

    assert "/no/such/program" in error.value.details


def _start_and_require(machine: Machine, program: str) -> None:
    """Whether it ends before or after it was seen in the machine, it is said."""
    machine.start_daemon("nothing", [program])
    kept = machine.daemon("nothing")
    wait_until(lambda: kept is None or not kept.alive, "it ends")
    machine.require("nothing")


@pytest.mark.usefixtures("machine")
def test_a_containerd_that_ends_is_said_with_its_words(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was built: its program is in the cache."""
    newer = replace(cluster, containerd="2.4.2")
    programs = runtime.of(newer).programs
    programs.mkdir(parents=True)
    for name in ("containerd", "ctr"):
        (programs / name).write_text("#!/bin/sh\nsleep 0.3; echo no such plugin >&2; exit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(network, "give_loopback", lambda _: None)

    with pytest.raises(PycniError, match="containerd of node1 has ended") as error:
        start_runtime(newer, cluster.workers[0], images=())

    assert error.value.details == "no such plugin"


def test_a_command_that_fails_or_hangs_is_said(machine: Machine) -> None:
    with pytest.raises(PycniError, match="false on node1 failed"):
        machine.run(["false"])
    with pytest.raises(PycniError, match=r"sleep on node1 did not end in 0.2 s"):
        machine.run(["sleep", "1000"], timeout=0.2)

    assert machine.run(["false"], check=False).returncode == 1
    assert count_processes(machine) == 2  # none that hangs on


def test_a_machine_that_does_not_start_is_said_with_its_log(
    cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(PycniError, match="the machine control does not start") as error:
        Machine(cluster.control).start(tmp_path / "no such program")

    assert "no such program" in error.value.details


def test_down_leaves_nothing(cluster: Cluster, machine: Machine) -> None:
    node = cluster.workers[0]
    cgroups.make(cluster.cgroup(node))
    machine.start_daemon("sleeper", ["sleep", "1000"])
    machine.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"])

    life.down(cluster)

    assert leftovers.found(cluster.directory, NAME) == []
    assert list(processes.inhabitants(node.netns)) == []
    assert not any(map(topology.exists, cluster.layout.namespaces))
    assert not cluster.directory.exists()
    life.down(cluster)  # once more: no error


def test_down_finds_a_machine_that_nobody_recorded(cluster: Cluster, machine: Machine) -> None:
    first = machine.daemon("init")
    (machine.directory / "init.pid").unlink()

    life.down(cluster)

    assert first is not None
    assert not first.alive


def test_down_ends_what_is_stopped(cluster: Cluster, machine: Machine) -> None:
    machine.start_daemon("sleeper", ["sleep", "1000"])
    kept = machine.daemon("sleeper")
    assert kept is not None
    os.kill(kept.pid, signal.SIGSTOP)
    begun = time.monotonic()

    life.down(cluster)

    assert not kept.alive
    assert time.monotonic() - begun < processes.STOP_TIMEOUT / 2


def test_two_clusters_side_by_side_do_not_see_each_other(
    cluster: Cluster, machine: Machine, pause: Path
) -> None:
    other = replace(cluster, name=f"{NAME}-b")
    life._record(Running(other, pause))
    topology.make_underlay(other.layout)
    for node in other.layout.nodes:
        topology.make_node(other.layout, node)
    second = Machine(other.workers[0])
    second.start(pause)

    life.down(other)

    assert machine.run(["hostname"]).stdout == "node1\n"
    assert life.names() == [NAME]


def test_a_daemon_that_was_killed_is_started_again_as_it_was(machine: Machine) -> None:
    machine.start_daemon("sleeper", ["sleep", "1000"])
    first = machine.daemon("sleeper")
    machine.stop_daemon("sleeper", kill=True)

    machine.start_again("sleeper")

    again = machine.daemon("sleeper")
    assert first is not None
    assert again is not None
    assert again.alive
    assert again.pid != first.pid
    assert proc.words(again.pid) == ["sleep", "1000"]
    with pytest.raises(PycniError, match="sleeper of node1 cannot be started again"):
        machine.start_again("sleeper")
    with pytest.raises(PycniError, match="nobody of node1 cannot be started again"):
        machine.start_again("nobody")


def test_a_stopped_daemon_goes_on_or_is_killed_with_nothing_left(machine: Machine) -> None:
    machine.start_daemon("sleeper", ["sleep", "1000"])
    kept = machine.daemon("sleeper")
    assert kept is not None
    outside = proc.parent(kept.pid)
    assert outside is not None

    machine.freeze_daemon("sleeper")
    stopped = proc.is_stopped(kept.pid)
    machine.thaw_daemon("sleeper")
    goes_on = not proc.is_stopped(kept.pid) and not proc.is_stopped(outside.pid)
    machine.freeze_daemon("sleeper")
    machine.stop_daemon("sleeper", kill=True)

    assert stopped
    assert goes_on
    assert not kept.alive
    wait_until(lambda: not outside.alive, "its parent has taken its status")
    assert count_processes(machine) == 2
    with pytest.raises(PycniError, match="sleeper of node1 has ended"):
        machine.freeze_daemon("sleeper")


@pytest.mark.parametrize("kind", Kind)
def test_a_component_that_is_hurt_comes_back(machine: Machine, kind: Kind) -> None:
    machine.start_daemon("kubelet", ["sleep", "1000"])
    before = machine.daemon("kubelet")

    victims.strike(Victim("kubelet", machine.node), kind, seconds=0.2)

    after = machine.daemon("kubelet")
    assert after is not None
    assert after.alive
    assert not proc.is_stopped(after.pid)
    assert (after == before) == (kind is Kind.STOPPED)


def test_what_does_not_run_cannot_be_hurt(machine: Machine) -> None:
    with pytest.raises(PycniError, match="containerd of node1 has ended"):
        victims.strike(Victim("containerd", machine.node), Kind.KILLED, seconds=0)
    with pytest.raises(PycniError, match="no agent of pycni runs on node1"):
        victims.strike(Victim("agent", machine.node), Kind.KILLED, seconds=0)


@pytest.mark.parametrize("kind", Kind)
def test_an_agent_that_is_killed_is_started_again_by_others(machine: Machine, kind: Kind) -> None:
    container = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 1000; :",
                 network.AGENT_OPTION]  # fmt: skip
    machine.start_daemon("shim", container)
    wait_until(lambda: network.agent(machine.node) is not None, "an agent runs")
    before = network.agent(machine.node)
    assert before is not None

    with ThreadPoolExecutor(1) as kubelet:
        if kind is not Kind.STOPPED:
            kubelet.submit(_start_when_ended, machine, before, container)
        victims.strike(Victim("agent", machine.node), kind, seconds=0.2)

    after = network.agent(machine.node)
    assert after is not None
    assert not proc.is_stopped(after.pid)
    assert (after == before) == (kind is Kind.STOPPED)


def _start_when_ended(machine: Machine, before: processes.Kept, container: list[str]) -> None:
    wait_until(lambda: not before.alive, "the agent has ended")
    machine.start_daemon("next shim", container)


def test_what_comes_and_goes_on_a_machine_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remains, "GONE_SECONDS", 0)
    running = Running(Cluster(NAME, 1, "none", "1.37.2", life.base()), Path("/"))
    before = remains.take(running, machine.node)

    assert remains.more(running, machine.node, before) == []

    machine.start_daemon("sleeper", ["sleep", "1000"])
    netns = machine.path("/run/netns/cni-1")
    netns.touch()
    machine.run(["mount", "--bind", "/proc/self/ns/net", "/run/netns/cni-1"])
    machine.run(["ip", "link", "add", "pcnleft", "type", "veth"])
    found = "\n".join(remains.more(running, machine.node, before))

    assert "+ processes: sleep N (1 times)" in found
    assert "+ pods: network namespace cni-1" in found
    assert "+ mounts: /run/netns/cni-N nsfs (1 times)" in found
    assert "+ links: " in found
    assert "pcnleft" in found


def test_a_namespace_is_bare_until_a_plugin_has_put_an_interface_in_it(tmp_path: Path) -> None:
    place = tmp_path / "netns"
    namespaces.create(place)
    try:
        bare = remains.is_bare(place)
        with place.open() as opened, namespaces.open_rtnl(opened.fileno()) as ipr:
            ipr.add_veth(End("one"), End("two"))
        with_links = remains.is_bare(place)
    finally:
        namespaces.remove(place)

    assert (bare, with_links) == (True, False)
