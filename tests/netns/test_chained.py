# SPDX-License-Identifier: Apache-2.0
"""Debian's plugins after ours in one list: each takes our result, works, and takes back its own."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni.lab import processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from support.flood import unanswered
from support.flows import answering, ask
from support.plugin import execute
from support.snapshot import differences, take

DEBIAN = Path("/usr/lib/cni")
"""Of containernetworking-plugins; portmap and firewall call iptables."""
HOST_PORT, POD_PORT = 18090, 8000
RATE, BURST = 20_000_000, 8 * 64000
BACKLOG = "128"

pytestmark = pytest.mark.skipif(
    not (DEBIAN / "portmap").exists(), reason="missing: containernetworking-plugins"
)

MAPPING = {"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"}
PORTMAP = {"type": "portmap", "runtimeConfig": {"portMappings": [MAPPING]}}
FIREWALL = {"type": "firewall"}
SYSCTL = {"type": "tuning", "sysctl": {"net.core.somaxconn": BACKLOG}}
NO_LIMITS = {"type": "bandwidth"}


class Chain:
    """Later plugins of one attachment, executed as a runtime does it; `ours` is said to pycni."""

    def __init__(self, lab: Lab, pod: Pod, *plugins: dict[str, Any], **ours: Any) -> None:
        self._lab = lab
        self.pod = pod
        self.plugins = plugins
        self._ours = ours
        self.result: dict[str, Any] = {}

    @property
    def addresses(self) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in self.result["ips"]]

    def add(self) -> list[int]:
        """ADD of ours and of all others; their exit statuses."""
        first = execute(self._lab, self.pod, "ADD", **self._ours)
        self.result = first.document
        statuses = [first.status]
        for plugin in self.plugins:
            status, answer = self._execute(plugin, "ADD")
            statuses.append(status)
            if status:
                break
            self.result = answer
        return statuses

    def check(self) -> int:
        """CHECK of ours, with the result of them all. (In version 1.1.1 portmap's fails with any
        IPv6 address, and bandwidth's without a limit.)"""
        return execute(self._lab, self.pod, "CHECK", prevResult=self.result).status

    def delete(self) -> list[int]:
        """DEL in the reverse order."""
        others = [self._execute(one, "DEL")[0] for one in reversed(self.plugins)]
        return [*others, execute(self._lab, self.pod, "DEL", prevResult=self.result).status]

    def _execute(self, plugin: dict[str, Any], command: str) -> tuple[int, dict[str, Any]]:
        config = {"cniVersion": "1.0.0", "name": self._lab.layout.name, "prevResult": self.result}
        done = processes.run(
            self._lab.layout.node(self.pod.node).netns,
            [DEBIAN / plugin["type"]],
            stdin=json.dumps(config | plugin).encode(),
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": self.pod.name,
                "CNI_NETNS": str(topology.NETNS_DIR / self.pod.netns),
                "CNI_IFNAME": POD_IFNAME,
                "CNI_PATH": str(DEBIAN),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else {}


def tcp_answer(netns: str, address: str) -> str | None:
    return ask(netns, address, HOST_PORT, protocol="tcp")


def test_a_list_of_them_works_and_takes_everything_back(lab: Lab, spare: Pod) -> None:
    node = lab.layout.node(spare.node)
    chain = Chain(lab, spare, PORTMAP, NO_LIMITS, SYSCTL, FIREWALL)
    assert chain.add() == [0] * 5  # their own tables and chains stay after this
    assert chain.delete() == [0] * 5
    before = take(node)

    added = chain.add()
    checked = chain.check()
    (inside,) = [one for one in chain.addresses if ip_address(one).version == 4]
    outside = str(node.underlay[0].ip)
    with answering(spare.netns, inside, POD_PORT, protocol="tcp"):
        clients = (lab.layout.underlay_netns, lab.layout.pods[0].netns, lab.layout.pods[-1].netns)
        answers = [tcp_answer(netns, outside) for netns in clients]
    unreached = unanswered(lab, lab.layout.pods[-1].netns, chain.addresses)
    deleted = chain.delete()

    assert added == deleted == [0] * 5
    assert checked == 0
    assert None not in answers
    assert unreached == []
    # their rules count packets, and the node has met new neighbours
    assert differences(before, take(node), without=("nft", "neighbours")) == []
