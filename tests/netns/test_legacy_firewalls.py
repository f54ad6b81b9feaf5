# SPDX-License-Identifier: Apache-2.0
"""Rules of iptables-legacy: what stops pods' packets is named, with commands that let them pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pycni.faults import Fault
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import WORLD, LabNode
from pycni.node import other_firewalls
from pycni.node.record import Node
from pycni.settings import load
from support.flows import answering, ask
from support.labs import within

TABLES = {"raw": ("PREROUTING", "OUTPUT"), "filter": ("INPUT", "FORWARD", "OUTPUT")}
UFW = (
    "-P INPUT DROP",
    "-N ufw-not-local",
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A INPUT -j ufw-not-local",
    "-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN",
    "-A ufw-not-local -m limit --limit 3/min -j DROP",
)
FIREWALLD = (
    "-N FORWARD_ZONES",
    "-N FWD_public",
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
    "-A FORWARD -j FORWARD_ZONES",
    "-A FORWARD_ZONES -g FWD_public",
    "-A FWD_public -p icmp -j ACCEPT",
    "-A FWD_public -j REJECT",
)


@contextmanager
def legacy(node: LabNode, *rules: str) -> Iterator[None]:
    try:
        for rule in rules:
            run(node, f"iptables-legacy {rule}")
        yield
    finally:
        for table, chains in TABLES.items():
            for chain in chains:
                run(node, f"iptables-legacy -t {table} -P {chain} ACCEPT")
            run(node, f"iptables-legacy -t {table} -F")
            run(node, f"iptables-legacy -t {table} -X")


def run(node: LabNode, command: str) -> None:
    done = processes.run(node.netns, command.split())
    assert done.returncode == 0, done.stderr.decode()


def found(node: LabNode) -> list[Fault]:
    record = Node.load(load(node.settings_path))
    return within(node.netns, lambda: other_firewalls.faults(record))


def reaches_the_world(lab: Lab) -> bool:
    address = str(WORLD[0])
    with answering(lab.layout.underlay_netns, address) as (port, _):
        return ask(lab.layout.pods[0].netns, address, port) is not None


@pytest.mark.parametrize(
    ("rules", "thing"),
    [
        (["-A FORWARD -s 10.244.0.0/16 -j DROP"], "rule 1 of chain FORWARD"),
        (["-N late", "-A late -j DROP", "-A FORWARD -j late"], "rule 1 of chain late"),
        (["-t raw -A PREROUTING -i pycni+ -j DROP"], "rule 1 of chain PREROUTING"),
        (["-A FORWARD ! -i eth0 -o eth0 -j DROP"], "rule 1 of chain FORWARD"),
        (FIREWALLD, "rule 2 of chain FWD_public"),
    ],
    ids=["addresses", "a chain", "raw", "interfaces", "firewalld"],
)
def test_what_stops_pods_is_named_and_the_commands_let_them_pass(
    lab: Lab, rules: list[str], thing: str
) -> None:
    node = lab.layout.nodes[0]
    with legacy(node, *rules):
        assert not reaches_the_world(lab)
        (fault,) = found(node)
        for command in fault.todo.removeprefix("run: ").split("; "):
            run(node, command)

        assert fault.thing.startswith(f"{thing} of iptables-legacy -t ")
        assert reaches_the_world(lab)
        assert found(node) == []


@pytest.mark.parametrize(
    ("rules", "hook"),
    [
        (["-A INPUT -p udp --dport 4000:5000 -j DROP"], "stopping VXLAN of other nodes"),
        (["-A INPUT -p udp -m multiport --dports 53,4789 -j DROP"], "stopping VXLAN"),
        (UFW, "dropping what it does not know, and does not name 4789"),
    ],
    ids=["ports", "multiport", "ufw"],
)
def test_what_stops_vxlan_is_named(lab: Lab, rules: list[str], hook: str) -> None:
    node = lab.layout.nodes[0]
    with legacy(node, *rules):
        (fault,) = found(node)
        run(node, fault.todo.removeprefix("run: "))

        assert hook in fault.sentence
        assert found(node) == []


def test_what_lets_pods_pass_by_their_addresses_is_no_fault(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with legacy(
        node,
        "-P FORWARD DROP",
        "-A FORWARD -s 10.244.0.0/16 -j ACCEPT",
        "-A FORWARD -d 10.244.0.0/16 -j ACCEPT",
        "-A INPUT -p tcp --dport 25 -j DROP",
    ):
        assert reaches_the_world(lab)
        assert found(node) == []
