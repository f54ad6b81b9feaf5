# SPDX-License-Identifier: Apache-2.0
"""The doors of the overlay in the host's stack: nothing comes in by them, and each drop is counted.

A packet counts as delivered if a server hears it before it hears a client that may ask it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Packet, Raw

from pycni.kernel import nft
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, UNDERLAY4, UNDERLAY6, LabNode, Pod
from pycni.node import overlay_guard
from pycni.settings import load
from pycni.stores import open_store
from support import labs
from support.flows import FAMILIES, answering, ask, send_datagrams, throughput
from support.labs import drops, within, write_settings
from support.plugin import execute
from support.underlay import (
    PORT,
    ip,
    second_link,
    send_by_node,
    send_by_stranger,
    vxlan,
    write_sysctl,
)
from support.waiting import wait_until

COUNT = 7
ATTACK = b"attack"
"""Shorter than what clients ask."""
ELSEWHERE = {4: "192.0.2.7", 6: "2001:db8:99::7"}
SECOND_ADDRESS = "198.18.0.77"
PUBLISHED = "10.244.250.9"
"""In the cluster's networks, and in those of no node."""
BIG = 4000
"""Bytes; several fragments."""

both_families = pytest.mark.parametrize("family", FAMILIES)
ways_in = pytest.mark.parametrize("way", ["uplink", "second NIC", "bridge", "bridge, netfilter"])


def reason(counter: str) -> tuple[str, str]:
    return counter.upper(), "nft"


def address(lab: Lab, pod: Pod, family: int) -> str:
    return next(one for one in lab.addresses(pod) if ip_address(one).version == family)


def underlay(node: LabNode, family: int) -> str:
    return next(str(one.ip) for one in node.underlay if one.version == family)


def datagram(source: str, target: str, port: int, data: bytes = ATTACK) -> Packet:
    head = IPv6 if ":" in source else IP
    return head(src=source, dst=target) / UDP(sport=5555, dport=port) / Raw(data)


@contextmanager
def counted(lab: Lab, node: LabNode, counter: str, count: int = COUNT) -> Iterator[None]:
    """What happens inside adds exactly `count` to a counter of the guard."""
    key = reason(counter)
    before = drops(lab, node).get(key, 0)
    yield
    wait_until(lambda: drops(lab, node).get(key, 0) >= before + count, f"{key}: {drops(lab, node)}")
    assert drops(lab, node)[key] == before + count


@contextmanager
def nothing_heard(netns: str, at: str, *, friend: tuple[str, str]) -> Iterator[int]:
    """A server that hears nothing before `friend`, a namespace and its address; yields its port."""
    with answering(netns, at) as (port, heard):
        yield port
        assert ask(friend[0], at, port) == friend[1]
        assert heard()["source"] == friend[1]


@contextmanager
def way_in(lab: Lab, node: LabNode, way: str) -> Iterator[Callable[[list[Packet]], None]]:
    """How a stranger reaches a node: yields what sends packets to it."""
    if way == "uplink":
        yield lambda packets: send_by_stranger(lab, node, packets)
        return
    with second_link(lab, node, "eth1", bridge="bridge" in way):
        for kind in ("iptables", "ip6tables"):
            wanted = int("netfilter" in way)
            write_sysctl(node.netns, f"net/bridge/bridge-nf-call-{kind}", wanted)
        write_sysctl(node.netns, "net/ipv4/conf/eth1/forwarding", 1)
        yield lambda packets: send_by_stranger(lab, node, packets, ifname="eth1")


@ways_in
@both_families
def test_a_stranger_is_no_pod_of_another_node(lab: Lab, family: int, way: str) -> None:
    node = lab.layout.nodes[0]
    victim, friend = node.pods
    claimed = address(lab, lab.layout.pods[-1], family)
    target = address(lab, victim, family)
    heard_by = nothing_heard(
        victim.netns, target, friend=(friend.netns, address(lab, friend, family))
    )

    with (
        way_in(lab, node, way) as send,
        counted(lab, node, overlay_guard.POD_SOURCE),
        heard_by as port,
    ):
        send([datagram(claimed, target, port)] * COUNT)


@ways_in
@both_families
def test_a_stranger_is_relayed_to_no_pod_of_another_node(lab: Lab, family: int, way: str) -> None:
    node, other = lab.layout.nodes
    liar, friend = node.pods
    victim = other.pods[0]
    target = address(lab, victim, family)
    heard_by = nothing_heard(
        victim.netns, target, friend=(friend.netns, address(lab, friend, family))
    )

    with (
        way_in(lab, node, way) as send,
        counted(lab, node, overlay_guard.POD_SOURCE),
        heard_by as port,
    ):
        send([datagram(address(lab, liar, family), target, port)] * COUNT)


@ways_in
@both_families
def test_a_stranger_is_no_pod_to_the_nodes_own_stack(lab: Lab, family: int, way: str) -> None:
    node = lab.layout.nodes[0]
    pod = node.pods[0]
    target, claimed = underlay(node, family), address(lab, pod, family)

    with (
        way_in(lab, node, way) as send,
        counted(lab, node, overlay_guard.POD_SOURCE),
        nothing_heard(node.netns, target, friend=(pod.netns, claimed)) as port,
    ):
        # the friend is the one whose address the stranger claims: its question is longer
        send([datagram(claimed, target, port)] * COUNT)


@contextmanager
def published(by: LabNode, one: str, *, heard_by: LabNode) -> Iterator[None]:
    """A node publishes an address of the cluster's networks, as that of a pod, and another hears
    it."""
    settings = load(by.settings_path)
    store = open_store(settings.store_url, settings.cluster)
    root, address = load(heard_by.settings_path).pin_root, ip_address(one)
    assert store.publish(by.name, ip_network(one)) == by.name
    try:
        wait_until(lambda: address in (overlay_guard.known_nodes(root) or ()), "nobody heard")
        yield
    finally:
        store.withdraw(by.name, ip_network(one))
        wait_until(lambda: address not in (overlay_guard.known_nodes(root) or ()), "still there")


def test_a_stranger_is_no_pod_whose_address_was_published(lab: Lab) -> None:
    node, other = lab.layout.nodes
    target = underlay(node, 4)

    with (
        published(other, PUBLISHED, heard_by=node),
        counted(lab, node, overlay_guard.POD_SOURCE),
        nothing_heard(node.netns, target, friend=(other.netns, underlay(other, 4))) as port,
    ):
        send_by_stranger(lab, node, [datagram(PUBLISHED, target, port)] * COUNT)


@both_families
def test_fragments_of_a_stranger_are_put_together_and_dropped(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    victim = node.pods[0]
    claimed = address(lab, lab.layout.pods[-1], family)
    whole = datagram(claimed, address(lab, victim, family), 7777, bytes(BIG))

    with counted(lab, node, overlay_guard.POD_SOURCE):
        for number in range(COUNT):
            send_by_stranger(lab, node, fragments(whole, number))


def fragments(packet: Packet, number: int) -> list[Packet]:
    """Pieces of 1,400 bytes; `number` tells those of different packets apart."""
    if isinstance(packet, IP):
        packet.id = number + 1
        return list(fragment(packet, 1400))
    between = IPv6ExtHdrFragment(id=number + 1)
    return list(fragment6(IPv6(src=packet.src, dst=packet.dst) / between / packet.payload, 1400))


def test_a_stranger_is_no_other_node_to_a_pod(lab: Lab) -> None:
    """Other nodes send to pods through the overlay."""
    node, other = lab.layout.nodes
    victim, friend = node.pods
    target = address(lab, victim, 4)

    with (
        counted(lab, node, overlay_guard.NODE_SOURCE),
        nothing_heard(victim.netns, target, friend=(friend.netns, address(lab, friend, 4))) as port,
    ):
        send_by_stranger(lab, node, [datagram(underlay(other, 4), target, port)] * COUNT)


@pytest.mark.parametrize("at_home", [True, False], ids=["here", "relayed"])
def test_a_stranger_is_not_this_node_to_a_pod(lab: Lab, at_home: bool) -> None:
    """The kernel drops IPv4 packets from its own addresses, but not those of IPv6."""
    node, friend = lab.layout.nodes[0], lab.layout.nodes[0].pods[0]
    victim = node.pods[1] if at_home else lab.layout.nodes[1].pods[0]
    target = address(lab, victim, 6)

    with (
        counted(lab, node, overlay_guard.NODE_SOURCE),
        nothing_heard(victim.netns, target, friend=(friend.netns, address(lab, friend, 6))) as port,
    ):
        send_by_stranger(lab, node, [datagram(underlay(node, 6), target, port)] * COUNT)


def test_a_stranger_is_not_this_nodes_vtep(lab: Lab) -> None:
    """Even where the kernel was told to accept its own addresses."""
    node, friend = lab.layout.nodes
    target = underlay(node, 4)
    write_sysctl(node.netns, "net/ipv4/conf/eth0/accept_local", 1)

    with (
        counted(lab, node, overlay_guard.NODE_SOURCE),
        nothing_heard(node.netns, target, friend=(friend.netns, underlay(friend, 4))) as port,
    ):
        send_by_stranger(lab, node, [datagram(target, target, port)] * COUNT)
    write_sysctl(node.netns, "net/ipv4/conf/eth0/accept_local", 0)


@both_families
def test_nodes_reach_each_other_beside_the_overlay(lab: Lab, family: int) -> None:
    node, other = lab.layout.nodes
    with answering(node.netns, underlay(node, family)) as (port, _):
        seen = ask(other.netns, underlay(node, family), port)

    assert seen == underlay(other, family)


def test_a_node_hears_its_own_multicast(lab: Lab) -> None:
    """It comes back by the uplink, from the VTEP."""
    node = lab.layout.nodes[0]
    done = processes.run(node.netns, ["python3", "-c", MULTICAST, underlay(node, 4)])

    assert done.stdout.decode() == "heard\n", done.stderr.decode()


MULTICAST = """
import socket, sys
own = socket.inet_aton(sys.argv[1])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as both:
    both.bind(("", 5007))
    both.settimeout(3)
    group = socket.inet_aton("239.1.2.3")
    both.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + own)
    both.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
    both.sendto(b"?", ("239.1.2.3", 5007))
    both.recv(10)
    print("heard")
"""


@both_families
def test_the_world_reaches_pods_by_a_route(lab: Lab, spare: Pod, family: int) -> None:
    node = lab.layout.nodes[0]
    added = execute(lab, spare, "ADD", ipMasq=False)
    target = next(one for one in added.addresses if ip_address(one).version == family)
    router = (UNDERLAY4, UNDERLAY6)[family == 6]
    ip(lab.layout.underlay_netns, "route", "add", target, "via", underlay(node, family))
    try:
        with answering(spare.netns, target) as (port, _):
            seen = ask(lab.layout.underlay_netns, target, port)
    finally:
        ip(lab.layout.underlay_netns, "route", "del", target)

    assert seen == str(router.ip)


@both_families
def test_frames_that_only_cross_a_bridge_of_the_node_pass(lab: Lab, family: int) -> None:
    """Virtual machines, say, that are nodes of another cluster with the same pods' network."""
    node = lab.layout.nodes[0]
    ends = {"vm1": {4: "10.244.77.1", 6: "fd00:10:244:77::1"},
            "vm2": {4: "10.244.77.2", 6: "fd00:10:244:77::2"}}  # fmt: skip
    names = [f"{lab.layout.name}-{end}" for end in ends]
    write_sysctl(node.netns, "net/bridge/bridge-nf-call-iptables", 1)
    write_sysctl(node.netns, "net/bridge/bridge-nf-call-ip6tables", 1)
    ip(node.netns, "link", "add", "br9", "type", "bridge")
    ip(node.netns, "link", "set", "br9", "up")
    try:
        for end, addresses in ends.items():
            name = f"{lab.layout.name}-{end}"
            topology.make_netns(name)
            ip(node.netns, "link", "add", end, "master", "br9", "type", "veth",
               "peer", "name", "eth0", "netns", topology.NETNS_DIR / name)  # fmt: skip
            ip(node.netns, "link", "set", end, "up")
            ip(name, "link", "set", "eth0", "up")
            ip(name, "addr", "add", f"{addresses[4]}/24", "dev", "eth0")
            ip(name, "addr", "add", f"{addresses[6]}/64", "dev", "eth0", "nodad")
        with answering(names[0], ends["vm1"][family]) as (port, _):
            seen = ask(names[1], ends["vm1"][family], port)
    finally:
        with topology.open_rtnl(node.netns) as ipr:  # a namespace's own end is gone some time later
            there = {link.ifname: link.ifindex for link in ipr.links()}
            for link in there.keys() & {"br9", *ends}:
                ipr.delete_link(there[link])
        for name in names:
            topology.remove_netns(name)

    assert seen == ends["vm2"][family]


@both_families
def test_vxlan_to_another_address_than_the_vtep_is_dropped(lab: Lab, family: int) -> None:
    """Even of a node, about one of its own pods."""
    node, other = lab.layout.nodes
    victim, friend = node.pods[0], other.pods[0]
    target, claimed = address(lab, victim, 4), address(lab, friend, 4)
    if family == 4:
        ip(node.netns, "addr", "add", f"{SECOND_ADDRESS}/32", "dev", "eth0")
    outer = (
        IP(src=underlay(other, 4), dst=SECOND_ADDRESS)
        if family == 4
        else IPv6(src=underlay(other, 6), dst=underlay(node, 6))
    )

    with (
        counted(lab, node, overlay_guard.ELSEWHERE),
        nothing_heard(
            victim.netns, target, friend=(node.pods[1].netns, address(lab, node.pods[1], 4))
        ) as port,
    ):
        packet = outer / vxlan(datagram(claimed, target, port))
        send_by_node(other, node, [packet] * (COUNT - 1))
        whole = outer / vxlan(datagram(claimed, target, port, bytes(BIG)))
        send_by_node(other, node, fragments(whole, 77))
    if family == 4:
        ip(node.netns, "addr", "del", f"{SECOND_ADDRESS}/32", "dev", "eth0")


def test_a_process_of_a_node_sends_no_vxlan(lab: Lab) -> None:
    """It learns it at once: the kernel says EPERM (netfilter's verdict on what is sent)."""
    node, other = lab.layout.nodes
    source, target = address(lab, node.pods[0], 4), address(lab, other.pods[0], 4)
    small = bytes(vxlan(datagram(source, target, 7777))[UDP].payload)
    for to in (underlay(other, 4), underlay(other, 6), ELSEWHERE[4]):
        for payload in (small, small + bytes(BIG)):
            with (
                counted(lab, node, overlay_guard.OF_PROCESS, count=1),
                pytest.raises(AssertionError, match="Operation not permitted"),
            ):
                send_datagrams(node.netns, to, PORT, [payload])


def test_a_setting_lets_processes_send_vxlan(lab: Lab) -> None:
    node, other = lab.layout.nodes
    source, target = address(lab, node.pods[0], 4), address(lab, other.pods[0], 4)
    payload = bytes(vxlan(datagram(source, target, 7777))[UDP].payload)
    start_again(lab, node, vxlan_by_kernel_only=False)
    try:
        with answering(other.pods[0].netns, target, 7777) as (_, heard):
            send_datagrams(node.netns, underlay(other, 4), PORT, [payload])

            assert heard() == {"source": source, "size": len(ATTACK)}
    finally:
        start_again(lab, node, vxlan_by_kernel_only=True)
    with pytest.raises(AssertionError, match="Operation not permitted"):
        send_datagrams(node.netns, underlay(other, 4), PORT, [payload])


def start_again(lab: Lab, node: LabNode, **settings: object) -> None:
    """With other settings, which an agent reads when it starts."""
    lab.stop_agent(node)
    write_settings(node, **settings)
    labs.setup(node)
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)


@pytest.mark.parametrize("encap", ["kernel", "ebpf"])
@both_families
def test_processes_of_a_node_reach_pods_of_others(lab: Lab, family: int, encap: str) -> None:
    """The kernel's VXLAN packets belong to the socket whose packet is in them."""
    node, other = lab.layout.nodes
    target = address(lab, other.pods[0], family)
    gateway = address(lab, node.pods[0], family)[:-1] + "1"
    write_settings(node, encap=encap)
    labs.setup(node)
    try:
        for protocol in ("tcp", "udp"):
            with answering(other.pods[0].netns, target, protocol=protocol) as (port, _):
                seen = ask(node.netns, target, port, protocol=protocol)

            assert seen == gateway
        assert throughput(node.netns, other.pods[0].netns, target, "tcp", seconds=0.3) > 0
    finally:
        write_settings(node, encap="auto")
        labs.setup(node)


@both_families
def test_a_process_may_use_the_port_with_pods(lab: Lab, family: int) -> None:
    node, other = lab.layout.nodes
    target = address(lab, other.pods[0], family)
    with answering(other.pods[0].netns, target, PORT) as (port, _):
        assert ask(node.netns, target, port) == address(lab, node.pods[0], family)[:-1] + "1"
    with answering(other.pods[0].netns, target, PORT) as (port, _):
        seen = ask(node.pods[0].netns, target, port)

    assert seen == address(lab, node.pods[0], family)


MASQUERADING = """
add table ip others
table ip others {{
    chain prerouting {{
        type nat hook prerouting priority -100;
        ip daddr {node} udp dport 30999 dnat to {other}:{port}
    }}
    chain postrouting {{
        type nat hook postrouting priority 100;
        ip saddr 172.30.0.0/24 oifname "eth0" masquerade
        ip daddr {other} udp dport {port} ct status dnat masquerade
    }}
}}
"""


@contextmanager
def others_nat(lab: Lab) -> Iterator[None]:
    """Docker's masquerading and a Service's node port, as somebody may have made it."""
    node, other = lab.layout.nodes
    script = MASQUERADING.format(node=underlay(node, 4), other=underlay(other, 4), port=PORT)
    within(node.netns, lambda: nft.run(script, what="a table of others"))
    try:
        yield
    finally:
        within(node.netns, lambda: nft.run("delete table ip others", what="a table of others"))


@pytest.mark.parametrize("way", ["container", "node port"])
def test_nat_makes_nobody_a_node(lab: Lab, way: str) -> None:
    node, other = lab.layout.nodes
    victim, friend = other.pods
    claimed, target = address(lab, node.pods[0], 4), address(lab, victim, 4)

    with (
        others_nat(lab),
        counted(lab, node, overlay_guard.BY_NAT),
        nothing_heard(victim.netns, target, friend=(friend.netns, address(lab, friend, 4))) as port,
    ):
        payload = bytes(vxlan(datagram(claimed, target, port))[UDP].payload)
        if way == "node port":
            send_datagrams(lab.layout.underlay_netns, underlay(node, 4), 30999, [payload] * COUNT)
        else:
            with container(lab, node) as netns:
                send_datagrams(netns, underlay(other, 4), PORT, [payload] * COUNT)


@contextmanager
def container(lab: Lab, node: LabNode) -> Iterator[str]:
    """A namespace behind a node, with no relation to pycni."""
    name = f"{lab.layout.name}-container"
    topology.make_netns(name)
    try:
        ip(node.netns, "link", "add", "dock0", "type", "veth",
           "peer", "name", POD_IFNAME, "netns", topology.NETNS_DIR / name)  # fmt: skip
        ip(node.netns, "link", "set", "dock0", "up")
        ip(node.netns, "addr", "add", "172.30.0.1/24", "dev", "dock0")
        write_sysctl(node.netns, "net/ipv4/conf/dock0/forwarding", 1)
        ip(name, "link", "set", POD_IFNAME, "up")
        ip(name, "addr", "add", "172.30.0.2/24", "dev", POD_IFNAME)
        ip(name, "route", "add", "default", "via", "172.30.0.1")
        yield name
    finally:
        topology.remove_netns(name)


def test_a_pod_cannot_ask_for_the_overlays_port(lab: Lab, spare: Pod) -> None:
    mapping = {"hostPort": PORT, "containerPort": 53, "protocol": "udp"}
    refused = execute(lab, spare, "ADD", runtimeConfig={"portMappings": [mapping]})

    assert refused.status == 1
    assert "overlay" in refused.text
    assert str(PORT) in refused.text
