# SPDX-License-Identifier: Apache-2.0
"""What pods on the LAN cannot have, and parents that are not as they must be: refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from netns.test_bad_input import CONFIG, refused
from pycni.kernel import sysctl
from pycni.kernel.links import RTM_NEWLINK, End, pack_down
from pycni.kernel.netlink import NLM_F_ACK
from pycni.lab.cluster import Lab
from pycni.lab.layout import Pod
from pycni.lab.topology import open_rtnl
from support import labs
from support.flood import unanswered
from support.lan import (
    HERE,
    MISMATCH,
    NOT_AVAILABLE,
    RANGES,
    UNAVAILABLE,
    WAYS,
    add,
    call,
    has,
    lease_files,
    node_of,
)
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("config", "code", "word"),
    [
        ({"ipMasq": True}, CONFIG, "ipMasq"),
        (
            {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}},
            CONFIG,
            "portMappings",
        ),
        (
            {"runtimeConfig": {"bandwidth": {"ingressRate": 8000, "ingressBurst": 8000}}},
            CONFIG,
            "bandwidth",
        ),
        ({"ipam": {}}, CONFIG, "ipam.ranges"),
        ({"ipam": {"ranges": [{"subnet": "10.244.7.0/24"}]}}, CONFIG, "not on the LAN"),
        ({"mode": "vepa"}, CONFIG, "no such mode"),
        ({"master": "nothing0"}, NOT_AVAILABLE, "nothing0"),
        ({"master": "lo"}, CONFIG, "no network"),
        ({"mtu": 9000}, CONFIG, "MTU"),
        ({"runtimeConfig": {"ips": ["198.18.0.1"]}}, UNAVAILABLE, "this node's own"),
        ({"runtimeConfig": {"ips": ["192.0.2.1"]}}, UNAVAILABLE, "in no network"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    lab: Lab, spare: Pod, way: dict[str, Any], config: dict[str, Any], code: int, word: str
) -> None:
    base = {"ipMasq": False, "ipam": {"ranges": RANGES[spare.node]}}
    with_mode = way if "mode" not in config else {"device": way["device"]}

    refused(lab, spare, code, word, **(base | with_mode | config))


@pytest.fixture
def second_parent(lab: Lab) -> Iterator[str]:
    """One more interface of the first node, up; a test may remove it."""
    with open_rtnl(lab.layout.nodes[0].netns) as ipr:
        ipr.add_veth(End("lan0"), End("lan1"))
        for name in ("lan0", "lan1"):
            ipr.set_up(ipr.ifindex(name))
        yield "lan0"
        if (link := ipr.link("lan1")) is not None:
            ipr.delete_link(link.ifindex)


def test_a_parent_that_is_down_or_gone_is_named(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], second_parent: str
) -> None:
    one, *_ = pods
    node = node_of(lab, one)
    way = macvlan | {"master": second_parent, "cniVersion": "1.1.0"}
    added = add(lab, one, way)
    assert call(lab, one, "STATUS", way).status == 0

    with open_rtnl(node.netns) as ipr:
        link = ipr.link(second_parent)
        assert link is not None
        ipr._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_down(link.ifindex))
        down = [call(lab, one, "STATUS", way), call(lab, pods[1], "ADD", way)]
        checked = call(lab, one, "CHECK", way, prevResult=added.document)
        ipr.delete_link(link.ifindex)
    gone = [call(lab, one, "STATUS", way), call(lab, pods[1], "ADD", way)]

    for reply in (*down, *gone):
        assert reply.document["code"] == NOT_AVAILABLE, reply.text
        assert second_parent in reply.text
    assert (checked.document["code"], "down" in checked.text) == (MISMATCH, True)
    wait_until(lambda: not lease_files(node), "the lease of a link that went with its parent")


def test_status_fails_when_no_address_is_free(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, *_ = pods
    only = {"ipam": {"ranges": [RANGES[one.node][0] | {"rangeEnd": "198.18.0.64"}]}}
    way = macvlan | only | {"cniVersion": "1.1.0"}
    free = call(lab, one, "STATUS", way)

    add(lab, one, way)
    full = call(lab, one, "STATUS", way)

    assert free.status == 0, free.text
    assert full.document["code"] == NOT_AVAILABLE, full.text


def test_a_parent_has_one_kind_of_links_in_one_mode(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, _ = pods
    added = add(lab, one, way)
    others = [WAYS[name] for name in HERE if WAYS[name] != way]

    replies = [call(lab, beside, "ADD", other) for other in others]

    for reply in replies:
        assert (reply.document["code"], "eth0" in reply.text) == (CONFIG, True), reply.text
    assert unanswered(lab, node_of(lab, one).netns, added.addresses) == []


@pytest.mark.parametrize("device", ["macvlan", "ipvlan"])
def test_a_kernel_without_the_device_is_told_apart(lab: Lab, spare: Pod, device: str) -> None:
    if has(device):
        add(lab, spare, {"device": device})
        return
    config = {"ipMasq": False, "ipam": {"ranges": RANGES[spare.node]}}

    refused(lab, spare, CONFIG, f"CONFIG_{device.upper()}", device=device, **config)


def test_a_parent_that_would_drop_what_pods_send_to_the_node_is_refused(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods
    node = node_of(lab, one)
    name = "net/ipv4/conf/eth0/rp_filter"
    before = labs.within(node.netns, lambda: sysctl.write(name, "1"))

    reply = call(lab, one, "ADD", way)

    labs.within(node.netns, lambda: sysctl.write(name, before or "1"))
    if way == WAYS["ipvlan"]:
        assert (reply.document["code"], "rp_filter" in reply.text) == (CONFIG, True), reply.text
    else:
        assert unanswered(lab, node.netns, reply.addresses) == []
