# SPDX-License-Identifier: Apache-2.0
"""Packets that nobody may send are dropped, and `pycni drops` says how many and why."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from pycni.lab.cluster import Lab
from pycni.lab.layout import (
    POD_IFNAME,
    UNDERLAY4,
    LabNode,
    Pod,
)
from pycni.names import GATEWAY_MAC
from support.flows import FAMILIES, answering, ask, send_frames
from support.labs import drops
from support.underlay import send_by_node, send_by_stranger, vxlan
from support.waiting import wait_until

COUNT = 7
OTHER_VNI = 8
OTHER_MAC = "02:00:00:00:00:99"
ELSEWHERE = {4: "192.0.2.7", 6: "2001:db8:99::7"}

both_families = pytest.mark.parametrize("family", FAMILIES)


def address(lab: Lab, pod: Pod, family: int) -> str:
    return next(one for one in lab.addresses(pod) if ip_address(one).version == family)


def mac(lab: Lab, pod: Pod) -> str:
    return str(lab.results[pod.name]["interfaces"][1]["mac"])


def ping(source: str, target: str) -> Packet:
    if ":" in source:
        return IPv6(src=source, dst=target) / ICMPv6EchoRequest()
    return IP(src=source, dst=target) / ICMP()


def frame(source_mac: str, packet: Packet) -> bytes:
    return bytes(Ether(src=source_mac, dst=GATEWAY_MAC) / packet)


def dropped(
    lab: Lab, node: LabNode, what: tuple[str, str], send: Callable[[], None]
) -> dict[tuple[str, str], int]:
    """What `send` adds to the drops of a node, once COUNT packets of `what` have been counted.

    Pods send multicast of their own accord (MLD, RFC 3810), which is dropped as well.
    """
    before = drops(lab, node)
    send()
    wait_until(
        lambda: drops(lab, node).get(what, 0) >= before.get(what, 0) + COUNT,
        f"{COUNT} drops: {what}, have {drops(lab, node)}",
    )
    after = drops(lab, node)
    added = {key: count - before.get(key, 0) for key, count in after.items()}
    return {key: count for key, count in added.items() if count and key[0] != "MULTICAST"}


@both_families
def test_a_pod_cannot_send_from_another_pods_address(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    liar, victim = node.pods
    target = lab.layout.pods[-1]
    packet = ping(address(lab, victim, family), address(lab, target, family))

    counted = dropped(
        lab,
        node,
        ("SPOOFED_SOURCE", "from_container"),
        lambda: send_frames(liar.netns, POD_IFNAME, [frame(mac(lab, liar), packet)] * COUNT),
    )

    assert counted == {("SPOOFED_SOURCE", "from_container"): COUNT}


@both_families
def test_a_pod_cannot_send_from_an_address_of_nobody(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    liar, target = node.pods
    packet = ping(ELSEWHERE[family], address(lab, target, family))

    counted = dropped(
        lab,
        node,
        ("SPOOFED_SOURCE", "from_container"),
        lambda: send_frames(liar.netns, POD_IFNAME, [frame(mac(lab, liar), packet)] * COUNT),
    )

    assert counted == {("SPOOFED_SOURCE", "from_container"): COUNT}


@both_families
def test_a_pod_cannot_send_from_another_mac(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    liar, target = node.pods
    packet = ping(address(lab, liar, family), address(lab, target, family))

    counted = dropped(
        lab,
        node,
        ("SPOOFED_MAC", "from_container"),
        lambda: send_frames(liar.netns, POD_IFNAME, [frame(OTHER_MAC, packet)] * COUNT),
    )

    assert counted == {("SPOOFED_MAC", "from_container"): COUNT}


@both_families
def test_vxlan_of_a_stranger_is_dropped(lab: Lab, family: int) -> None:
    """With the right VNI, and an inner source that the cluster has."""
    node, other = lab.layout.nodes
    packet = ping(address(lab, other.pods[0], family), address(lab, node.pods[0], family))
    outer = IP(src=str(UNDERLAY4.ip), dst=str(node.underlay[0].ip)) / vxlan(packet)

    counted = dropped(
        lab,
        node,
        ("UNKNOWN_VTEP", "from_underlay"),
        lambda: send_by_stranger(lab, node, [outer] * COUNT),
    )

    assert counted == {("UNKNOWN_VTEP", "from_underlay"): COUNT}


def test_vxlan_of_another_overlay_is_dropped(lab: Lab) -> None:
    node, other = lab.layout.nodes
    packet = ping(address(lab, other.pods[0], 4), address(lab, node.pods[0], 4))
    outer = between(other, node) / vxlan(packet, vni=OTHER_VNI)

    counted = dropped(
        lab,
        node,
        ("WRONG_VNI", "from_underlay"),
        lambda: send_by_node(other, node, [outer] * COUNT),
    )

    assert counted == {("WRONG_VNI", "from_underlay"): COUNT}


@both_families
def test_a_node_speaks_for_its_own_pods_only(lab: Lab, family: int) -> None:
    node, other = lab.layout.nodes
    packet = ping(ELSEWHERE[family], address(lab, node.pods[0], family))
    outer = between(other, node) / vxlan(packet)

    counted = dropped(
        lab,
        node,
        ("SPOOFED_INNER", "from_overlay"),
        lambda: send_by_node(other, node, [outer] * COUNT),
    )

    assert counted == {("SPOOFED_INNER", "from_overlay"): COUNT}


def between(source: LabNode, target: LabNode) -> Packet:
    return IP(src=str(source.underlay[0].ip), dst=str(target.underlay[0].ip))


def test_a_cluster_address_of_nobody_is_dropped_at_its_source(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    pod = node.pods[0]
    packet = ping(address(lab, pod, 4), "10.244.77.7")

    counted = dropped(
        lab,
        node,
        ("UNKNOWN_DESTINATION", "from_container"),
        lambda: send_frames(pod.netns, POD_IFNAME, [frame(mac(lab, pod), packet)] * COUNT),
    )

    assert counted == {("UNKNOWN_DESTINATION", "from_container"): COUNT}


def test_what_is_not_vxlan_is_left_to_the_host(lab: Lab) -> None:
    """A DNS server on the node, say: the guard on the uplink is for one port."""
    node = lab.layout.nodes[0]
    before = guarded(lab, node)
    with answering(node.netns, str(node.underlay[0].ip), 53) as (port, _):
        seen = ask(lab.layout.underlay_netns, str(node.underlay[0].ip), port)

    assert seen == str(UNDERLAY4.ip)
    assert guarded(lab, node) == before


def guarded(lab: Lab, node: LabNode) -> dict[tuple[str, str], int]:
    """Drops on the uplink."""
    return {key: count for key, count in drops(lab, node).items() if key[1] == "from_underlay"}
