# SPDX-License-Identifier: Apache-2.0
"""A pod that passes packets of others on (`forwards`): aggregates of TCP come through it whole, and
cut right where the link behind it takes none.

The pod has a machine behind it, as KubeVirt has: the machine has the pod's addresses, the pod
routes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute

from pycni.kernel import sysctl
from pycni.lab import topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.lab.topology import NETNS_DIR
from pycni.node import overlay
from pycni.settings import load
from support import offloads
from support.kernel import add_address, open_iproute
from support.labs import made_pod, within
from support.matrix import (
    FAMILIES,
    Row,
    Surroundings,
    choose_offloads,
    choose_way,
    exchange_between,
    surrounded,
)
from support.plugin import execute

INSIDE = "inside"
"""The pod's interface to the machine."""
ROUTER = {4: ip_address("169.254.7.1"), 6: ip_address("fd07::1")}
SURROUNDINGS = Surroundings(4, 1500)
MTU = SURROUNDINGS.overlay_mtu
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
LENGTH = {4: 32, 6: 128}
TCP: list[Row] = [("tcp", size, 0) for size in (1, MTU, 65536, 300_001, 2_000_000)]
OTHERS: list[Row] = [("udp", 100, 0), ("segments", 5 * 1000 + 7, 1000), ("icmp", 56, 0)]


@dataclass(frozen=True)
class Machine:
    """What is behind the pod `router`, at the pod's `addresses`."""

    router: Pod
    netns: str
    addresses: dict[int, str]


@pytest.fixture(scope="module", params=["ebpf", "ipip"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with surrounded(SURROUNDINGS) as lab:
        choose_way(lab, (request.param, request.param))
        yield lab


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with made_pod(lab, lab.layout.nodes[1]) as pod:
        added = execute(lab, pod, "ADD", forwards=True)
        assert added.status == 0, added.text
        addresses: dict[int, str] = {
            ip_address(address).version: address for address in added.addresses
        }
        with behind(pod, addresses) as machine:
            yield machine
        assert execute(lab, pod, "DEL").status == 0


@contextmanager
def behind(router: Pod, addresses: dict[int, str]) -> Iterator[Machine]:
    """A machine that takes over the addresses of a pod, which routes for it from then on."""
    netns = f"{router.netns}-machine"
    topology.make_netns(netns)
    try:
        descriptor = os.open(NETNS_DIR / netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with open_iproute(router.netns) as ipr:
                peer = {"ifname": POD_IFNAME, "net_ns_fd": descriptor, "mtu": MTU}
                ipr.link("add", ifname=INSIDE, kind="veth", peer=peer, mtu=MTU)
        finally:
            os.close(descriptor)
        with open_iproute(netns) as ipr:
            own = up(ipr, POD_IFNAME)
            for version, address in addresses.items():
                add_address(ipr, own, ip_address(address))
                ipr.route("add", dst="default", gateway=str(ROUTER[version]), oif=own,
                          flags="onlink", family=FAMILY[version])  # fmt: skip
        within(router.netns, forward)
        with open_iproute(router.netns) as ipr:
            inside, (outside,) = up(ipr, INSIDE), ipr.link_lookup(ifname=POD_IFNAME)
            # an interface without an IPv4 address would lose its routes
            add_address(ipr, outside, ROUTER[4])
            add_address(ipr, inside, ROUTER[6])
            for version, address in addresses.items():
                ipr.addr("del", index=outside, address=address, prefixlen=LENGTH[version])
                ipr.route("add", dst=f"{address}/{LENGTH[version]}", oif=inside)
        yield Machine(router, netns, addresses)
    finally:
        topology.remove_netns(netns)


def up(ipr: IPRoute, ifname: str) -> int:
    (index,) = ipr.link_lookup(ifname=ifname)
    ipr.link("set", index=index, state="up")
    return int(index)


def forward() -> None:
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        sysctl.write(name, "1")


def received(lab: Lab) -> tuple[int, int]:
    """Packets and bytes that the receiving node's overlay device has received."""
    with open_iproute(lab.layout.nodes[1].netns) as ipr:
        (index,) = ipr.link_lookup(ifname=overlay.DEVICE)
        counts = next(iter(ipr.get_links(index))).get("IFLA_STATS64")
    return int(counts["rx_packets"]), int(counts["rx_bytes"])


@pytest.mark.parametrize("behind_it", ["on", "off"])
@pytest.mark.parametrize("between_nodes", ["on", "simple NIC"])
def test_aggregates_come_through_a_forwarding_pod(
    lab: Lab, machine: Machine, between_nodes: str, behind_it: str
) -> None:
    source, _ = lab.layout.pods
    choose_offloads(lab, between_nodes)
    wanted = offloads.ALL_ON if behind_it == "on" else offloads.ALL_OFF
    offloads.switch(machine.router.netns, INSIDE, **wanted)
    offloads.switch(machine.netns, POD_IFNAME, **wanted)
    there: dict[int, str] = {
        ip_address(address).version: address for address in lab.addresses(source)
    }
    for family in FAMILIES:
        before = received(lab)

        to_machine = exchange_between(
            source.netns, machine.netns, machine.addresses[family], [*TCP, *OTHERS]
        )
        packets, size = (now - then for now, then in zip(received(lab), before, strict=True))
        from_machine = exchange_between(machine.netns, source.netns, there[family], [*TCP, *OTHERS])

        for done in (to_machine, from_machine):
            assert done.came == done.sent, f"IPv{family}"
            assert done.bad == []
        # they were aggregates; in VXLAN they went by the device that takes the tunnel's marks off
        way = load(lab.layout.nodes[1].settings_path).encap
        assert (size > 3 * MTU * packets) == (way == "ebpf")
        if behind_it == "off":
            assert to_machine.checked > sum(length for _, length, _ in TCP) / MTU


def by_family(addresses: list[str]) -> dict[int, str]:
    return {ip_address(address).version: address for address in addresses}
