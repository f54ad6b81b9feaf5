# SPDX-License-Identifier: Apache-2.0
"""Every damage of the table (support/damages.py) to a node without an agent: status names it, and
`pycni setup` mends it; the plugin's STATUS tells that pods are cut."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from loader import libbpf, tcx
from loader.places import EGRESS, INGRESS
from netns.test_spoofing import ELSEWHERE, frame, mac
from pycni.attachments import dispatch
from pycni.kernel import sysctl
from pycni.kernel.rtnl import Rtnl
from pycni.lab import runtime
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, WORLD, LabNode
from pycni.lab.topology import open_rtnl
from pycni.node.overlay import DEVICE
from pycni.settings import load
from pycni.upkeep import report
from pycni.upkeep.report import Row, State
from support.damages import DAMAGES, Damage, pod_links
from support.flood import unanswered
from support.flows import answering, send_frames
from support.labs import made_lab, pycni, setup, within
from support.plugin import network
from support.waiting import wait_until

NOT_AVAILABLE, LIMITED = 50, 51
CLOSED, OPEN = 1, 2
"""Bytes of what is sent while a link is closed to the host's stack, and while it is open."""
ALONE = ("degraded", 1)
"""The state of a node without an agent, and the exit status of `pycni status`."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A cluster of its own; the first node's agent is dead."""
    with made_lab(nodes=2, pods=1) as made:
        made.stop_agent(made.layout.nodes[0], kill=True)
        yield made


@pytest.fixture
def node(lab: Lab) -> LabNode:
    """The one without an agent, whole."""
    node = lab.layout.nodes[0]
    assert faults(node) == []
    return node


def rows(node: LabNode) -> list[Row]:
    """Those of `pycni status`."""
    settings = load(node.settings_path)
    return within(node.netns, lambda: report.rows(settings))


def faults(node: LabNode) -> list[Row]:
    """The rows of what is not well, without the agent's own."""
    bad = (State.DEGRADED, State.BROKEN)
    return [row for row in rows(node) if row.state in bad and row.name != "agent"]


def plugin_status(lab: Lab, node: LabNode) -> dict[str, Any]:
    """What the plugin answers to STATUS, without an agent; empty if all is well."""
    settings = load(node.settings_path)
    stdin = json.dumps(network(lab, cniVersion="1.1.0")).encode()
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(node.bin_dir)}
    reply = within(node.netns, lambda: dispatch.answer(env, stdin, None, settings=settings))
    answer: dict[str, Any] = json.loads(reply.stdout) if reply.stdout else {}
    return answer


def test_an_alias_that_nobody_knows_any_more_is_named(node: LabNode) -> None:
    with open_rtnl(node.netns) as ipr:
        before = {link.ifindex: link.alias for link in pod_links(ipr)}
        for ifindex in before:
            ipr.set_alias(ifindex, "mine")
        try:
            (row,) = faults(node)
        finally:
            for ifindex, alias in before.items():
                ipr.set_alias(ifindex, alias)

    assert (row.name, row.state) == ("leases", State.DEGRADED)
    assert "without its lease" in row.cause
    assert "find the pod by its addresses (pycni endpoints), and delete it" in row.todo


def test_a_renamed_link_is_named_and_its_pod_is_checked_by_its_lease(
    lab: Lab, node: LabNode
) -> None:
    (pod,) = node.pods
    with open_rtnl(node.netns) as ipr:
        (before,) = pod_links(ipr)
        ipr.rename(before, "lan7")
        try:
            (row,) = faults(node)
            runtime.check(node, pod, lab.results[pod.name])
            ipr.set_alias(before.ifindex, "mine")
            (lost,) = faults(node)
        finally:
            ipr.set_alias(before.ifindex, before.alias)
            ipr.rename(before, before.ifname)

    assert (row.name, row.cause) == ("leases", f"{before.ifname} is renamed: it is lan7 now")
    assert (lost.name, lost.state) == ("leases", State.DEGRADED)
    assert "lan7 is without its lease" in lost.cause


PASSES = bytes.fromhex("b7000000ffffffff9500000000000000")
"""`r0 = -1; exit`: whatever is attached after it runs, too (TC_ACT_UNSPEC)."""


def test_programs_of_others_that_run_before_ours_are_told(node: LabNode) -> None:
    """They may stop all packets, and nothing else of the node would say why."""

    def details() -> str:
        (row,) = [one for one in rows(node) if one.name == "hooks"]
        assert row.state is State.OK
        return row.cause

    has_tcx, program, before = (
        tcx.available(),
        libbpf.load_instructions("others", PASSES),
        details(),
    )
    with open_rtnl(node.netns) as ipr:
        (pod,), egress = pod_links(ipr), (ipr.ifindex(DEVICE), tcx.ATTACH_TYPES[EGRESS])
        ipr.add_filter(pod.ifindex, INGRESS, fd=program, name="counts", priority=1, handle=9)
        if has_tcx:
            within(node.netns, lambda: libbpf.attach(program, *egress))
        now = details()
        ipr.delete_filter(pod.ifindex, INGRESS, priority=1, handle=9)
        if has_tcx:
            within(node.netns, lambda: libbpf.detach(program, *egress))
    os.close(program)

    assert now.startswith(
        f"{before}; before them, and able to stop packets: counts at {pod.ifname}"
    )
    assert now.endswith(f", others at {DEVICE}") == has_tcx
    assert details() == before


def test_a_route_of_others_into_the_cluster_stops_no_mend(lab: Lab, node: LabNode) -> None:
    """A new node is refused there: its networks may be somebody else's."""
    route = next(damage for damage in DAMAGES if damage.name.startswith("a route that leads"))
    assert route.undo is not None
    with open_rtnl(node.netns) as ipr:
        route.do(lab, node)
        try:
            ipr.delete_link(ipr.ifindex(DEVICE))
            setup(node)

            assert [row.name for row in faults(node)] == [route.part]
        finally:
            route.undo(lab, node)

    assert faults(node) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_status_names_damage_and_setup_mends_it(lab: Lab, node: LabNode, damage: Damage) -> None:
    assert plugin_status(lab, node) == {}

    damage.do(lab, node)
    try:
        found = faults(node)
        told = plugin_status(lab, node)

        named = [row for row in found if row.name == damage.part]
        assert any(damage.words in row.cause for row in named), found
        assert all(row.todo for row in named)
        wanted = State.BROKEN if damage.is_broken else State.DEGRADED
        assert report.worst(rows(node)) is wanted
        if damage.plugin_tells:
            assert told["code"] == (LIMITED if damage.is_broken else NOT_AVAILABLE)
    finally:
        if damage.undo is not None:
            damage.undo(lab, node)
        setup(node)

    assert faults(node) == []
    assert plugin_status(lab, node) == {}
    if damage.tidy is not None:
        damage.tidy(lab, node)
    runtime.check(node, node.pods[0], lab.results[node.pods[0].name])
    far = lab.addresses(lab.layout.nodes[1].pods[0])
    if damage.part == "registration":  # the other node hears from the store that it is back
        wait_until(lambda: unanswered(lab, node.pods[0].netns, far) == [], "it is answered again")
    assert unanswered(lab, node.pods[0].netns, far) == []


def test_no_rule_is_blamed_for_forwarding_that_is_off(lab: Lab, node: LabNode) -> None:
    off = next(one for one in DAMAGES if one.name == "IPv4 forwarding off at the overlay device")

    off.do(lab, node)

    assert {row.name for row in faults(node)} == {"sysctls"}
    setup(node)


def test_a_pod_without_its_filters_reaches_nobody(lab: Lab, node: LabNode) -> None:
    """Not even on a host that forwards everything: its link is closed to the stack."""
    filters = next(damage for damage in DAMAGES if damage.name.startswith("filters"))
    (pod,) = node.pods
    host, liar = str(node.underlay[0].ip), mac(lab, pod)
    within(node.netns, lambda: sysctl.write("net/ipv4/ip_forward", "1"))
    setup(node)  # it closes what that has opened

    filters.do(lab, node)
    try:
        with answering(node.netns, host) as (port, heard):
            lies = [
                frame(liar, IP(src=ELSEWHERE[4], dst=host) / UDP(dport=port) / Raw(bytes(size)))
                for size in (CLOSED, OPEN)
            ]
            send_frames(pod.netns, POD_IFNAME, lies[:1])
            lost = unanswered(lab, pod.netns, [host, str(WORLD[0])])
            within(node.netns, open_wide)
            send_frames(pod.netns, POD_IFNAME, lies[1:])
            first = heard()
    finally:
        within(node.netns, lambda: sysctl.write("net/ipv4/ip_forward", "0"))
        setup(node)

    assert lost == [host, str(WORLD[0])]
    assert first == {"source": ELSEWHERE[4], "size": OPEN}
    assert faults(node) == []


def open_wide() -> None:
    """The pods' links, to the host's stack."""
    with Rtnl() as ipr:
        for link in pod_links(ipr):
            for name in ("forwarding", "rp_filter"):
                value = "1" if name == "forwarding" else "0"
                sysctl.write(f"net/ipv4/conf/{link.ifname}/{name}", value)


def test_the_exit_status_says_how_bad_it_is(lab: Lab, node: LabNode) -> None:
    routes = next(damage for damage in DAMAGES if damage.part == "routes")
    assert pycni(node, "status").returncode == 1  # no agent

    routes.do(lab, node)
    broken = pycni(node, "status")
    setup(node)
    lab.start_agent(node)
    whole = pycni(node, "status", "--wait", "20")
    lab.stop_agent(node, kill=True)

    assert broken.returncode == 2
    assert b"10.244.0.0/16" in broken.stdout
    assert whole.returncode in (0, 1)  # 1: the agent does not serve yet
