# SPDX-License-Identifier: Apache-2.0
"""The correctness matrix: what a cell is, how nodes and pods get into it, what is sent there."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK, POD_IFNAME
from pycni.node import overlay
from support import flows, offloads
from support.flood import unanswered
from support.flows import send_frames
from support.kernel import open_iproute
from support.labs import prepared_lab, setup, start, write_settings
from support.labs import rows as map_rows
from support.waiting import wait_until

FAMILIES = (4, 6)
IP_HEADER = {4: 20, 6: 40}
OVERHEAD = {4: 50, 6: 70}
"""Bytes of VXLAN in an underlay of each family."""
UNDERLAY_MTU = {1280: 1350, 1500: 1500, 9000: 9000}
"""The least that carries IPv6 pods, Ethernet's own, and jumbo frames."""
WAYS = (("ebpf", "ebpf"), ("ebpf", "kernel"), ("kernel", "kernel"), ("kernel", "ebpf"))
"""Who encapsulates, on the sending and on the receiving node; from one to the next one changes."""
OFFLOADS = ("on", "off", "simple NIC")


@dataclass(frozen=True)
class Surroundings:
    """What takes a new setup and new pods: the underlay's family and MTU."""

    underlay: int
    mtu: int

    def __str__(self) -> str:
        return f"IPv{self.underlay} underlay, MTU {self.mtu}"

    @property
    def overlay_mtu(self) -> int:
        """Bytes of a pod's packet."""
        return UNDERLAY_MTU[self.mtu] - OVERHEAD[self.underlay]


Row = tuple[str, int, int]


def plan(family: int, mtu: int) -> list[Row]:
    """What a cell sends: sizes around every boundary there is."""
    udp = mtu - IP_HEADER[family] - 8
    tcp = mtu - IP_HEADER[family] - 32  # with timestamps
    raw = mtu - IP_HEADER[family]
    fragment = (mtu - IP_HEADER[family] - (8 if family == 6 else 0)) & ~7
    rows: list[Row] = [("udp", size, 0) for size in (0, 1, 17, 18, 19, udp - 1, udp)]
    rows += [
        ("tcp", size, 0)
        for size in (1, tcp - 1, tcp, tcp + 1, 2 * tcp, 2 * tcp + 1, 65535, 65536, 300_001)
    ]
    rows += [
        ("segments", size, segment)
        for segment in (1, 100, udp - 1, udp)
        for size in (segment, segment + 1, 5 * segment, 7 * segment + segment // 2 + 1)
    ]
    # with outer headers more than a length field can say
    rows.append(("segments", 65535 - (20 if family == 4 else 0) - 8, udp))
    rows += [("sctp", size, 0) for size in (4, raw - 13, raw - 12)]
    rows += [("icmp", size, 0) for size in (0, 56, raw - 9, raw - 8)]
    rows += [
        ("fragments", size, 0)
        for size in (udp + 1, fragment * 2 - 9, fragment * 2 - 8, fragment * 2 - 7, 20_000)
    ]
    return rows


@contextmanager
def surrounded(surroundings: Surroundings) -> Iterator[Lab]:
    """Two nodes, a pod on each, with agents, in such an underlay."""
    with prepared_lab(nodes=2, pods=1) as lab:
        mtu = UNDERLAY_MTU[surroundings.mtu]
        _set_mtu(lab.layout.underlay_netns, BRIDGE, mtu)
        for node in lab.layout.nodes:
            _set_mtu(node.netns, NODE_UPLINK, mtu)
            _set_mtu(lab.layout.underlay_netns, node.port, mtu)
            vtep = next(a.ip for a in node.underlay if a.version == surroundings.underlay)
            write_settings(node, vtep=str(vtep))
        start(lab)
        yield lab


def choose_way(lab: Lab, way: tuple[str, str]) -> None:
    """Who encapsulates on each node; next hops are known then where programs do."""
    for node, encap in zip(lab.layout.nodes, way, strict=True):
        if tomllib.loads(node.settings_path.read_text()).get("encap") != encap:
            write_settings(node, encap=encap)
            setup(node)
    source, target = lab.layout.pods

    def known() -> bool:
        unanswered(lab, source.netns, lab.addresses(target), count=1)
        return all(map_rows(lab, node, "nexthops") for node in lab.layout.nodes)

    wait_until(known, "next hops known")


def choose_offloads(lab: Lab, mode: str) -> None:
    """Of pods, host ends and uplinks; "simple NIC" is one only between nodes."""
    pods = offloads.ALL_OFF if mode == "off" else offloads.ALL_ON
    nodes = {"on": offloads.ALL_ON, "off": offloads.ALL_OFF, "simple NIC": offloads.SIMPLE_NIC}[
        mode
    ]
    for pod in lab.layout.pods:
        offloads.switch(pod.netns, POD_IFNAME, **pods)
        host_ifname = lab.results[pod.name]["interfaces"][0]["name"]
        offloads.switch(lab.layout.node(pod.node).netns, host_ifname, **pods)
    for node in lab.layout.nodes:
        offloads.switch(node.netns, NODE_UPLINK, **nodes)
        offloads.switch(lab.layout.underlay_netns, node.port, **nodes)


@contextmanager
def overlay_counted(lab: Lab) -> Iterator[Callable[[], tuple[int, int]]]:
    """Packets that the metadata devices sent on the first node and received on the second since."""
    sender, receiver = lab.layout.nodes

    def count() -> tuple[int, int]:
        return _statistics(sender.netns, "tx_packets"), _statistics(receiver.netns, "rx_packets")

    before = count()
    yield lambda: (count()[0] - before[0], count()[1] - before[1])


def _statistics(netns: str, name: str) -> int:
    with open_iproute(netns) as ipr:
        (index,) = ipr.link_lookup(ifname=overlay.DEVICE)
        return int(next(iter(ipr.get_links(index))).get("IFLA_STATS64")[name])


def captured(lab: Lab, frames: list[bytes]) -> list[str]:
    """What arrives in the second pod when the first sends these frames; in hex, sorted."""
    source, target = lab.layout.pods
    with flows.running(target.netns, "capture", POD_IFNAME) as receiver:
        assert receiver.heard() == "ready"
        send_frames(source.netns, POD_IFNAME, frames)
        receiver.tell()
        found: list[str] = receiver.heard()
    return found


@dataclass(frozen=True)
class Exchanged:
    """`sent` and `came`: see traffic/plans.py; `checked` packets had right checksums."""

    sent: list[list[Any]]
    came: list[list[Any]]
    checked: int
    bad: list[str]


def exchange(lab: Lab, family: int, rows: list[Row]) -> Exchanged:
    """Send a plan from the first pod to the second."""
    source, target = lab.layout.pods
    address = next(a for a in lab.addresses(target) if ip_address(a).version == family)
    return exchange_between(source.netns, target.netns, address, rows)


def exchange_between(source: str, target: str, address: str, rows: list[Row]) -> Exchanged:
    """Send a plan from one namespace to another, which has `address` on its eth0."""
    with flows.running(target, "receive", address, POD_IFNAME) as receiver:
        port = receiver.heard()
        sent = flows.once(source, "send", address, port, stdin=json.dumps(rows).encode())
        receiver.tell()
        answer = receiver.heard()
    return Exchanged(sent, answer["seen"], answer["checked"], answer["bad"])


def _set_mtu(netns: str, ifname: str, mtu: int) -> None:
    with open_iproute(netns) as ipr:
        (index,) = ipr.link_lookup(ifname=ifname)
        ipr.link("set", index=index, mtu=mtu)
