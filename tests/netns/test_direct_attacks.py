# SPDX-License-Identifier: Apache-2.0
"""Nodes that send to each other without VXLAN, attacked on their link: what is not from the node of
its source, by that node's link, reaches nobody, and is counted with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_Timestamp, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from loader import attach
from pycni.kernel.rtnl import Rtnl
from pycni.lab.layout import BRIDGE, NODE_UPLINK, POD_IFNAME
from pycni.settings import load
from pycni.stores import DIRECT, open_store
from pycni.upkeep import hooks
from support.flood import Flood
from support.flows import FAMILIES, running, send_frames
from support.labs import rows, teardown, within
from support.on_link import UNDERLAYS, Nodes, nodes_on_link
from support.underlay import STRANGER_MAC, far_end, ip, mac, second_link, vxlan
from support.waiting import wait_until

SECOND = "eth7"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
NO_MAC = "00:00:00:00:00:00"
NOBODY = {4: "10.244.200.9", 6: "fd00:10:244:c8::9"}
ELSEWHERE = {4: "203.0.113.9", 6: "2001:db8:9::9"}
ALL_HOSTS = {4: "224.0.0.1", 6: "ff02::1"}
TIMES = 3

both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module", params=UNDERLAYS, ids=lambda underlay: f"IPv{underlay} underlay")
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with nodes_on_link(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def second(nodes: Nodes) -> Iterator[None]:
    """Node one has an interface to another link, with its program."""
    with second_link(nodes.lab, nodes.one, SECOND):
        ip(nodes.one.netns, "address", "add", "198.51.100.1/24", "dev", SECOND)
        wait_until(lambda: has_program(nodes.one.netns, SECOND), "the interface has its program")
        yield


def has_program(netns: str, ifname: str) -> bool:
    def look() -> bool:
        with Rtnl() as ipr:
            return hooks.OUTSIDE in attach.attached(ipr, ipr.ifindex(ifname))

    return within(netns, look)


def l3(source: str, target: str, **fields: Any) -> Packet:
    return (IPv6 if ":" in source else IP)(src=source, dst=target, **fields)


def ping(source: str, target: str) -> Packet:
    return l3(source, target) / (ICMPv6EchoRequest() if ":" in source else ICMP())


@dataclass(frozen=True)
class Scene:
    """Who there is, in one family of pods."""

    nodes: Nodes
    family: int

    def address(self, whose: str) -> str:
        pods = self.nodes.lab.layout.pods
        found: dict[str, Callable[[], str]] = {
            "the target": lambda: self.nodes.pod(pods[0], self.family),
            "a pod of one": lambda: self.nodes.pod(pods[1], self.family),
            "a pod of two": lambda: self.nodes.pod(pods[2], self.family),
            "a pod of three": lambda: self.nodes.pod(pods[4], self.family),
            "node one": lambda: self.nodes.own(self.nodes.one, self.family),
            "node two": lambda: self.nodes.own(self.nodes.two, self.family),
            "nobody": lambda: NOBODY[self.family],
            "elsewhere": lambda: ELSEWHERE[self.family],
            "a group": lambda: ALL_HOSTS[self.family],
        }
        return found[whose]()

    def mac(self, whose: str, ifname: str = NODE_UPLINK) -> str:
        found: dict[str, Callable[[], str]] = {
            "a stranger": lambda: STRANGER_MAC,
            "node one": lambda: mac(self.nodes.one.netns, ifname),
            "node two": lambda: mac(self.nodes.two.netns, NODE_UPLINK),
            "the router": lambda: mac(self.nodes.lab.layout.underlay_netns, BRIDGE),
            "nobody": lambda: NO_MAC,
            "everybody": lambda: BROADCAST_MAC,
        }
        return found[whose]()

    def send(self, frames: Sequence[Packet], ifname: str = NODE_UPLINK) -> None:
        """To the link that node one has at `ifname`."""
        by = BRIDGE if ifname == NODE_UPLINK else far_end(ifname)
        send_frames(self.nodes.lab.layout.underlay_netns, by, [bytes(frame) for frame in frames])

    def dropped(self) -> Counter[str]:
        """Of what comes to node one, by its program or in its stack."""
        return self.nodes.dropped_by("from_underlay", "nft")

    def refused(self, frames: Sequence[Packet], reason: str, ifname: str = NODE_UPLINK) -> None:
        """Sends each TIMES; all of them, and nothing else, must be counted so."""
        before = self.dropped()
        expected = Counter({reason: TIMES * len(frames)})

        self.send([frame for frame in frames for _ in range(TIMES)], ifname)

        wait_until(lambda: self.dropped() - before == expected, f"all are refused as {reason}")


@dataclass(frozen=True)
class Attack:
    """Whose MAC and whose address a packet has, to whom, and by which interface it comes."""

    sender: str
    source: str
    reason: str = "WRONG_NEIGHBOUR"
    target: str = "the target"
    station: str = "node one"
    ifname: str = NODE_UPLINK

    def __str__(self) -> str:
        where = "" if self.ifname == NODE_UPLINK else " on another link"
        station = "" if self.station == "node one" else f" by {self.station}"
        return f"{self.sender} as {self.source} to {self.target}{station}{where}"


ATTACKS = (
    Attack("a stranger", "a pod of two"),
    Attack("a stranger", "a pod of two", target="node one"),
    Attack("a stranger", "node two"),
    Attack("node two", "a pod of three"),
    Attack("the router", "a pod of three"),
    Attack("the router", "a pod of two"),
    Attack("nobody", "a pod of two"),
    Attack("node two", "a pod of two", ifname=SECOND),
    Attack("node two", "a pod of one", "SPOOFED_INNER"),
    Attack("node two", "the target", "SPOOFED_INNER"),
    Attack("node two", "nobody", "SPOOFED_INNER"),
    Attack("node two", "a pod of two", "UNKNOWN_DESTINATION", "a pod of three"),
    Attack("node two", "a pod of two", "UNKNOWN_DESTINATION", "elsewhere"),
    Attack("a stranger", "a pod of two", "PLAIN_POD_SOURCE", station="everybody"),
    Attack("a stranger", "a pod of two", "PLAIN_POD_SOURCE", "a group"),
)


@both_families
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.usefixtures("second")
def test_who_is_not_the_node_of_the_source_is_refused(
    nodes: Nodes, family: int, attack: Attack
) -> None:
    scene = Scene(nodes, family)
    station = scene.mac(attack.station, attack.ifname)
    packet = ping(scene.address(attack.source), scene.address(attack.target))

    scene.refused(
        [Ether(src=scene.mac(attack.sender), dst=station) / packet], attack.reason, attack.ifname
    )


def disguised(source: str, target: str) -> list[Packet]:
    """An echo request in every shape that could hide whose it is."""
    if ":" not in source:
        whole = IP(src=source, dst=target) / ICMP() / Raw(bytes(200))
        options = IP(src=source, dst=target, options=[IPOption_Timestamp()]) / ICMP()
        return [*fragment(whole, fragsize=64), options]
    rest = IPv6(src=source, dst=target)
    return [
        rest / header / ICMPv6EchoRequest()
        for header in (
            IPv6ExtHdrHopByHop(),
            IPv6ExtHdrDestOpt(),
            IPv6ExtHdrRouting(addresses=[target], segleft=0),
            IPv6ExtHdrFragment(m=1),
            IPv6ExtHdrFragment(offset=10),
        )
    ]


@both_families
@pytest.mark.parametrize("sender", ["a stranger", "the router"])
def test_no_fragment_and_no_header_hides_the_source(nodes: Nodes, family: int, sender: str) -> None:
    scene = Scene(nodes, family)
    head = Ether(src=scene.mac(sender), dst=scene.mac("node one"))
    hidden = disguised(scene.address("a pod of two"), scene.address("the target"))

    scene.refused([head / packet for packet in hidden], "WRONG_NEIGHBOUR")


@both_families
def test_a_node_sends_no_redirects_and_no_advertisements_in_a_pods_name(
    nodes: Nodes, family: int
) -> None:
    scene = Scene(nodes, family)
    head = Ether(src=scene.mac("node two"), dst=scene.mac("node one"))
    packet = l3(scene.address("a pod of two"), scene.address("the target"))
    messages: list[Packet] = [ICMP(type=5, gw="10.244.1.9") / Raw(bytes(28))]
    if family == 6:
        redirect = ICMPv6ND_Redirect(tgt="fe80::9", dst="fd00:10:244:2::1")
        messages = [redirect, ICMPv6ND_RA(), IPv6ExtHdrDestOpt() / redirect]

    scene.refused([head / packet / message for message in messages], "NEIGHBOUR_MESSAGE")


def test_vxlan_is_no_way_around(nodes: Nodes) -> None:
    """Nor are fragments of it, nor frames to everybody: the kernel takes VXLAN out of both."""
    scene = Scene(nodes, nodes.underlay)
    inside = vxlan(ping(scene.address("a pod of two"), scene.address("the target")) / bytes(80))
    head = Ether(src=STRANGER_MAC, dst=scene.mac("node one"))
    as_two = l3(scene.address("node two"), scene.address("node one"))
    as_nobody = l3(scene.address("elsewhere"), scene.address("node one"))
    hidden = [as_two / IPv6ExtHdrDestOpt() / inside]
    if nodes.underlay == 4:
        hidden = fragment(as_two / inside, fragsize=64)

    scene.refused([head / as_nobody / inside], "UNKNOWN_VTEP")
    scene.refused([head / as_two / inside], "WRONG_NEIGHBOUR")
    scene.refused([head / packet for packet in hidden], "WRONG_NEIGHBOUR")
    to_all = Ether(src=STRANGER_MAC, dst=BROADCAST_MAC)
    scene.refused([to_all / packet for packet in (as_two / inside, *hidden)], "WRONG_NEIGHBOUR")


@both_families
def test_a_packet_of_a_vlan_reaches_nobody(nodes: Nodes, family: int) -> None:
    source, target = nodes.lab.layout.pods[2], nodes.lab.layout.pods[0]
    packet = ping(nodes.pod(source, family), nodes.pod(target, family))
    head = Ether(src=mac(nodes.two.netns, NODE_UPLINK), dst=mac(nodes.one.netns, NODE_UPLINK))
    tagged = bytes(head / Dot1Q(vlan=7) / packet / Raw(b"tagged"))
    plain = bytes(head / packet / Raw(b"plain."))
    with running(target.netns, "capture", POD_IFNAME) as receiver:
        assert receiver.heard() == "ready"
        send_frames(nodes.two.netns, NODE_UPLINK, [tagged, plain])
        receiver.tell()
        heard: list[Any] = receiver.heard()

    assert any(b"plain.".hex() in str(one).replace(" ", "") for one in heard)
    assert not any(b"tagged".hex() in str(one).replace(" ", "") for one in heard)


# The neighbour itself


def hop_to_two(nodes: Nodes) -> dict[str, Any]:
    vtep = nodes.vtep(nodes.two)
    return next(row for row in rows(nodes.lab, nodes.one, "nexthops") if row["vtep"] == vtep)


def claims(nodes: Nodes) -> list[Packet]:
    """A stranger's: node two's address is at the stranger's MAC."""
    target, two = mac(nodes.one.netns, NODE_UPLINK), nodes.vtep(nodes.two)
    if nodes.underlay == 6:
        said = ICMPv6ND_NA(tgt=two, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=STRANGER_MAC)
        return [
            Ether(src=STRANGER_MAC, dst="33:33:00:00:00:01") / IPv6(src=two, dst="ff02::1") / said,
            Ether(src=STRANGER_MAC, dst=target)
            / IPv6(src=two, dst=nodes.vtep(nodes.one), hlim=255) / said,
        ]  # fmt: skip

    def arp(**fields: Any) -> Packet:
        return ARP(hwsrc=STRANGER_MAC, psrc=two, **fields)

    return [
        Ether(src=STRANGER_MAC, dst=BROADCAST_MAC) / arp(op=1, pdst=two),
        Ether(src=STRANGER_MAC, dst=BROADCAST_MAC) / arp(op=2, pdst=two),
        Ether(src=STRANGER_MAC, dst=target) / arp(op=1, pdst=nodes.vtep(nodes.one)),
        Ether(src=STRANGER_MAC, dst=target) / arp(op=2, pdst=nodes.vtep(nodes.one), hwdst=target),
    ]


def test_a_strangers_claims_move_no_neighbour_that_somebody_has_written(nodes: Nodes) -> None:
    """Whom the kernel believes is its own business, and an administrator's: a written entry stands.
    The programs have no table of neighbours besides the kernel's that could say otherwise."""
    scene, two = Scene(nodes, nodes.underlay), nodes.vtep(nodes.two)
    there = ("neigh", "replace", two, "dev", NODE_UPLINK, "lladdr", scene.mac("node two"))
    ip(nodes.one.netns, *there, "nud", "permanent")
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[2]
    try:
        with Flood(source, nodes.lab.addresses(target), count=500) as flood:
            for _ in range(TIMES):
                scene.send(claims(nodes))
            lost = flood.lost()

        assert set(lost.values()) == {0}
        assert hop_to_two(nodes)["dst_mac"] == scene.mac("node two")
        head = Ether(src=STRANGER_MAC, dst=scene.mac("node one"))
        as_pod = ping(scene.address("a pod of two"), scene.address("the target"))
        scene.refused([head / as_pod], "WRONG_NEIGHBOUR")
    finally:
        ip(nodes.one.netns, *there, "nud", "stale")


def test_a_redirect_of_the_router_leads_no_node_astray(nodes: Nodes) -> None:
    """To a neighbour there is no router that could redirect."""
    scene = Scene(nodes, nodes.underlay)
    one, two = nodes.vtep(nodes.one), nodes.vtep(nodes.two)
    router = mac(nodes.lab.layout.underlay_netns, BRIDGE)
    quoted = l3(one, two) / UDP(dport=4789) / bytes(8)
    message = l3(nodes.own(nodes.routed, nodes.underlay), one) / ICMP(
        type=5, code=1, gw=nodes.own(nodes.routed, 4)
    )
    if nodes.underlay == 6:
        head = IPv6(src="fe80::fe", dst=one, hlim=255)
        message = head / ICMPv6ND_Redirect(tgt="fe80::66", dst=two)
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[2]
    before = nodes.left_directly(nodes.one)

    with Flood(source, nodes.lab.addresses(target), count=500) as flood:
        scene.send([Ether(src=router, dst=scene.mac("node one")) / message / quoted] * TIMES)
        lost = flood.lost()

    assert set(lost.values()) == {0}
    assert nodes.left_directly(nodes.one) - before >= 500
    assert nodes.modes(nodes.one)[two] == DIRECT


def test_the_mac_that_a_node_had_is_a_strangers(nodes: Nodes) -> None:
    former, now = mac(nodes.two.netns, NODE_UPLINK), "02:00:00:00:77:04"
    source, target = nodes.lab.layout.pods[2], nodes.lab.layout.pods[0]
    try:
        ip(nodes.two.netns, "link", "set", NODE_UPLINK, "address", now)

        def followed() -> bool:
            nodes.lab.peer(source.netns, "echo", *nodes.lab.addresses(target), "--count", "1")
            return bool(hop_to_two(nodes)["dst_mac"] == now)

        wait_until(followed, "the new MAC is known", seconds=60)
        with Flood(source, nodes.lab.addresses(target), count=200) as flood:
            lost = flood.lost()
        assert set(lost.values()) == {0}
        for scene in (Scene(nodes, family) for family in FAMILIES):
            head = Ether(src=former, dst=scene.mac("node one"))
            as_pod = ping(scene.address("a pod of two"), scene.address("the target"))
            scene.refused([head / as_pod], "WRONG_NEIGHBOUR")
    finally:
        ip(nodes.two.netns, "link", "set", NODE_UPLINK, "address", former)


def test_a_node_that_has_left_is_nobody(nodes: Nodes) -> None:
    """The last one of this file: node two does not come back."""
    settings = load(nodes.two.settings_path)
    scenes = [Scene(nodes, family) for family in FAMILIES]
    head = Ether(src=scenes[0].mac("node two"), dst=scenes[0].mac("node one"))
    frames = [
        head / ping(scene.address("a pod of two"), scene.address("the target")) for scene in scenes
    ]

    nodes.lab.stop_agent(nodes.two)
    teardown(nodes.two)
    store = open_store(settings.store_url, settings.cluster, create=False)
    assert nodes.two.name not in [one.name for one in store.nodes()]
    vtep = nodes.vtep(nodes.two)
    wait_until(lambda: vtep not in nodes.modes(nodes.one), "node one has heard of it")

    scenes[0].refused(frames, "SPOOFED_INNER")
