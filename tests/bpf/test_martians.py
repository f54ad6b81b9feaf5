# SPDX-License-Identifier: Apache-2.0
"""Addresses that no packet of a pod may go to, or come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.dataplane import Dataplane
from bpf.outcomes import dropped, left_to_others, to_stack
from bpf.test_from_overlay import inner
from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    IPV6,
    LINK_LOCAL_SERVICE,
    MASQUERADE_MARK,
    PAYLOAD,
    POD_ONE_MAC,
    VETH_ONE,
    VETH_TWO,
    Endpoint,
    Family,
    Tables,
    cluster,
)
from pycni.kernel.links import link_local

pytestmark = pytest.mark.root

METADATA = "169.254.169.254"
OWN_LINK_LOCAL = str(link_local(POD_ONE_MAC))
OTHER_MAC = "0a:00:00:00:00:05"

MARTIANS = {
    "IPv4": ("0.0.0.0", "0.1.2.3", "0.255.255.255", "240.0.0.1", "255.255.255.254"),
    "IPv6": (
        "::",
        f"::{IPV4.pod_two}",  # v4-compatible
        f"::{IPV4.world}",
        "::2",
        f"::ffff:0:{IPV4.world}",  # IPv4-translated
    ),
}
LINK_LOCALS = {
    "IPv4": (METADATA, "169.254.0.1", "169.254.255.255", "169.254.20.11"),
    "IPv6": ("fe80::1", OWN_LINK_LOCAL, "febf::1", "fe80::a9fe:a9fe"),
}
NEXT_TO_THEM = {
    "IPv4": ("1.0.0.1", "126.255.255.255", "169.253.255.255", "169.255.0.1", "223.255.255.1"),
    "IPv6": ("64:ff9b::c000:250", "0:1::1", "fe7f::1", "fec0::1", "2002:c000:250::1"),
}


def clients(underlay: Family, **flags: bool) -> Tables:
    """Both pods are clients of DHCP: `endpoints` holds their link-local addresses."""
    tables = cluster(underlay, **flags)
    asking = {
        OWN_LINK_LOCAL: Endpoint(VETH_ONE, POD_ONE_MAC),
        str(link_local(OTHER_MAC)): Endpoint(VETH_TWO, OTHER_MAC),
    }
    return replace(tables, endpoints={**tables.endpoints, **asking})


def destinations(family: Family, underlay: Family) -> Iterator[Case]:
    queued = cluster(underlay, queued=True, masquerade=True)
    for reason, addresses in (("MARTIAN", MARTIANS), ("LINK_LOCAL", LINK_LOCALS)):
        for dst in addresses[family.name]:
            packet = family.from_pod_one(dst)
            yield Case(dst, packet, dropped(reason, packet))
            yield Case(f"{dst}, queued", packet, dropped(reason, packet), queued)
            yield Case(f"{dst}, of a DHCP client", packet, dropped(reason, packet),
                       clients(underlay))  # fmt: skip
    for dst in NEXT_TO_THEM[family.name]:
        packet = family.from_pod_one(dst)
        yield Case(f"beside: {dst}", packet, to_stack(packet))
    if family is IPV4:
        packet = family.from_pod_one(LINK_LOCAL_SERVICE)
        yield Case("a service of the settings", packet, to_stack(packet))
        there = left_to_others(packet, "QDISC", mark=MASQUERADE_MARK)
        yield Case("a service of the settings, queued", packet, there, queued)
    else:
        for dst in (f"::ffff:{IPV4.world}", "::ffff:169.254.169.254", "::ffff:127.0.0.1"):
            packet = family.from_pod_one(dst)
            yield Case(dst, packet, dropped("BAD_HEADER", packet))
        other = family.from_pod_one(str(link_local(OTHER_MAC)))
        what = "the link-local address of another DHCP client"
        yield Case(what, other, dropped("LINK_LOCAL", other), clients(underlay))


def sources(family: Family, underlay: Family) -> Iterator[Case]:
    for src in MARTIANS[family.name]:
        packet = family.from_pod_one(family.pod_two, src=src)
        yield Case(src, packet, dropped("SPOOFED_SOURCE", packet))
    if family is IPV4:
        return
    eth = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
    for dst in (family.pod_two, family.pod_far, family.gateway, family.world, family.node_two):
        for name, payload in {"UDP": PAYLOAD, "RA": ICMPv6ND_RA()}.items():
            packet = eth / IPv6(src=OWN_LINK_LOCAL, dst=dst, hlim=255) / payload
            what = f"{name} of a DHCP client to {dst}"
            yield Case(what, packet, dropped("LINK_LOCAL", packet), clients(underlay))
            yield Case(f"{what}, queued", packet, dropped("LINK_LOCAL", packet),
                       clients(underlay, queued=True))  # fmt: skip
    group = eth / IPv6(src=OWN_LINK_LOCAL, dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    group[Ether].dst = "33:33:00:00:00:01"
    yield Case("RA of a DHCP client to all", group, dropped("MULTICAST", group), clients(underlay))


def from_nodes(family: Family, underlay: Family) -> Iterator[Case]:
    two = underlay.node_two
    for src in MARTIANS[family.name]:
        packet = inner(family, src, family.pod_one)
        yield Case(f"from {src}", packet, dropped("SPOOFED_INNER", packet), came_from=two)
    for dst in MARTIANS[family.name]:
        packet = inner(family, family.pod_far, dst)
        unknown = dropped("UNKNOWN_DESTINATION", packet)
        yield Case(f"to {dst}", packet, unknown, came_from=two)
    if family is IPV4:
        packet = inner(family, family.pod_far, METADATA)
        unknown = dropped("UNKNOWN_DESTINATION", packet)
        yield Case("to the metadata service", packet, unknown, came_from=two)
        return
    for name, src, dst in (
        ("from a link-local address", "fe80::1", family.pod_one),
        ("to a DHCP client's link-local address", family.pod_far, OWN_LINK_LOCAL),
    ):
        packet = inner(family, src, dst)
        refused = dropped("LINK_LOCAL", packet)
        yield Case(name, packet, refused, clients(underlay), came_from=two)


@in_all_families(destinations)
def test_no_packet_of_a_pod_goes_there(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(sources)
def test_no_packet_of_a_pod_comes_from_there(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(from_nodes)
def test_nor_does_one_of_another_node(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_overlay", underlay, case)


def test_a_cluster_may_have_reserved_addresses(dataplane: Dataplane) -> None:
    """Some clouds give pods 240/4."""
    reserved = cluster(IPV4)
    endpoints = {**reserved.endpoints, "240.1.0.9": reserved.endpoints[IPV4.pod_two]}
    dataplane.fill(replace(reserved, endpoints=endpoints))

    outcome = dataplane.run("from_container", IPV4.from_pod_one("240.1.0.9"))

    assert outcome.path == "POD"


def test_no_setting_opens_link_local_addresses_of_ipv6(dataplane: Dataplane) -> None:
    packet: Packet = IPV6.from_pod_one(f"fe80::{LINK_LOCAL_SERVICE}")

    assert dataplane.run("from_container", packet) == dropped("LINK_LOCAL", packet)
