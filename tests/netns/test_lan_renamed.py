# SPDX-License-Identifier: Apache-2.0
"""Parents that are renamed while they have pods: the pods stay, and so does the way to them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from netns.test_bad_input import CONFIG
from pycni.kernel.links import End
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.lab.topology import open_rtnl
from pycni.lan import host_child
from support.flood import unanswered
from support.lan import NOT_AVAILABLE, add, call, lease_files
from support.waiting import wait_until

OLD, NEW = "lan0", "lan9"
OWN = {ip_address("192.0.2.1"): 24, ip_address("fd00:55::1"): 64}
"""The node's addresses there, with the lengths of their networks."""
RANGES = [
    {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.64", "rangeEnd": "192.0.2.79"},
    {"subnet": "fd00:55::/64", "rangeStart": "fd00:55::40", "rangeEnd": "fd00:55::4f"},
]


@pytest.fixture
def node(lab: Lab) -> LabNode:
    return lab.layout.nodes[0]


@pytest.fixture
def parent(node: LabNode) -> Iterator[str]:
    """One more interface of the first node, up; a test may rename it."""
    with open_rtnl(node.netns) as ipr:
        ipr.add_veth(End(OLD), End("lan1"))
        for name in (OLD, "lan1"):
            ipr.set_up(ipr.ifindex(name))
        for address, prefixlen in OWN.items():
            ipr.add_address(ipr.ifindex(OLD), address, prefixlen=prefixlen)
        yield OLD
        for name in (OLD, "lan1"):
            if (link := ipr.link(name)) is not None:
                ipr.delete_link(link.ifindex)


def rename(node: LabNode, old: str, new: str) -> None:
    with open_rtnl(node.netns) as ipr:
        link = ipr.link(old)
        assert link is not None
        ipr.rename(link, new)


def row(lab: Lab, node: LabNode) -> dict[str, Any]:
    (found,) = [one for one in lab.pycni(node, "status") if one["name"] == "lan"]
    return dict(found)


def test_pods_on_a_renamed_parent_are_reached_and_it_is_told_as_renamed(
    lab: Lab, pods: list[Pod], node: LabNode, way: dict[str, Any], parent: str
) -> None:
    one, beside, _ = pods
    ours = way | {"master": parent, "cniVersion": "1.1.0", "ipam": {"ranges": RANGES}}
    added = add(lab, one, ours)

    rename(node, OLD, NEW)

    assert unanswered(lab, node.netns, added.addresses) == []
    said = row(lab, node)
    assert (said["state"], f"{OLD}, which pods are on, is renamed" in said["cause"]) == (
        "degraded", True), said  # fmt: skip
    assert f'"master": "{NEW}"' in said["to_do"]
    checked = call(lab, one, "CHECK", ours, prevResult=added.document)
    assert checked.status == 0, checked.text
    for reply in (call(lab, one, "STATUS", ours), call(lab, beside, "ADD", ours)):
        assert reply.document["code"] == NOT_AVAILABLE, reply.text
        assert f"on {NEW} now" in reply.text

    other = add(lab, beside, ours | {"master": NEW})
    assert unanswered(lab, node.netns, [*added.addresses, *other.addresses]) == []
    assert call(lab, beside, "DEL", ours | {"master": NEW}).status == 0
    assert call(lab, one, "DEL", ours).status == 0
    assert row(lab, node)["state"] == "ok"
    rename(node, NEW, OLD)
    with open_rtnl(node.netns) as ipr:
        assert [ipr.link(host_child.name_of(name)) for name in (OLD, NEW)] == [None, None]
    assert lease_files(node) == []


def test_the_agent_mends_the_way_to_pods_on_a_renamed_parent(
    lab: Lab, pods: list[Pod], node: LabNode, way: dict[str, Any], parent: str
) -> None:
    one, *_ = pods
    added = add(lab, one, way | {"master": parent, "ipam": {"ranges": RANGES}})
    rename(node, OLD, NEW)

    with open_rtnl(node.netns) as ipr:
        ipr.delete_link(ipr.ifindex(host_child.name_of(OLD)))
        wait_until(lambda: ipr.link(host_child.name_of(OLD)) is not None, "it is there again")

    wait_until(lambda: unanswered(lab, node.netns, added.addresses) == [], "the pod answers")
    with open_rtnl(one.netns) as inside:
        assert len(inside.links()) == 2
    rename(node, NEW, OLD)


def test_an_interface_that_gets_the_name_of_a_renamed_one_takes_no_pods(
    lab: Lab, pods: list[Pod], node: LabNode, way: dict[str, Any], parent: str
) -> None:
    one, beside, _ = pods
    ours = way | {"master": parent, "cniVersion": "1.1.0", "ipam": {"ranges": RANGES}}
    added = add(lab, one, ours)
    rename(node, OLD, NEW)
    rename(node, "lan1", OLD)
    try:
        replies = [call(lab, one, "STATUS", ours), call(lab, beside, "ADD", ours)]

        for reply in replies:
            assert reply.document["code"] == CONFIG, reply.text
            assert f"on {NEW} now" in reply.text
        assert "renamed" in row(lab, node)["cause"]
        assert unanswered(lab, node.netns, added.addresses) == []
    finally:
        rename(node, OLD, "lan1")
        rename(node, NEW, OLD)
