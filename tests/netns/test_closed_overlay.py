# SPDX-License-Identifier: Apache-2.0
"""Attacks of a pod that may send any frame, and of a node: nothing arrives, and all is counted.

Every frame of an attack carries a mark. Sniffers at all other pods, on the second node's overlay
device and on the wire look for it; before and after, they must see an innocent frame.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from bpf import wrapping
from bpf.wrapping import ICMPV6, chained
from netns.test_attachments import gateway_is_the_pods_own
from pycni.dataplane import maps
from pycni.kernel import sysctl
from pycni.kernel.links import link_local
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.names import GATEWAY_MAC, OVERLAY_MAC
from pycni.node import overlay_guard, path_mtus
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.settings import load
from support.flows import send_frames
from support.kernel import open_iproute
from support.labs import agent_hung, drops, rows, setup, within
from support.plugin import execute
from support.traffic.frames import sniffer
from support.underlay import send_by_node
from support.waiting import wait_until

MARK_MAC = "02:ba:d0:ba:d0:01"
MARK = bytes.fromhex(MARK_MAC.replace(":", ""))
GOOD = b"an innocent frame"
VNI, PORT = 7, 4789
WORLD = {4: "192.0.2.7", 6: "2001:db8:99::7"}
METADATA = "169.254.169.254"
UDP_PROTO = 17

Counted = dict[tuple[str, str], int]


@dataclass(frozen=True)
class Sniffers:
    """Sockets that hear everything at places that no attack may reach."""

    sockets: dict[str, socket.socket]

    def heard(self, what: bytes) -> list[str]:
        """Places where a frame with these bytes came, since the last call; forgets all else."""
        found = []
        for place, wire in self.sockets.items():
            try:
                while True:
                    frame, address = wire.recvfrom(1 << 16)
                    if what in frame and address[2] != socket.PACKET_OUTGOING:
                        found.append(place)
            except BlockingIOError:
                continue
        return found


@contextmanager
def sniffing(lab: Lab, attacker: Pod) -> Iterator[Sniffers]:
    """At all pods but the attacker, on the nodes' overlay devices, and behind the uplinks."""
    places = {pod.name: (pod.netns, POD_IFNAME) for pod in lab.layout.pods if pod != attacker}
    for node in lab.layout.nodes:
        places[f"{node.name}'s {DEVICE}"] = (node.netns, DEVICE)
        places[f"wire of {node.name}"] = (lab.layout.underlay_netns, node.port)
    with ExitStack() as stack:
        sockets = {}
        for place, (netns, ifname) in places.items():
            wire = within(netns, lambda ifname=ifname: sniffer(ifname))  # type: ignore[misc]
            wire.setblocking(False)
            sockets[place] = stack.enter_context(wire)
        yield Sniffers(sockets)


def address(lab: Lab, pod: Pod, family: int) -> str:
    return next(one for one in lab.addresses(pod) if ip_address(one).version == family)


def mac(lab: Lab, pod: Pod) -> str:
    return str(lab.results[pod.name]["interfaces"][1]["mac"])


def gateway(node: LabNode, family: int) -> str:
    gateways = Node.load(load(node.settings_path)).gateways
    return str(next(one for one in gateways if one.version == family))


def ip(src: str, dst: str) -> Packet:
    return IPv6(src=src, dst=dst, hlim=255) if ":" in dst else IP(src=src, dst=dst)


def held(
    lab: Lab, attacker: Pod, frames: Sequence[Packet], expected: Counted, node: LabNode
) -> None:
    """Send an attack's frames from a pod; none arrives, and the node counts them so."""
    raw = sent_by(lab, attacker, frames)
    assert all(MARK in frame for frame in raw)
    with sniffing(lab, attacker) as sniffers:
        counted = _counting(
            lab, node, expected, lambda: send_frames(attacker.netns, POD_IFNAME, raw)
        )
        innocent(lab, attacker)

        assert sniffers.heard(MARK) == []
        assert counted == expected
        innocent(lab, attacker)
        wait_until(lambda: len(set(sniffers.heard(GOOD))) > 0, "the sniffers hear what passes")


def sent_by(lab: Lab, pod: Pod, frames: Sequence[Packet]) -> list[bytes]:
    """The bytes of frames, from the pod's own MAC."""
    source = bytes.fromhex(mac(lab, pod).replace(":", ""))
    return [raw[:6] + source + raw[12:] for raw in map(bytes, frames)]


def innocent(lab: Lab, pod: Pod) -> None:
    """A datagram to the last pod, on the other node."""
    target = address(lab, lab.layout.pods[-1], 4)
    packet = ip(address(lab, pod, 4), target) / UDP(dport=PORT) / Raw(GOOD)
    frame = bytes(Ether(src=mac(lab, pod), dst=GATEWAY_MAC) / packet)
    send_frames(pod.netns, POD_IFNAME, [frame])


def _counting(lab: Lab, node: LabNode, expected: Counted, send: Callable[[], None]) -> Counted:
    """What `send` adds to the drops, when the expected ones are there; pods send multicast (MLD)
    of their own accord."""
    before = drops(lab, node)
    send()

    def added() -> Counted:
        after = drops(lab, node)
        return {
            key: count - before.get(key, 0)
            for key, count in after.items()
            if count != before.get(key, 0) and key[0] not in ("MULTICAST", "UNANSWERED_PROBE")
        }

    wait_until(lambda: added() == expected, f"{expected}, have {added()}")
    return added()


def forged(lab: Lab, attacker: Pod, dst: str, **fields: object) -> Packet:
    """What speaks as the other pod of the node, to the last pod."""
    family = 6 if ":" in dst else 4
    other, far = lab.layout.nodes[0].pods[1], lab.layout.pods[-1]
    inside = ip(address(lab, other, 4), address(lab, far, 4)) / UDP() / Raw(MARK)
    ethernet = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC)
    outside = ip(address(lab, attacker, family), dst)
    for name, value in fields.items():
        setattr(outside, name, value)
    vxlan = VXLAN(vni=VNI, flags="Instance") / ethernet / inside
    return Ether(dst=GATEWAY_MAC) / outside / UDP(sport=4789, dport=PORT) / vxlan


def outsiders(lab: Lab) -> list[str]:
    """Addresses of no pod."""
    one, two = lab.layout.nodes
    underlay = [str(interface.ip) for node in (one, two) for interface in node.underlay]
    return [*underlay, gateway(one, 4), gateway(one, 6), *WORLD.values()]


def test_a_pod_cannot_send_vxlan_to_anybody_but_a_pod(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    attacker = node.pods[0]
    frames = [forged(lab, attacker, dst) for dst in outsiders(lab)]
    frames += [
        forged(lab, attacker, WORLD[4], options=[IPOption_Timestamp()]),
        forged(lab, attacker, WORLD[4], flags="MF"),
    ]
    source, far6 = address(lab, attacker, 6), str(lab.layout.nodes[1].underlay[1].ip)
    udp = bytes(forged(lab, attacker, far6))[54:]
    frames += [
        chained(source, far6, headers, UDP_PROTO, udp) for headers in wrapping.CHAINS.values()
    ]

    held(lab, attacker, frames, {("FORGED_VXLAN", "from_container"): len(frames)}, node)


def test_nor_to_the_gateway_of_another_node(lab: Lab) -> None:
    one, two = lab.layout.nodes
    attacker = one.pods[0]
    frames = [forged(lab, attacker, gateway(two, family)) for family in (4, 6)]

    counted = _counting(
        lab,
        two,
        {("FORGED_VXLAN", "from_overlay"): len(frames)},
        lambda: send_frames(attacker.netns, POD_IFNAME, sent_by(lab, attacker, frames)),
    )

    assert counted == {("FORGED_VXLAN", "from_overlay"): len(frames)}


def test_a_queued_pod_cannot_either(lab: Lab, spare: Pod) -> None:
    """Others' ingress qdisc takes what the pod sends; the check comes before."""
    node = lab.layout.node(spare.node)
    added = execute(lab, spare, "ADD", tcx=True)
    assert added.status == 0, added.text
    lab.results[spare.name] = added.document
    host_ifname = added.document["interfaces"][0]["name"]
    with open_iproute(node.netns) as ipr:
        (index,) = ipr.link_lookup(ifname=host_ifname)
        ipr.tc("add", "ingress", index, handle=0xFFFF0000)
    wait_until(
        lambda: any(row["queued"] for row in rows(lab, node, "endpoints")), "the agent sees it"
    )
    try:
        frames = [forged(lab, spare, dst) for dst in outsiders(lab)]
        held(lab, spare, frames, {("FORGED_VXLAN", "from_container"): len(frames)}, node)
    finally:
        del lab.results[spare.name]


def test_a_pod_cannot_narrow_the_paths_between_nodes(lab: Lab) -> None:
    one, two = lab.layout.nodes
    attacker = one.pods[0]
    vteps = [str(node.underlay[0].ip) for node in (one, two)]
    frames = []
    for own, other in (vteps, reversed(vteps)):
        vxlan = ip(own, other) / UDP(sport=40000, dport=PORT) / VXLAN(vni=VNI) / Raw(bytes(60))
        for about in (vxlan, ip(own, other) / ICMP(type=0)):
            error = ICMP(type=3, code=4, nexthopmtu=700) / about
            frames.append(Ether(dst=GATEWAY_MAC) / ip(address(lab, attacker, 4), own) / error)
    expected = {("FORGED_ERROR", "from_container"): len(frames)}

    counted = _counting(
        lab,
        one,
        expected,
        lambda: send_frames(attacker.netns, POD_IFNAME, sent_by(lab, attacker, frames)),
    )

    assert counted == expected
    for node in (one, two):
        settings = load(node.settings_path)
        assert within(node.netns, partial(path_mtus.faults, settings)) == []
        assert rows(lab, node, "path_mtus") == []


def test_no_shape_of_a_packet_hides_what_it_carries(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    attacker, victim = node.pods
    source, target = address(lab, attacker, 6), address(lab, victim, 6)
    option = ICMPv6NDOptDstLLAddr(lladdr=MARK_MAC)
    na = bytes(ip(source, target) / ICMPv6ND_NA(tgt=gateway(node, 6), R=1) / option)[40:]
    frames = [
        packet
        for dst in (target, address(lab, lab.layout.pods[-1], 6), WORLD[6])
        for _, packet in wrapping.unreadable(source, dst, ICMPV6, na)
        if MARK in bytes(packet)
    ]

    held(lab, attacker, frames, {("HIDDEN_HEADER", "from_container"): len(frames)}, node)


def messages(node: LabNode, source: str) -> list[Packet]:
    """Each message of a neighbour or router that a pod could send."""
    router = gateway(node, 6)
    target, from_router = (
        ICMPv6NDOptDstLLAddr(lladdr=MARK_MAC),
        ICMPv6NDOptSrcLLAddr(lladdr=MARK_MAC),
    )
    return [
        ICMPv6ND_RS() / from_router,
        ICMPv6ND_RA(routerlifetime=1800) / from_router,
        ICMPv6ND_NA(tgt=router, R=1, O=1) / target,
        ICMPv6ND_NS(tgt=source) / from_router,
        ICMPv6ND_Redirect(tgt=source, dst=WORLD[6]) / target,
    ]


def test_a_pod_cannot_poison_its_neighbours(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    attacker, victim = node.pods
    source = address(lab, attacker, 6)
    targets = [address(lab, victim, 6), address(lab, lab.layout.pods[-1], 6), gateway(node, 6)]
    frames: list[Packet] = []
    for dst in targets:
        for message in messages(node, source):
            if not isinstance(message, ICMPv6ND_NS):  # the node answers it
                frames.append(Ether(dst=GATEWAY_MAC) / ip(source, dst) / message)
            data = bytes(ip(source, dst) / message)[40:]
            frames += [
                chained(source, dst, headers, ICMPV6, data) for headers in wrapping.CHAINS.values()
            ]

    held(lab, attacker, frames, {("NEIGHBOUR_MESSAGE", "from_container"): len(frames)}, node)


@pytest.mark.parametrize("kind", [5, 9], ids=["redirect", "router advertisement"])
def test_a_pod_cannot_redirect_others(lab: Lab, kind: int) -> None:
    node = lab.layout.nodes[0]
    attacker, victim = node.pods
    source = address(lab, attacker, 4)
    frames = [
        Ether(dst=GATEWAY_MAC) / outside / ICMP(type=kind) / Raw(MARK)
        for dst in (
            address(lab, victim, 4), address(lab, lab.layout.pods[-1], 4), gateway(node, 4),
            WORLD[4],
        )
        for outside in (
            IP(src=source, dst=dst),
            IP(src=source, dst=dst, flags="MF"),
            IP(src=source, dst=dst, options=[IPOption_Timestamp()]),
        )
    ]  # fmt: skip

    held(lab, attacker, frames, {("NEIGHBOUR_MESSAGE", "from_container"): len(frames)}, node)


def test_arp_of_a_pod_reaches_nobody(lab: Lab) -> None:
    """A question is answered by the node; all else is dropped, and counted as a probe."""
    node = lab.layout.nodes[0]
    attacker, victim = node.pods
    lies = [
        Ether(dst=dst) / ARP(op=op, hwsrc=MARK_MAC, psrc=psrc, pdst=pdst)
        for dst in ("ff:ff:ff:ff:ff:ff", mac(lab, victim))
        for op in (1, 2)
        for psrc, pdst in (
            (gateway(node, 4), address(lab, victim, 4)),
            (gateway(node, 4), gateway(node, 4)),
        )
    ]

    held(lab, attacker, lies, {}, node)


MARTIANS = ("0.0.0.0", "0.1.2.3", "240.0.0.1", "255.255.255.254", "::", "::192.0.2.7", "::2")
LINK_LOCALS = (METADATA, "169.254.1.1", "fe80::1", "fe80::a9fe:a9fe")


def test_no_packet_goes_to_an_address_of_no_host(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    attacker = node.pods[0]

    def sent(dst: str) -> Packet:
        family = 6 if ":" in dst else 4
        packet = ip(address(lab, attacker, family), dst) / UDP(dport=53) / Raw(MARK)
        return Ether(dst=GATEWAY_MAC) / packet

    mapped = [sent("::ffff:192.0.2.7"), sent(f"::ffff:{METADATA}")]
    frames = [*map(sent, MARTIANS), *map(sent, LINK_LOCALS), *mapped]

    expected = {
        ("MARTIAN", "from_container"): len(MARTIANS),
        ("LINK_LOCAL", "from_container"): len(LINK_LOCALS),
        ("BAD_HEADER", "from_container"): len(mapped),
    }
    held(lab, attacker, frames, expected, node)


def test_a_dhcp_clients_link_local_address_speaks_dhcp_only(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    attacker, victim = node.pods
    source = link_local(mac(lab, attacker))
    with in_endpoints(lab, attacker, source):
        frames = [
            Ether(dst=GATEWAY_MAC) / ip(str(source), dst) / payload
            for dst in (
                address(lab, victim, 6), address(lab, lab.layout.pods[-1], 6), gateway(node, 6),
                WORLD[6], str(link_local(mac(lab, victim))),
            )
            for payload in (
                UDP(sport=68, dport=67) / Raw(MARK),
                *messages(node, str(source)),
            )
            if not isinstance(payload, ICMPv6ND_NS)
        ]  # fmt: skip

        held(lab, attacker, frames, {("LINK_LOCAL", "from_container"): len(frames)}, node)


@contextmanager
def in_endpoints(lab: Lab, pod: Pod, where: IPv6Address) -> Iterator[None]:
    """What ADD writes for a pod whose IPAM is `dhcp`."""
    settings = load(lab.layout.node(pod.node).settings_path)
    with maps.open_endpoints(settings.pin_root) as table:
        table.put(where, dict(table.items())[ip_address(address(lab, pod, 4))])
        yield
        table.remove(where)


def outside(node: LabNode, dst: str) -> Packet:
    """What is around a frame in VXLAN that a node's kernel sends."""
    head = IP(src=str(node.underlay[0].ip), dst=dst) / UDP(sport=50000, dport=PORT, chksum=0)
    return head / VXLAN(vni=VNI, flags="Instance")


def test_a_node_cannot_say_for_its_pods_what_they_cannot(lab: Lab) -> None:
    """It may be older, or not its own any more; it sends VXLAN by itself."""
    node, hostile = lab.layout.nodes
    source, target = address(lab, hostile.pods[0], 6), address(lab, node.pods[0], 6)
    ethernet = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC)
    inside = [
        ethernet / ip(source, dst) / message
        for message in messages(node, source)
        for dst in (target, gateway(node, 6))
    ]
    redirect = ip(address(lab, hostile.pods[0], 4), address(lab, node.pods[0], 4))
    inside.append(ethernet / redirect / ICMP(type=5) / Raw(MARK))
    packets = [outside(hostile, str(node.underlay[0].ip)) / frame for frame in inside]
    expected = {("NEIGHBOUR_MESSAGE", "from_overlay"): len(packets)}
    places = {pod.name: pod for pod in node.pods}
    with ExitStack() as stack:
        sockets = {}
        for name, pod in places.items():
            wire = within(pod.netns, lambda: sniffer(POD_IFNAME))
            wire.setblocking(False)
            sockets[name] = stack.enter_context(wire)

        counted = _counting(lab, node, expected, lambda: send_by_node(hostile, node, packets))

        assert counted == expected
        assert Sniffers(sockets).heard(MARK) == []


def test_vxlan_of_a_node_is_taken_at_the_vtep_only(lab: Lab) -> None:
    """The guard drops it before (test_overlay_guard.py); here somebody has deleted the guard."""
    node, other = lab.layout.nodes
    inside = ip(address(lab, other.pods[0], 4), address(lab, node.pods[0], 4)) / UDP() / Raw(MARK)
    frame = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / inside
    second = "198.18.0.77"
    packets = [outside(other, second) / frame] * 3
    with agent_hung(lab, node), open_iproute(node.netns) as ipr:
        within(node.netns, overlay_guard.teardown)
        (index,) = ipr.link_lookup(ifname="eth0")
        ipr.addr("add", index=index, address=second, prefixlen=32)
        try:
            counted = _counting(
                lab,
                node,
                {("NOT_VTEP", "from_overlay"): len(packets)},
                lambda: send_by_node(other, node, packets),
            )
        finally:
            ipr.addr("del", index=index, address=second, prefixlen=32)
    setup(node)

    assert counted == {("NOT_VTEP", "from_overlay"): len(packets)}


TRUSTS_NOBODY = {
    f"net/ipv6/conf/{POD_IFNAME}/accept_ra": "0",
    f"net/ipv6/conf/{POD_IFNAME}/accept_redirects": "0",
    f"net/ipv4/conf/{POD_IFNAME}/accept_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
}


def test_a_pod_takes_nothing_from_routers_or_neighbours(lab: Lab, spare: Pod) -> None:
    added = execute(lab, spare, "ADD")
    assert added.status == 0, added.text

    found = within(spare.netns, lambda: {name: sysctl.read(name) for name in TRUSTS_NOBODY})

    assert found == TRUSTS_NOBODY


def test_an_add_that_fails_leaves_the_pods_parameters(lab: Lab, spare: Pod) -> None:
    shared = "net/ipv4/conf/all/accept_redirects"
    before = within(spare.netns, lambda: sysctl.read(shared))

    with gateway_is_the_pods_own(lab, spare):  # which is found out when the link is there
        failed = execute(lab, spare, "ADD")

    assert failed.status == 1, failed.document
    assert before == "1"
    assert within(spare.netns, lambda: sysctl.read(shared)) == before
