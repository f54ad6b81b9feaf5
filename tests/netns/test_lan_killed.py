# SPDX-License-Identifier: Apache-2.0
"""Calls for pods on the LAN that are killed at each of their steps, and who clears up after them:
the DEL that a runtime sends, a GC, and the agent once the pod's namespace has ended."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from netns.test_host_ends import kept
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.lab.topology import open_rtnl, remove_netns
from support import dying, labs
from support.lan import HOST_LOCAL, RANGES, ROUTERS, lease_files
from support.plugin import Reply, execute, invocation, network
from support.snapshot import Snapshot, differences, take
from support.waiting import wait_until_none

KILLED = -signal.SIGKILL
ENDS = "198.18.0.191", "fd00:99::bf"
FEW = {"ADD": 20, "DEL": 8}
"""Steps that a call has at least."""

both_calls = pytest.mark.parametrize("command", FEW)


class Caller:
    """A runtime with one network."""

    def __init__(self, lab: Lab, node: LabNode, config: dict[str, Any]) -> None:
        self.lab, self.node, self.config = lab, node, config
        self.before = self.look()

    def call(self, pod: Pod, command: str, **more: Any) -> Reply:
        env = {"CNI_PATH": str(HOST_LOCAL.parent)}
        reply = execute(self.lab, pod, command, env=env, **(self.config | more))
        assert reply.status == 0, reply.text
        return reply

    def killed(self, pod: Pod, command: str, step: int) -> bool:
        """Call without an agent, and kill that; False if it was done before that step."""
        env = {"CNI_PATH": str(HOST_LOCAL.parent)}
        _, variables = invocation(self.lab, pod, command, env=env)
        done = processes.run(
            self.node.netns,
            [sys.executable, "-I", dying.__file__, str(step), self.node.settings_path],
            stdin=json.dumps(network(self.lab, **self.config)).encode(),
            env=variables,
        )
        assert done.returncode in (0, KILLED), done.stdout
        return done.returncode == KILLED

    def each_step(self, command: str, pods: Callable[[], Pod]) -> Iterator[Pod]:
        """A pod with nothing attached for each step at which its call was killed, and one more."""
        for step in count(1):
            pod = pods()
            if command == "DEL":
                self.call(pod, "ADD")
            is_killed = self.killed(pod, command, step)
            yield pod
            if not is_killed:
                assert step > FEW[command]
                return

    def look(self) -> Snapshot:
        return take(self.node)

    def left(self, *pods: Pod) -> list[str]:
        """What there is that was not at first."""
        return [
            *(f"lease of {one}" for one in lease_files(self.node)),
            *(f"address {path.name}" for path in self.node.directory.glob("host-local/*/[0-9]*")),
            *(f"link {one} in {pod.name}" for pod in pods for one in links_in(pod)),
            *(one for one in differences(self.before, self.look()) if "fdb" not in one),
        ]


def links_in(pod: Pod) -> list[str]:
    with open_rtnl(pod.netns) as ipr:
        return [link.ifname for link in ipr.links() if link.ifname != "lo"]


@pytest.fixture
def caller(lab: Lab, macvlan: dict[str, Any]) -> Caller:
    """With ranges of pycni's own, of which each pod gets an address."""
    node = lab.layout.nodes[0]
    whole = [one | {"rangeEnd": end} for one, end in zip(RANGES[node.name], ENDS, strict=True)]
    return Caller(lab, node, macvlan | {"ipMasq": False, "ipam": {"ranges": whole}})


@pytest.fixture
def delegating(lab: Lab, macvlan: dict[str, Any]) -> Caller:
    """With addresses of another plugin."""
    if not HOST_LOCAL.exists():
        pytest.skip(f"missing: {HOST_LOCAL} (apt install containernetworking-plugins)")
    node = lab.layout.nodes[0]
    ipam = {
        "type": "host-local",
        "ranges": [[RANGES[node.name][0] | {"rangeEnd": ENDS[0]}]],
        "routes": [{"dst": "0.0.0.0/0", "gw": ROUTERS[0]}],
        "dataDir": str(node.directory / "host-local"),
    }
    return Caller(lab, node, macvlan | {"ipMasq": False, "ipam": ipam})


@pytest.fixture
def made(lab: Lab) -> Iterator[Callable[[], Pod]]:
    """Makes one more pod's namespace each time."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(labs.made_pod(lab, lab.layout.nodes[0]))


@both_calls
def test_the_next_del_leaves_nothing(caller: Caller, spare: Pod, command: str) -> None:
    for number, pod in enumerate(caller.each_step(command, lambda: spare), 1):
        caller.call(pod, "DEL")

        assert caller.left(pod) == [], f"killed at step {number}"


@both_calls
def test_the_next_del_leaves_nothing_with_another_plugin(
    delegating: Caller, spare: Pod, command: str
) -> None:
    for number, pod in enumerate(delegating.each_step(command, lambda: spare), 1):
        delegating.call(pod, "DEL")

        assert delegating.left(pod) == [], f"killed at step {number}"


@both_calls
def test_a_gc_leaves_nothing(
    lab: Lab, caller: Caller, made: Callable[[], Pod], command: str
) -> None:
    pods = list(caller.each_step(command, made))

    caller.call(pods[0], "GC", **kept(*lab.layout.pods))

    assert caller.left(*pods) == []


@both_calls
def test_the_agent_leaves_nothing_once_namespaces_end(
    caller: Caller, made: Callable[[], Pod], command: str
) -> None:
    for pod in caller.each_step(command, made):
        remove_netns(pod.netns)

    wait_until_none(caller.left)


@both_calls
def test_the_agent_releases_what_another_plugin_gave(
    delegating: Caller, made: Callable[[], Pod], command: str
) -> None:
    for pod in delegating.each_step(command, made):
        remove_netns(pod.netns)

    wait_until_none(delegating.left)
