# SPDX-License-Identifier: Apache-2.0
"""A router between nodes that send IPIP whose link to them is narrower than theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netns.test_path_mtu import (
    FORGETTING,
    NARROW,
    WIDE,
    Routed,
    learnt_mtu,
)
from pycni.cluster import IPIP_OVERHEAD
from pycni.kernel import nft
from pycni.lab import checks
from pycni.node import next_hops
from pycni.settings import load
from pycni.stores import IPIP
from support.flows import FAMILIES, answering, ask, pumping
from support.labs import within
from support.matrix import Surroundings, choose_way, surrounded
from support.underlay import FORWARDING, write_parameters
from support.waiting import wait_until


class Tunnelled(Routed):
    """Two nodes that send IPIP to each other by a router."""

    @property
    def fitting(self) -> int:
        return NARROW - IPIP_OVERHEAD[self.underlay]

    def bulk(self, source: str, target: str, to: str) -> None:
        """Fails unless much of it arrives."""
        with pumping(source, target, to) as send:
            assert send() is not None


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: f"IPv{family} underlay")
def wide(request: pytest.FixtureRequest) -> Iterator[Tunnelled]:
    with surrounded(Surroundings(request.param, WIDE)) as lab:
        within(lab.layout.underlay_netns, lambda: write_parameters(FORWARDING))
        for pod in lab.layout.pods:
            within(pod.netns, lambda: write_parameters(FORGETTING))
        made = Tunnelled(lab, request.param)
        made.set_path(WIDE)
        choose_way(lab, ("ipip", "ipip"))
        settings = [load(node.settings_path) for node in lab.layout.nodes]
        wait_until(
            lambda: all(set(next_hops.modes(one).values()) == {IPIP} for one in settings),
            "the nodes send IPIP to each other",
        )
        yield made


@pytest.fixture
def narrowed(wide: Tunnelled) -> Tunnelled:
    """The path is narrow since just now."""
    wide.set_path(NARROW)
    return wide


@pytest.mark.parametrize("family", FAMILIES)
def test_bulk_of_a_pod_and_of_the_node_reaches_another_nodes_pod(
    narrowed: Tunnelled, family: int
) -> None:
    to = narrowed.pod_address(family)
    narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)
    narrowed.set_path(NARROW)
    narrowed.bulk(narrowed.near.netns, narrowed.target.netns, to)


def test_bulk_of_a_pod_reaches_another_nodes_own_address(narrowed: Tunnelled) -> None:
    narrowed.bulk(narrowed.source.netns, narrowed.far.netns, narrowed.vtep(narrowed.far))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_is_told_what_fits(narrowed: Tunnelled, family: int) -> None:
    source, to = narrowed.source, narrowed.pod_address(family)
    size = WIDE - 70 - checks.ICMP_HEADERS[family]  # the pods are older than the way

    def ping() -> None:
        words = ("--size", str(size), "--dont-fragment", "--count", "1", "--grace", "0.1")
        narrowed.lab.peer(source.netns, "echo", to, *words)

    ping()  # the router answers this one, and the node takes it in
    known = {narrowed.vtep(narrowed.far): narrowed.fitting}
    wait_until(lambda: narrowed.narrow(narrowed.near) == known, "the path is known")
    ping()

    assert learnt_mtu(source, to) == narrowed.fitting


def test_datagrams_that_may_be_cut_arrive_whole(narrowed: Tunnelled) -> None:
    to = narrowed.pod_address(4)
    narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)

    with answering(narrowed.target.netns, to) as (port, heard):
        for size in (NARROW - 28, 5000):
            ask(narrowed.source.netns, to, port, size=size)

            assert heard()["size"] == size


def test_a_firewall_may_drop_what_connection_tracking_calls_invalid(narrowed: Tunnelled) -> None:
    """As ufw does, before it accepts routers' errors."""
    rules = "type filter hook input priority 0; ct state related accept; ct state invalid drop;"
    table = f"table inet others {{ chain incoming {{ {rules} }}; }}"
    within(narrowed.near.netns, lambda: nft.run(table, what="a firewall"))
    try:
        to = narrowed.pod_address(4)
        narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)
    finally:
        within(narrowed.near.netns, lambda: nft.delete_table("others", what="a firewall"))


def test_there_is_no_narrow_path_without_need(narrowed: Tunnelled) -> None:
    to = narrowed.pod_address(4)
    narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)
    assert narrowed.looked().nodes

    narrowed.set_path(WIDE)
    narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)

    assert not narrowed.looked().nodes
