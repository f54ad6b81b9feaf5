# SPDX-License-Identifier: Apache-2.0
"""A router between nodes that send IPIP whose link to them is narrower than theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycni.cluster import IPIP_OVERHEAD
from pycni.node import next_hops
from pycni.settings import load
from pycni.stores import IPIP
from support.flows import FAMILIES
from support.matrix import choose_way
from support.narrow_path import NARROW, WIDE, Routed, routed_by, strict_firewall
from support.waiting import wait_until


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: f"IPv{family} underlay")
def wide(request: pytest.FixtureRequest) -> Iterator[Routed]:
    with routed_by(request.param, IPIP_OVERHEAD[request.param]) as made:
        choose_way(made.lab, ("ipip", "ipip"))
        settings = [load(node.settings_path) for node in made.lab.layout.nodes]
        wait_until(
            lambda: all(set(next_hops.modes(one).values()) == {IPIP} for one in settings),
            "the nodes send IPIP to each other",
        )
        yield made


@pytest.fixture
def narrowed(wide: Routed) -> Routed:
    """The path is narrow since just now."""
    wide.set_path(NARROW)
    return wide


@pytest.mark.parametrize("family", FAMILIES)
def test_bulk_of_a_pod_and_of_the_node_reaches_another_nodes_pod(
    narrowed: Routed, family: int
) -> None:
    to = narrowed.pod_address(family)
    narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)
    narrowed.set_path(NARROW)
    narrowed.bulk(narrowed.near.netns, narrowed.target.netns, to)


def test_bulk_of_a_pod_reaches_another_nodes_own_address(narrowed: Routed) -> None:
    narrowed.bulk(narrowed.source.netns, narrowed.far.netns, narrowed.vtep(narrowed.far))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_is_told_what_fits(narrowed: Routed, family: int) -> None:
    assert narrowed.told(family) == narrowed.fitting


def test_datagrams_that_may_be_cut_arrive_whole(narrowed: Routed) -> None:
    narrowed.fill()

    narrowed.check_cut_datagrams(narrowed.target.netns, narrowed.pod_address(4))


def test_a_firewall_may_drop_what_connection_tracking_calls_invalid(narrowed: Routed) -> None:
    with strict_firewall(narrowed.near):
        narrowed.fill()


def test_there_is_no_narrow_path_without_need(narrowed: Routed) -> None:
    narrowed.fill()
    assert narrowed.looked().nodes

    narrowed.set_path(WIDE)
    narrowed.fill()

    assert not narrowed.looked().nodes
