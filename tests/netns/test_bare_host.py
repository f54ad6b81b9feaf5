# SPDX-License-Identifier: Apache-2.0
"""A host that has the plugin's executable and nothing else: no shell, no libc, no Python.

The plugin runs with a root directory of its own, in which there is the executable, the file of
paths beside it, /proc, and of this machine the directory with the node's socket and BPF file
system. The agent runs beside it, as from a container.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from netns.test_delegation import Ipam
from pycni.cni.launcher import AWAY_SECONDS, PATHS
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import LabNode, Pod
from pycni.names import AWAY_NOTE, NAME_HEAD, AttachmentKey
from pycni.pods import port_records
from pycni.pods.source_rules import PRIORITY
from pycni.settings import load
from pycni.setup import install
from support import bare_root
from support.flood import unanswered
from support.kernel import open_iproute
from support.labs import agent_hung, made_lab, made_pod, rows, setup, teardown
from support.plugin import Reply, execute, invocation, network
from support.snapshot import Snapshot, differences, take
from support.waiting import wait_until, wait_until_none
from support.wellness import is_well

STORM = 110
"""Pods on a node, as many as Kubernetes puts on one."""
AT_ONCE = 12
TRY_AGAIN, NOT_AVAILABLE, LIMITED = 11, 50, 51
STORM_SECONDS = 60.0
"""What a shutdown gives its pods, whatever else this machine does. It takes a few."""
SHORTLY = 2.0
"""Seconds, while a dead agent's socket answers at once."""
SECOND = {"CNI_IFNAME": "eth1"}
STATUS = {"cniVersion": "1.1.0"}
HOST_PORTS = {"portMappings": [{"hostPort": 18099, "containerPort": 8000, "protocol": "tcp"}]}


@dataclass(frozen=True)
class BareHost:
    """A node whose plugin has nothing but itself."""

    lab: Lab
    node: LabNode
    root: Path

    def call(self, pod: Pod, command: str, **how: Any) -> Reply:
        """Execute the plugin. `env` and `stdin` as for support.plugin.execute."""
        stdin, env = how.pop("stdin", None), how.pop("env", None)
        _, variables = invocation(self.lab, pod, command, env=env)
        document = json.dumps(network(self.lab, **how)).encode()
        done = processes.run(
            self.node.netns,
            [sys.executable, "-IS", bare_root.__file__, self.root, "/run", "/opt/cni/bin/pycni"],
            stdin=document if stdin is None else stdin,
            env=variables,
        )
        answer = json.loads(done.stdout) if done.stdout else {}
        return Reply(done.returncode, answer, done.stderr.decode(errors="replace"))

    @property
    def run_dir(self) -> Path:
        return self.node.directory / "run"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=1, pods=1) as made:
        yield made


@pytest.fixture
def node(lab: Lab) -> LabNode:
    return lab.layout.nodes[0]


@pytest.fixture
def host(lab: Lab, node: LabNode, tmp_path: Path) -> BareHost:
    places = install.Places.of(load(node.settings_path), node.settings_path, without_python=True)
    installed = tmp_path / "opt/cni/bin"
    install.install(installed, tmp_path / "lists", places=places)
    shutil.rmtree(tmp_path / "lists")
    assert sorted(path.name for path in installed.iterdir()) == [PATHS, "pycni"]
    return BareHost(lab, node, tmp_path)


@pytest.fixture
def pod(lab: Lab, node: LabNode) -> Iterator[Pod]:
    with made_pod(lab, node) as made:
        yield made


@contextmanager
def agent_dead(lab: Lab, node: LabNode) -> Iterator[None]:
    lab.stop_agent(node, kill=True)
    try:
        yield
    finally:
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)


@contextmanager
def container_dead(lab: Lab, node: LabNode) -> Iterator[None]:
    """As agent_dead; the next agent sets nothing up, as in a pod whose container starts again."""
    lab.stop_agent(node, kill=True)
    try:
        yield
    finally:
        command = pycni_command(node, "--verbose", "agent", "--no-setup")
        lab.agents[node.name] = processes.start(node.netns, command, log=node.log_path)
        lab.save()
        cluster.wait_for_agent(lab, node)


def links(node: LabNode) -> list[str]:
    """The names of all pods' host ends."""
    with open_iproute(node.netns) as ipr:
        names = [str(link.get("ifname")) for link in ipr.get_links()]
    return [name for name in names if name.startswith(NAME_HEAD)]


def existing(host: BareHost) -> list[str]:
    """The host ends of the lab's own pods."""
    keys = (AttachmentKey(host.lab.layout.name, pod.name, "eth0") for pod in host.lab.layout.pods)
    return [key.host_ifname for key in keys]


def wait_until_as(before: Snapshot, node: LabNode) -> None:
    """The agent makes its socket for events a moment after it serves."""
    wait_until_none(lambda: differences(before, take(node)))


def test_with_an_agent_all_is_done(host: BareHost, pod: Pod) -> None:
    before = take(host.node)

    added = host.call(pod, "ADD")
    checked = host.call(pod, "CHECK", prevResult=added.document)
    others = [host.node.netns, host.lab.layout.pods[0].netns]
    unreached = [unanswered(host.lab, one, added.addresses) for one in others]
    status = host.call(pod, "STATUS", **STATUS)
    deleted = [host.call(pod, "DEL").status for _ in range(2)]

    assert (added.status, checked.status, status.status, deleted) == (0, 0, 0, [0, 0])
    assert unreached == [[], []]
    assert differences(before, take(host.node)) == []


def test_without_a_file_of_paths_the_usual_ones_are_meant(host: BareHost, pod: Pod) -> None:
    (host.root / "opt/cni/bin" / PATHS).unlink()

    added = host.call(pod, "ADD")

    assert (added.status, added.document["code"]) == (1, TRY_AGAIN)
    assert "/run/pycni/agent.sock" in added.document["details"]
    assert host.call(pod, "DEL").status == 0


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC"])
def test_without_an_agent_it_is_to_be_tried_again(host: BareHost, pod: Pod, command: str) -> None:
    before = take(host.node)
    with agent_dead(host.lab, host.node):
        begin = time.monotonic()

        reply = host.call(pod, command, **STATUS)

        assert time.monotonic() - begin < SHORTLY
        assert (reply.status, reply.document["code"]) == (1, TRY_AGAIN)
        assert "agent does not answer" in reply.document["msg"]
        assert differences(before, take(host.node), without=("files",)) == []
    wait_until_as(before, host.node)


def test_del_without_an_agent_is_done_and_what_is_left_is_released_by_the_next(
    host: BareHost, pod: Pod
) -> None:
    before = take(host.node)
    added = host.call(pod, "ADD")

    with agent_dead(host.lab, host.node):
        begin = time.monotonic()
        deleted = host.call(pod, "DEL")
        took = time.monotonic() - begin
        gone = links(host.node)
        again = host.call(pod, "DEL", env={"CNI_NETNS": ""})
        kept = {row["address"] for row in rows(host.lab, host.node, "endpoints")}

    assert (deleted.status, deleted.document, deleted.stderr) == (0, {}, "")
    assert again.status == 0
    assert AttachmentKey(host.lab.layout.name, pod.name, "eth0").host_ifname not in gone
    assert took < SHORTLY
    assert set(added.addresses) <= kept, "nobody knows any more what to release"
    wait_until_as(before, host.node)


@pytest.mark.parametrize("away", [container_dead, agent_hung])
@pytest.mark.parametrize("way", ["DEL", "its namespace ends"])
def test_host_ports_and_their_record_go_with_a_pod_that_ends_without_an_agent(
    host: BareHost, away: Callable[[Lab, LabNode], AbstractContextManager[None]], way: str
) -> None:
    before = take(host.node)
    with ExitStack() as ended:
        pod = ended.enter_context(made_pod(host.lab, host.node))
        assert host.call(pod, "ADD", runtimeConfig=HOST_PORTS).status == 0
        records = load(host.node.settings_path).state_dir / port_records.DIRECTORY
        recorded = list(records.iterdir())

        with away(host.lab, host.node):
            if way == "DEL":
                assert host.call(pod, "DEL").status == 0
            ended.close()
            wait_until(lambda: links(host.node) == existing(host), "its link is gone", seconds=60)

    assert len(recorded) == 1
    wait_until_as(before, host.node)


def test_del_without_an_agent_finds_a_link_that_was_renamed(host: BareHost, pod: Pod) -> None:
    before = take(host.node)
    added = host.call(pod, "ADD")
    (own, *_) = (one["name"] for one in added.document["interfaces"])
    with open_iproute(host.node.netns) as ipr:
        index = ipr.link_lookup(ifname=own)[0]
        ipr.link("set", index=index, state="down")
        ipr.link("set", index=index, ifname="renamed")

    with agent_dead(host.lab, host.node):
        deleted = host.call(pod, "DEL")
        with open_iproute(host.node.netns) as ipr:
            left = ipr.link_lookup(ifname="renamed")

    assert (deleted.status, left) == (0, [])
    wait_until_as(before, host.node)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ifname": "other"}, id="another name and no alias"),
        pytest.param({"ifalias": f"pycni:1 key={'0' * 32} if=eth0"}, id="another pod's alias"),
    ],
)
def test_del_without_an_agent_leaves_the_links_of_others(
    host: BareHost, pod: Pod, changes: dict[str, str]
) -> None:
    """One whose name is ours, and that pycni did not make."""
    own = AttachmentKey(host.lab.layout.name, pod.name, "eth0").host_ifname
    made = {"ifname": own} | {key: one for key, one in changes.items() if key == "ifname"}
    with open_iproute(host.node.netns) as ipr:
        ipr.link("add", kind="veth", peer={"ifname": "otherpeer"}, **made)
        index = ipr.link_lookup(ifname=made["ifname"])[0]
        if "ifalias" in changes:
            ipr.link("set", index=index, ifalias=changes["ifalias"])
        try:
            with agent_dead(host.lab, host.node):
                assert host.call(pod, "DEL").status == 0
                assert ipr.link_lookup(ifname=made["ifname"]) == [index]
        finally:
            ipr.link("del", index=index)


def test_del_without_an_agent_removes_the_rules_of_a_second_interface(
    host: BareHost, pod: Pod
) -> None:
    """They stay in the pod when the link goes, and the pod lives on."""
    before = take(host.node)
    first = host.call(pod, "ADD")
    second = host.call(pod, "ADD", env=SECOND)
    assert (first.status, second.status) == (0, 0)
    assert rules(pod) != []

    with agent_dead(host.lab, host.node):
        assert host.call(pod, "DEL", env=SECOND).status == 0
        assert rules(pod) == []
        assert unanswered(host.lab, host.node.netns, first.addresses) == []
        assert host.call(pod, "DEL").status == 0

    wait_until_as(before, host.node)


def rules(pod: Pod) -> list[str]:
    """The sources of our rules in the pod."""
    with open_iproute(pod.netns) as ipr:
        found = [*ipr.get_rules(family=2), *ipr.get_rules(family=10)]
        return [str(one.get("FRA_SRC")) for one in found if one.get("FRA_PRIORITY") == PRIORITY]


def test_what_another_ipam_gave_is_given_back_when_an_agent_is_back(
    host: BareHost, pod: Pod, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ipam = Ipam(tmp_path_factory.mktemp("ipam"))
    before = take(host.node)
    added = host.call(pod, "ADD", ipam=ipam.conf(), env=ipam.path)
    assert (added.status, len(ipam.leases())) == (0, 1), added.text

    with agent_dead(host.lab, host.node):
        assert host.call(pod, "DEL", ipam=ipam.conf(), env=ipam.path).status == 0

    wait_until_none(ipam.leases)
    wait_until_as(before, host.node)


def test_an_agent_that_hangs_releases_what_del_left_when_it_goes_on(
    host: BareHost, pod: Pod
) -> None:
    before = take(host.node)
    assert host.call(pod, "ADD").status == 0

    with agent_hung(host.lab, host.node):
        assert host.call(pod, "DEL").status == 0

    wait_until_as(before, host.node)


def test_an_agent_that_is_away_for_a_moment_is_no_failure(host: BareHost, pod: Pod) -> None:
    note = host.run_dir / AWAY_NOTE
    with agent_dead(host.lab, host.node):
        status = [host.call(pod, "STATUS", **STATUS).status for _ in range(2)]
        noted = note.exists()

    assert (status, noted) == ([0, 0], True)
    assert not note.exists(), "a starting agent leaves the note"


def test_an_agent_that_stays_away_makes_the_node_unready(host: BareHost, pod: Pod) -> None:
    since = int(time.clock_gettime(time.CLOCK_BOOTTIME)) - AWAY_SECONDS - 1
    with agent_dead(host.lab, host.node):
        (host.run_dir / AWAY_NOTE).write_text(str(since))

        status = host.call(pod, "STATUS", **STATUS)

    assert (status.status, status.document["code"]) == (1, NOT_AVAILABLE)
    assert "no pod can be added" in status.document["msg"]
    assert host.call(pod, "STATUS", **STATUS).status == 0


def test_a_dataplane_that_is_broken_is_told_at_once(host: BareHost, pod: Pod) -> None:
    with agent_dead(host.lab, host.node):
        with open_iproute(host.node.netns) as ipr:
            ipr.link("set", index=ipr.link_lookup(ifname="pycni0")[0], state="down")

        status = host.call(pod, "STATUS", **STATUS)

    assert (status.status, status.document["code"]) == (1, LIMITED)
    assert "pycni0 is missing or down" in status.document["msg"]
    wait_until(lambda: host.call(pod, "STATUS", **STATUS).status == 0, "the agent mends it")


def test_a_node_that_is_not_set_up_is_not_available(pod: Pod, tmp_path: Path) -> None:
    """As after a reboot, before the agent has come."""
    with made_lab(nodes=1, pods=0) as other:
        (bare,) = other.layout.nodes
        other.stop_agent(bare)
        teardown(bare)
        places = install.Places.of(load(bare.settings_path), None, without_python=True)
        install.install(tmp_path / "opt/cni/bin", tmp_path / "lists", places=places)
        there = BareHost(other, bare, tmp_path)
        one = Pod(pod.name, bare.name, pod.netns)

        status = there.call(one, "STATUS", **STATUS)
        added, deleted = there.call(one, "ADD"), there.call(one, "DEL")

        setup(bare)
        other.start_agent(bare)
        cluster.wait_for_agent(other, bare)
    assert (status.status, status.document["code"]) == (1, NOT_AVAILABLE)
    assert "no dataplane is loaded" in status.document["msg"]
    assert (added.document["code"], deleted.status) == (TRY_AGAIN, 0)


@pytest.mark.parametrize(
    ("stdin", "code"),
    [(b"{nope", 6), (b"[]", 6), (b"{}", 7), (b'{"name": "a", "cniVersion": "9"}', 1)],
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_bad_input_is_told_on_stdout(
    host: BareHost, pod: Pod, command: str, stdin: bytes, code: int
) -> None:
    with_agent = host.call(pod, command, stdin=stdin)
    (host.root / "opt/cni/bin" / PATHS).unlink()  # now it finds none

    alone = host.call(pod, command, stdin=stdin)

    assert (with_agent.status, with_agent.document["code"]) == (1, code)
    assert (alone.status, alone.document["code"], alone.stderr) == (1, code, "")


def test_a_storm_of_dels_without_an_agent_leaks_nothing(host: BareHost) -> None:
    """A node that shuts down: pods with host ports, with limits, with addresses of their own, pods
    whose namespace has ended, and each DEL comes twice."""
    lab, node = host.lab, host.node
    assert is_well(node)
    before = take(node)
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        pods = [stack.enter_context(made_pod(lab, node)) for _ in range(STORM)]
        added = list(pool.map(partial(add, lab), range(STORM), pods))
        assert [one.text for one in added if one.status] == []
        full = take(node)

        lab.stop_agent(node, kill=True)
        try:
            for pod in pods[::5]:
                topology.remove_netns(pod.netns)
            begin = time.monotonic()
            first = list(pool.map(lambda pod: host.call(pod, "DEL"), pods))
            took = time.monotonic() - begin
            again = list(pool.map(lambda pod: host.call(pod, "DEL", env={"CNI_NETNS": ""}), pods))
            left = links(node)
        finally:
            lab.start_agent(node)
            cluster.wait_for_agent(lab, node)

    assert took < STORM_SECONDS
    assert len(differences(before, full)) > STORM
    assert [one.text for one in first + again if one.status] == []
    assert len(left) == len(lab.layout.pods)
    wait_until_as(before, node)
    assert list((host.run_dir / "locks").glob("attachment-*")) == []
    assert is_well(node)


def add(lab: Lab, number: int, pod: Pod) -> Reply:
    """Attach a pod of the storm, each with something more than an address."""
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"portMappings": [{"hostPort": 20000 + number, "containerPort": 80, "protocol": "tcp"},
                          {"hostPort": 20000 + number, "containerPort": 80, "protocol": "udp"}]},
        {"bandwidth": {"ingressRate": 10**7, "ingressBurst": 10**6}},
        {"ips": [f"10.244.200.{number}"]},
    )  # fmt: skip
    return execute(lab, pod, "ADD", runtimeConfig=kinds[number % len(kinds)])
