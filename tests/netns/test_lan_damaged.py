# SPDX-License-Identifier: Apache-2.0
"""Pods on the LAN whose lease somebody damaged, and parents that are no usual interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netns.test_bad_input import CONFIG, refused
from pycni.kernel.links import End, Link
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.lab.topology import open_rtnl, remove_netns
from pycni.lan import host_child, leases
from pycni.names import DEVICE
from support import labs
from support.flood import unanswered
from support.lan import (
    NOT_AVAILABLE,
    RANGES,
    add,
    call,
    has_child,
    lease_of,
    node_of,
    run_dir,
)
from support.snapshot import differences, take

DAMAGES = [b"", b"\0" * 64, {"netnsid": "x"}, {"parent": 7}, {"device": "x"}, {"ifindex": -1}]


def lease_path(lab: Lab, pod: Pod) -> Path:
    return run_dir(lab, pod) / leases.DIRECTORY / f"{lease_of(lab, pod).key.digest}.json"


def damage(path: Path, how: bytes | dict[str, Any]) -> None:
    if isinstance(how, dict):
        how = json.dumps(json.loads(path.read_bytes()) | how).encode()
    path.write_bytes(how)


def links_in(netns: str) -> list[str]:
    with open_rtnl(netns) as ipr:
        return [link.ifname for link in ipr.links()]


@pytest.mark.parametrize("how", DAMAGES, ids=str)
def test_one_damaged_lease_fails_no_other_pod_and_its_del_leaves_nothing(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], how: bytes | dict[str, Any]
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    before = take(node)
    add(lab, one, macvlan)
    damage(lease_path(lab, one), how)

    assert lab.pycni(node, "status")
    add(lab, beside, macvlan)
    assert call(lab, beside, "DEL", macvlan).status == 0
    deleted = call(lab, one, "DEL", macvlan)

    assert deleted.status == 0, deleted.text
    assert links_in(one.netns) == ["lo"]
    assert [one for one in differences(before, take(node)) if "fdb" not in one] == []


def test_a_del_removes_the_route_and_the_nodes_link_of_a_damaged_lease(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    added = add(lab, one, macvlan)
    other = add(lab, beside, macvlan)
    damage(lease_path(lab, one), b"")

    assert call(lab, one, "DEL", macvlan).status == 0

    with open_rtnl(node.netns) as ipr:
        child = ipr.ifindex(host_child.name_of("eth0"))
        routed = {str(route.dst.network_address) for route in ipr.routes_by(child, 4)}
    assert routed & {*added.addresses, *other.addresses} == {other.addresses[0]}
    assert unanswered(lab, node.netns, other.addresses) == []

    damage(lease_path(lab, beside), b"")
    assert call(lab, beside, "DEL", macvlan).status == 0
    assert not has_child(node)


def test_an_add_that_was_killed_after_the_rename_is_followed_by_another(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, *_ = pods
    add(lab, one, macvlan)
    leases.write(run_dir(lab, one), replace(lease_of(lab, one), ifindex=0))

    add(lab, one, macvlan)

    assert links_in(one.netns) == ["lo", POD_IFNAME]


def test_a_teardown_removes_leases_that_cannot_be_read(macvlan: dict[str, Any]) -> None:
    with labs.prepared_lab(nodes=1, pods=1) as lab:
        node = lab.layout.nodes[0]
        (pod,) = node.pods
        before = take(node)
        labs.setup(node)
        add(lab, pod, macvlan, alone=True)
        damage(lease_path(lab, pod), b"")

        labs.teardown(node)

        assert [one for one in differences(before, take(node)) if "/lan" in one] == []


def test_an_address_that_is_asked_for_is_given_after_its_pod_ended_without_a_del(
    macvlan: dict[str, Any],
) -> None:
    asked = macvlan | {"runtimeConfig": {"ips": ["198.18.0.70"]}}
    with labs.prepared_lab(nodes=1, pods=1) as lab:
        node = lab.layout.nodes[0]
        (pod,) = node.pods
        labs.setup(node)
        with labs.made_pod(lab, node) as gone:
            add(lab, gone, asked, alone=True)
            remove_netns(gone.netns)

            added = add(lab, pod, asked, alone=True)

        assert "198.18.0.70" in added.addresses


@pytest.fixture
def shim(lab: Lab) -> Iterator[Link]:
    """The first node's own macvlan on its uplink."""
    with open_rtnl(lab.layout.nodes[0].netns) as ipr:
        ipr.add_macvlan(End("shim0"), parent=ipr.ifindex("eth0"))
        ipr.set_up(ipr.ifindex("shim0"))
        link = ipr.link("shim0")
        assert link is not None
        yield link
        ipr.delete_link(link.ifindex)


def test_a_parent_that_is_a_macvlan_itself_has_any_number_of_pods(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], shim: Link
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    way = macvlan | {"master": shim.ifname}

    added = [add(lab, one, way), add(lab, beside, way)]

    for reply, pod in zip(added, (one, beside), strict=True):
        assert unanswered(lab, node.netns, reply.addresses[:1]) == []
        checked = call(lab, pod, "CHECK", way, prevResult=reply.document)
        assert checked.status == 0, checked.text


@pytest.mark.parametrize("which", [DEVICE, "host end", "child"])
def test_an_interface_of_pycnis_own_is_no_parent(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], which: str
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    master = which
    if which == "host end":
        master = host_end(node)
    if which == "child":
        add(lab, beside, macvlan)
        master = host_child.name_of("eth0")
    config = {"ipMasq": False, "ipam": {"ranges": RANGES[one.node]}, "master": master}

    refused(lab, one, CONFIG, "pycni's own", **(macvlan | config))


def host_end(node: LabNode) -> str:
    with open_rtnl(node.netns) as ipr:
        return next(link.ifname for link in ipr.links() if link.ifname.startswith("pcn"))


@pytest.mark.parametrize("name", ["e" * 16, "é" * 8, "x" * 300])
def test_a_parent_with_a_name_that_none_can_have_is_named(
    lab: Lab, spare: Pod, macvlan: dict[str, Any], name: str
) -> None:
    config = {"ipMasq": False, "ipam": {"ranges": RANGES[spare.node]}, "master": name}

    refused(lab, spare, NOT_AVAILABLE, name, **(macvlan | config))


@pytest.mark.usefixtures("macvlan")
def test_others_links_with_a_similar_name_stay() -> None:
    with labs.prepared_lab(nodes=1, pods=1) as lab:
        node = lab.layout.nodes[0]
        labs.setup(node)
        with open_rtnl(node.netns) as ipr:
            ipr.add_macvlan(End("pcl0"), parent=ipr.ifindex("eth0"))

        labs.teardown(node)

        assert "pcl0" in links_in(node.netns)
