# SPDX-License-Identifier: Apache-2.0
"""Calls in any order, on a node whose agent and pods end in between: always what the model says."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fuzz import strangers
from fuzz.model import DONE, Key, Model
from fuzz.profiles import without_shrinking
from pycni.dataplane import maps
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.lab.topology import NETNS_DIR
from pycni.settings import load
from support import unchanged
from support.flood import unanswered
from support.plugin import Reply, execute
from support.waiting import wait_until

pytestmark = pytest.mark.root

PODS = 3
NETWORKS = ("red", "blue")
IFNAMES = ("eth0", "net1")
VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
DELAYS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.3)
"""Seconds after which a runtime kills the plugin."""

BROKEN: tuple[dict[str, Any], ...] = (
    {},
    {"mtu": "large", "ipMasq": 7},
    {"prevResult": []},
    {"runtimeConfig": {"portMappings": 1, "bandwidth": [], "ips": "x"}},
    {"dns": 1, "args": [], "ipam": {"ranges": "x"}},
)
"""Own keys as DEL may find them, after somebody edited the configuration."""

keys = st.builds(
    Key,
    network=st.sampled_from(NETWORKS),
    pod=st.integers(0, PODS - 1),
    ifname=st.sampled_from(IFNAMES),
)
KEYS = tuple(
    Key(network, pod, ifname)
    for network, pod, ifname in itertools.product(NETWORKS, range(PODS), IFNAMES)
)


class Node(RuleBasedStateMachine):
    """A node of the lab beside its model."""

    lab: ClassVar[Lab]

    def __init__(self) -> None:
        super().__init__()
        self.node: LabNode = self.lab.layout.nodes[0]
        self.far: Pod = self.lab.layout.nodes[1].pods[0]
        self.bystander: Pod = self.node.pods[0]
        self.others = strangers.ifnames(self.node.netns)
        self.entries = _endpoints(self.node)
        self.as_before: Callable[[], None] = unchanged.since_now(self.node)
        self.agent = True
        self.ghosts: set[str] = set()
        """Addresses of pods that ended while no agent saw it: somebody may have swept them."""
        self.model = Model(set())
        for number in range(PODS):
            self._begin(number)

    @rule(key=keys, version=st.sampled_from(VERSIONS))
    def add(self, key: Key, version: str) -> None:
        reply = self._call(key, "ADD", cniVersion=version)

        assert _code(reply) == self.model.add_gives(key), reply.text
        if reply.status == DONE:
            self.model.added(key, reply.document)
            self.ghosts -= set(reply.addresses)

    @rule(key=keys, own=st.sampled_from(BROKEN), lost=st.booleans(), times=st.integers(1, 2))
    def delete(self, key: Key, own: dict[str, Any], lost: bool, times: int) -> None:
        for _ in range(times):
            reply = self._call(key, "DEL", env={"CNI_NETNS": ""} if lost else {}, **own)

            assert (reply.status, reply.document) == (DONE, {}), reply.text
        self.model.deleted(key)

    @rule(key=keys)
    def check(self, key: Key) -> None:
        previous = self.model.live.get(key, {"cniVersion": VERSIONS[0]})

        reply = self._call(key, "CHECK", cniVersion=previous["cniVersion"], prevResult=previous)

        assert _code(reply) == self.model.check_gives(key), reply.text

    @rule(network=st.sampled_from(NETWORKS), valid=st.sets(st.sampled_from(KEYS)))
    def collect(self, network: str, valid: set[Key]) -> None:
        kept = [
            {"containerID": self._pod(key.pod).name, "ifname": key.ifname}
            for key in sorted(valid, key=KEYS.index)
            if key.network == network
        ]

        config: dict[str, Any] = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": kept}
        reply = self._call(Key(network, 0, ""), "GC", **config)

        assert (reply.status, reply.document) == (DONE, {}), reply.text
        self.model.collected(network, valid)

    @rule(key=keys, command=st.sampled_from(("ADD", "DEL")), delay=st.sampled_from(DELAYS))
    def killed_then_deleted(self, key: Key, command: str, delay: float) -> None:
        plugin = _begun(self.node, self._pod(key.pod), key, command)
        time.sleep(delay)
        plugin.kill()
        plugin.communicate()

        assert self._call(key, "DEL").status == DONE
        self.model.deleted(key)

    @rule(number=st.integers(0, PODS - 1))
    def a_pod_ends(self, number: int) -> None:
        if number in self.model.pods:
            self._end(number)

    @rule(number=st.integers(0, PODS - 1))
    def a_pod_begins(self, number: int) -> None:
        if number not in self.model.pods:
            self._begin(number)

    @precondition(lambda self: self.agent)
    @rule()
    def the_agent_is_killed(self) -> None:
        self.lab.stop_agent(self.node, kill=True)
        self.agent = False

    @precondition(lambda self: not self.agent)
    @rule()
    def the_agent_starts(self) -> None:
        self.lab.start_agent(self.node)
        cluster.wait_for_agent(self.lab, self.node)
        self.agent = True

    @invariant()
    def links_and_entries_are_those_of_live_attachments(self) -> None:
        def links() -> bool:
            return strangers.ifnames(self.node.netns) == self.others | self.model.host_ifnames()

        def entries() -> bool:
            found, wanted = self._entries(), self.model.addresses()
            return wanted <= found <= wanted | (set() if self.agent else self.ghosts)

        wait_until(links, f"the links are those of {list(self.model.live)}")
        wait_until(entries, f"the entries are those of {list(self.model.live)}")
        if self.agent:
            self.ghosts.clear()

    @invariant()
    def pods_have_what_was_added_and_what_was_theirs(self) -> None:
        for number in self.model.pods:
            wanted = {"lo", strangers.IN_A_POD}
            wanted |= {key.ifname for key in self.model.live if key.pod == number}
            assert strangers.ifnames(self._pod(number).netns) == wanted

    @invariant()
    def live_pods_and_bystanders_answer(self) -> None:
        asked = [*sorted(self.model.reachable()), *self.lab.addresses(self.bystander)]

        assert unanswered(self.lab, self.far.netns, asked, count=1) == []

    def teardown(self) -> None:
        if not self.agent:
            self.the_agent_starts()
        for key in KEYS:
            assert self._call(key, "DEL").status == DONE
        for number in list(self.model.pods):
            topology.remove_netns(self._pod(number).netns)
        self.as_before()

    def _pod(self, number: int) -> Pod:
        name = f"random{number}"
        return Pod(name, self.node.name, f"{self.lab.layout.name}-{name}")

    def _begin(self, number: int) -> None:
        netns = self._pod(number).netns
        topology.make_netns(netns)
        strangers.move_in(netns)
        self.model.pods.add(number)

    def _end(self, number: int) -> None:
        topology.remove_netns(self._pod(number).netns)
        self.ghosts |= self.model.pod_ended(number)

    def _call(
        self, key: Key, command: str, *, env: dict[str, str | None] | None = None, **config: Any
    ) -> Reply:
        variables = {"CNI_IFNAME": key.ifname, **(env or {})}
        return execute(
            self.lab, self._pod(key.pod), command, env=variables, name=key.network, **config
        )

    def _entries(self) -> set[str]:
        return _endpoints(self.node) - self.entries


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[type[Node]]:
    with strangers.on(lab.layout.nodes[0]):
        yield type("Node", (Node,), {"lab": lab})


def test_any_order_of_calls_leaves_what_the_model_says(machine: type[Node]) -> None:
    run_state_machine_as_test(
        machine, settings=without_shrinking(short=7, long=120, stateful_step_count=14)
    )


def _code(reply: Reply) -> int:
    return int(reply.document["code"]) if reply.status else DONE


def _endpoints(node: LabNode) -> set[str]:
    with maps.open_endpoints(load(node.settings_path).pin_root) as table:
        return {str(address) for address, _ in table.items()}


def _begun(node: LabNode, pod: Pod, key: Key, command: str) -> subprocess.Popen[bytes]:
    """A plugin that has its configuration."""
    plugin = subprocess.Popen(
        processes.inside(node.netns, [node.bin_dir / "pycni"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.name,
            "CNI_NETNS": str(NETNS_DIR / pod.netns),
            "CNI_IFNAME": key.ifname,
            "CNI_PATH": str(node.bin_dir),
        },
    )
    assert plugin.stdin is not None
    plugin.stdin.write(json.dumps({"cniVersion": "1.0.0", "name": key.network}).encode())
    plugin.stdin.close()
    plugin.stdin = None
    return plugin
