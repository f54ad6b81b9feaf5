# SPDX-License-Identifier: Apache-2.0
"""What is left of pods on the LAN that end in other ways than by a DEL; what the agent keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.lab.topology import open_rtnl, remove_netns
from pycni.lan import host_child, leases
from support import labs
from support.flood import unanswered
from support.lan import (
    EXHAUSTED,
    RANGES,
    add,
    call,
    has_child,
    lease_files,
    lease_of,
    node_of,
    run_dir,
)
from support.snapshot import differences, take
from support.waiting import wait_until


def test_a_pod_whose_namespace_is_gone_gives_its_addresses_back(
    lab: Lab, macvlan: dict[str, Any]
) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    with labs.made_pod(lab, node) as pod:
        add(lab, pod, macvlan)
        remove_netns(pod.netns)

        deleted = call(lab, pod, "DEL", macvlan)

        assert deleted.status == 0
        assert differences(before, take(node)) == []


def test_addresses_of_a_pod_that_ended_without_a_del_are_given_again(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    single = {"ipam": {"ranges": [RANGES[one.node][0] | {"rangeEnd": "198.18.0.64"}]}}
    with labs.made_pod(lab, node) as gone:
        add(lab, gone, macvlan, **single)
        full = call(lab, one, "ADD", macvlan, **single)

    added = add(lab, beside, macvlan, alone=True, **single)

    assert full.document["code"] == EXHAUSTED, full.text
    assert added.addresses == ["198.18.0.64"]


def test_the_agent_hears_of_a_namespace_that_ends(lab: Lab, macvlan: dict[str, Any]) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    with labs.made_pod(lab, node) as pod:
        add(lab, pod, macvlan)
        assert lease_files(node)

    wait_until(lambda: not lease_files(node), "its lease is gone")
    wait_until(lambda: differences(before, take(node)) == [], "the node is as before")


def test_what_a_killed_add_left_goes_with_the_next_del_or_add(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    for pod, command in ((one, "DEL"), (beside, "ADD")):
        add(lab, pod, macvlan)
        _as_if_killed(lab, pod)

        reply = call(lab, pod, command, macvlan)

        assert reply.status == 0, reply.text
        with open_rtnl(pod.netns) as inside:
            left = [link.ifname for link in inside.links()]
        assert left == (["lo"] if command == "DEL" else ["lo", POD_IFNAME])


def _as_if_killed(lab: Lab, pod: Pod) -> None:
    """The lease and the link are as an ADD has them right after it made the link."""
    lease = lease_of(lab, pod)
    with open_rtnl(pod.netns) as inside:
        link = inside.link(POD_IFNAME)
        assert link is not None
        inside.rename(link, lease.key.host_ifname)
    leases.write(run_dir(lab, pod), replace(lease, ifindex=0))


def test_the_agent_makes_the_nodes_own_link_and_its_routes_again(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods
    node = node_of(lab, one)
    added = add(lab, one, way)

    with open_rtnl(node.netns) as ipr:
        ipr.delete_link(ipr.ifindex(host_child.name_of("eth0")))

    wait_until(lambda: has_child(node), "the link is there again")
    wait_until(lambda: unanswered(lab, node.netns, added.addresses) == [], "the pod answers")


def test_a_teardown_removes_pods_on_the_lan_too(macvlan: dict[str, Any]) -> None:
    with labs.prepared_lab(nodes=1, pods=1) as lab:
        node = lab.layout.nodes[0]
        (pod,) = node.pods
        before = take(node)
        labs.setup(node)
        add(lab, pod, macvlan, alone=True)

        labs.teardown(node)

        assert [one for one in differences(before, take(node)) if "pcl" in one] == []
        with open_rtnl(pod.netns) as inside:
            assert inside.link(POD_IFNAME) is None
