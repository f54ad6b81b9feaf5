# SPDX-License-Identifier: Apache-2.0
"""Packets above the overlay's MTU, from a pod whose own MTU somebody raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from pycni.lab import checks
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from support.flood import unanswered
from support.flows import FAMILIES, answering, ask
from support.kernel import open_iproute

RAISED_MTU = 1500
HEADERS = checks.ICMP_HEADERS
UDP_SIZE = 1460
"""Bytes after 28 of headers: below RAISED_MTU and above the overlay's MTU."""


def overlay_mtu(lab: Lab, pod: Pod) -> int:
    record = lab.layout.node(pod.node).directory / "state" / "node.json"
    return int(json.loads(record.read_bytes())["mtu"])


@contextmanager
def raised_mtu(lab: Lab, pod: Pod) -> Iterator[None]:
    """Both ends of the pod's veth, which drops what is above the MTU of the end it leaves by.

    So it is for pods from before the overlay's MTU was lowered.
    """
    host_ifname = lab.results[pod.name]["interfaces"][0]["name"]
    ends = ((lab.layout.node(pod.node).netns, host_ifname), (pod.netns, POD_IFNAME))
    before = overlay_mtu(lab, pod)
    for netns, ifname in ends:
        set_mtu(netns, ifname, RAISED_MTU)
    try:
        yield
    finally:
        for netns, ifname in ends:
            set_mtu(netns, ifname, before)


def set_mtu(netns: str, ifname: str, mtu: int) -> None:
    with open_iproute(netns) as ipr:
        (index,) = ipr.link_lookup(ifname=ifname)
        ipr.link("set", index=index, mtu=mtu)


def learnt_mtu(pod: Pod, address: str) -> int:
    """The path MTU a pod's kernel knows for an address; 0 if none."""
    with open_iproute(pod.netns) as ipr:
        (route,) = ipr.route("get", dst=address)
        metrics = route.get("RTA_METRICS")
        return int(metrics.get("RTAX_MTU") or 0) if metrics is not None else 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packet_too_big_for_the_overlay_is_answered_with_its_mtu(lab: Lab, family: int) -> None:
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    mtu = overlay_mtu(lab, source)
    address = next(one for one in lab.addresses(target) if ip_address(one).version == family)
    with raised_mtu(lab, source):
        size = str(RAISED_MTU - HEADERS[family])
        (answer,) = lab.peer(source.netns, "echo", address, "--size", size, "--dont-fragment")
        learnt = learnt_mtu(source, address)
        fitting = unanswered(lab, source.netns, [address], size=mtu - HEADERS[family])

    assert answer["received"] == 0
    assert learnt == mtu
    assert fitting == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packet_too_big_for_the_overlay_crosses_a_node(lab: Lab, family: int) -> None:
    """Between pods of one node there is no overlay, and so no limit but the veth's own."""
    source, target = lab.layout.nodes[0].pods
    address = next(one for one in lab.addresses(target) if ip_address(one).version == family)
    with raised_mtu(lab, source), raised_mtu(lab, target):
        size = RAISED_MTU - HEADERS[family]

        assert unanswered(lab, source.netns, [address], size=size) == []


def test_a_datagram_that_may_be_fragmented_arrives_whole(lab: Lab) -> None:
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    address = lab.addresses(target)[0]
    with (
        raised_mtu(lab, source),
        answering(target.netns, address) as (port, heard),
    ):
        seen = ask(source.netns, address, port, size=UDP_SIZE)

        assert heard() == {"source": lab.addresses(source)[0], "size": UDP_SIZE}
    assert seen == lab.addresses(source)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_fragments_of_a_pod_arrive_whole(lab: Lab, family: int) -> None:
    """Made by the sending pod itself: the second fragment has no ports."""
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    address = next(one for one in lab.addresses(target) if ip_address(one).version == family)
    with answering(target.netns, address) as (port, heard):
        seen = ask(source.netns, address, port, size=5000)

        assert heard()["size"] == 5000
    assert seen in lab.addresses(source)
