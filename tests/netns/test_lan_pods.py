# SPDX-License-Identifier: Apache-2.0
"""Pods on the LAN of their nodes: what they reach, what a result says, DEL, GC, CHECK.

macvlan, and ipvlan in both modes, as far as the kernel has them: a step of tests/vm has both. The
LAN is the lab's underlay: its bridge is the router.
"""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, UNDERLAY4, UNDERLAY6, Pod
from pycni.lab.topology import open_rtnl
from pycni.pods.source_rules import table_of
from support.flood import unanswered
from support.kernel import open_iproute
from support.lan import (
    AMONG_NEIGHBOURS,
    DUPLICATE,
    MISMATCH,
    ROUTERS,
    UNKNOWN,
    add,
    call,
    has_child,
    node_of,
    own_addresses,
)
from support.plugin import execute
from support.snapshot import differences, take

LOCKTIME = 1.2
"""Seconds after which a host believes the next MAC of an address (arp(7), locktime)."""


def test_pods_reach_each_other_their_node_and_the_lan(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)

    mine, other = (add(lab, pod, way) for pod in (one, beside))

    lan = [] if way.get("mode") == "l3" else ROUTERS
    assert unanswered(lab, one.netns, [*other.addresses, *own_addresses(node), *lan]) == []
    assert unanswered(lab, node.netns, [*mine.addresses, *other.addresses]) == []


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_pods_of_two_nodes_reach_each_other_and_both_nodes(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    """In L3 mode routers must know which node has which pods, which those of the lab do not."""
    one, _, far = pods

    mine, other = add(lab, one, way), add(lab, far, way)

    everyone = [address for node in lab.layout.nodes for address in own_addresses(node)]
    assert unanswered(lab, one.netns, [*other.addresses, *everyone]) == []
    assert unanswered(lab, far.netns, [*mine.addresses, *everyone]) == []
    assert unanswered(lab, node_of(lab, one).netns, other.addresses) == []


def test_a_result_says_what_the_pod_has_and_check_agrees(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods

    added = add(lab, one, way)

    (interface,) = added.document["interfaces"]
    with open_rtnl(one.netns) as pod, open_rtnl(node_of(lab, one).netns) as ipr:
        link, uplink = pod.link(POD_IFNAME), ipr.link("eth0")
    assert link is not None
    assert uplink is not None
    assert (interface["name"], interface["mac"]) == (POD_IFNAME, link.mac)
    assert (link.mac == uplink.mac) == (way["device"] == "ipvlan")
    assert link.mtu == uplink.mtu
    assert call(lab, one, "CHECK", way, prevResult=added.document).status == 0


def test_del_leaves_the_node_as_it_was(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    assert unanswered(lab, node.netns, ROUTERS) == []
    before = take(node)

    for pod in (one, beside):
        add(lab, pod, way)
    assert has_child(node)
    first = call(lab, one, "DEL", way)
    assert has_child(node)
    again = [call(lab, pod, "DEL", way) for pod in (one, beside, beside)]

    assert [reply.status for reply in (first, *again)] == [0] * 4
    assert differences(before, take(node)) == []
    with open_rtnl(one.netns) as inside:
        assert [link.ifname for link in inside.links()] == ["lo"]


def test_the_lan_keeps_the_nodes_own_mac(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    """Hosts take a question with the node's address in it for news of its MAC (arp_process)."""
    one, *_ = pods
    node = node_of(lab, one)
    addresses = own_addresses(node)
    assert unanswered(lab, lab.layout.underlay_netns, addresses) == []
    before = macs(lab.layout.underlay_netns, addresses)

    added = add(lab, one, way)
    time.sleep(LOCKTIME)
    assert unanswered(lab, node.netns, added.addresses) == []

    assert macs(lab.layout.underlay_netns, addresses) == before


def macs(netns: str, addresses: list[str]) -> dict[str, str]:
    """What a host has learnt of these addresses."""
    with open_iproute(netns) as ipr:
        found = {one.get("NDA_DST"): one.get("NDA_LLADDR") for one in ipr.get_neighbours()}
    return {address: str(found.get(address)) for address in addresses}


def test_a_second_add_is_refused_and_harms_nothing(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods
    added = add(lab, one, way)

    again = call(lab, one, "ADD", way)

    assert again.document["code"] == DUPLICATE, again.text
    assert unanswered(lab, node_of(lab, one).netns, added.addresses) == []
    assert call(lab, one, "CHECK", way, prevResult=added.document).status == 0


def test_gc_removes_what_is_not_listed(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    one, beside, _ = pods
    kept = add(lab, one, way)
    add(lab, beside, way)
    valid = [{"containerID": pod.name, "ifname": POD_IFNAME} for pod in (one, *lab.layout.pods)]

    collected = call(
        lab, one, "GC", way, cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid}
    )

    assert collected.status == 0, collected.text
    with open_rtnl(beside.netns) as pod:
        assert pod.link(POD_IFNAME) is None
    assert unanswered(lab, node_of(lab, one).netns, kept.addresses) == []


def test_check_finds_what_changed(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    one, *_ = pods
    added = add(lab, one, way)

    def checked() -> int:
        reply = call(lab, one, "CHECK", way, prevResult=added.document, alone=True)
        code = reply.document.get("code", 0)
        assert isinstance(code, int)
        return code

    with open_rtnl(one.netns) as pod:
        index = pod.ifindex(POD_IFNAME)
        address = ip_address(added.addresses[0])
        bits = 32 if way.get("mode") == "l3" else 24
        pod.delete_address(index, address, prefixlen=bits)
        without_address = checked()
        pod.delete_link(index)

    assert (without_address, checked()) == (MISMATCH, UNKNOWN)


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_the_lan_may_be_the_second_network_of_a_pod(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, _ = pods
    node, second = node_of(lab, one), {"CNI_IFNAME": "net1"}
    before = take(node)
    first = execute(lab, one, "ADD")
    other = add(lab, beside, way)

    added = call(lab, one, "ADD", way, env=second)
    assert added.status == 0, added.text
    reached = unanswered(lab, one.netns, [*ROUTERS, *other.addresses, *own_addresses(node)])
    answered = [
        unanswered(lab, netns, [*added.addresses])
        for netns in (node.netns, beside.netns, lab.layout.underlay_netns)
    ]
    overlay = unanswered(lab, node.netns, first.addresses)
    with open_rtnl(one.netns) as inside:
        table = table_of(inside.ifindex("net1"))
        on_link = {route.dst for route in inside.routes() if route.table == table}
    checked = call(lab, one, "CHECK", way, env=second, prevResult=added.document)
    ended = [
        call(lab, one, "DEL", way, env=second),
        execute(lab, one, "DEL"),
        call(lab, beside, "DEL", way),
    ]

    assert (reached, answered, overlay) == ([], [[], [], []], [])
    assert on_link >= {UNDERLAY4.network, UNDERLAY6.network}
    assert checked.status == 0, checked.text
    assert [reply.status for reply in ended] == [0, 0, 0]
    assert [one for one in differences(before, take(node)) if "198.18.0.254" not in one] == []
    with open_rtnl(one.netns) as inside:
        assert [rule for version in (4, 6) for rule in inside.rules(version)] == []
