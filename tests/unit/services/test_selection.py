# SPDX-License-Identifier: Apache-2.0
"""Which endpoints a node chooses among: the rows of kube-proxy's CategorizeEndpoints, by set."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.services.endpoints import Endpoint
from pycni.services.selection import (
    HINTED,
    NOT_READY,
    STOPPED,
    TERMINATING,
    Place,
    select,
)

HERE = Place("node1", "east")
ADDRESSES = [ip_address(f"10.244.{node}.{host}") for node in range(3) for host in (2, 3)]


def ready(number: int, **more) -> Endpoint:
    """The even ones are on this node."""
    node = "node1" if number % 2 == 0 else "node2"
    return Endpoint(ADDRESSES[number], 8080, node, **more)


def failing(number: int) -> Endpoint:
    return ready(number, ready=False, serving=False)


def draining(number: int, **more) -> Endpoint:
    return ready(number, ready=False, terminating=True, **more)


def stopped(number: int) -> Endpoint:
    return ready(number, ready=False, serving=False, terminating=True)


def zone(name: str) -> dict[str, frozenset[str]]:
    return {"zones": frozenset({name})}


def node(name: str) -> dict[str, frozenset[str]]:
    return {"nodes": frozenset({name})}


@pytest.mark.parametrize(
    ("endpoints", "cluster", "local"),
    [
        pytest.param([], [], [], id="none"),
        pytest.param([ready(0), ready(1)], [0, 1], [0], id="S-033 ready"),
        pytest.param([failing(0), ready(1)], [1], [], id="S-034 a failing probe"),
        pytest.param([failing(0), failing(1)], [], [], id="S-034 not as a fallback"),
        pytest.param([draining(0), draining(1)], [0, 1], [0], id="S-033 all terminating"),
        pytest.param([draining(0), ready(1)], [1], [0], id="S-033 the sets by themselves"),
        pytest.param([ready(0), draining(1)], [0], [0], id="S-075 terminating"),
        pytest.param([stopped(0), draining(2), failing(1)], [2], [2], id="serves no more"),
        pytest.param([ready(0, terminating=True), ready(1)], [0, 1], [0],
                     id="S-030 publishNotReadyAddresses"),
        pytest.param([ready(1), ready(3)], [1, 3], [], id="S-046 all elsewhere"),
        pytest.param([ready(0, **zone("east")), ready(1, **zone("west"))], [0], [0],
                     id="S-035 zones"),
        pytest.param([ready(0, **zone("west")), ready(1, **zone("east"))], [1], [0],
                     id="S-037 the Local set ignores hints"),
        pytest.param([ready(0, **zone("east")), ready(1)], [0, 1], [0],
                     id="S-035 one without a hint"),
        pytest.param([ready(0, **zone("west")), ready(1, **zone("north"))], [0, 1], [0],
                     id="S-035 no hint names this zone"),
        pytest.param([ready(0, **zone("east"), **node("node2")),
                      ready(1, **zone("east"), **node("node1"))], [1], [0],
                     id="S-035 nodes before zones"),
        pytest.param([ready(0, **zone("east"), **node("node1")),
                      ready(1, **zone("east"))], [0, 1], [0],
                     id="S-035 a node's hint only if all have one"),
        pytest.param([ready(0, **zone("east"), **node("node2")),
                      ready(1, **zone("west"), **node("node2"))], [0], [0],
                     id="S-035 no hint names this node: zones"),
        pytest.param([ready(0, **zone("east")), failing(1)], [0], [0],
                     id="S-036 hints of those that are not ready"),
        pytest.param([draining(0, **zone("west")), draining(1, **zone("east"))], [0, 1], [0],
                     id="S-036 the fallback ignores hints"),
    ],
)  # fmt: skip
def test_the_sets(endpoints, cluster, local) -> None:
    found = select(endpoints, HERE)

    assert [ADDRESSES.index(one.address) for one in found.cluster] == cluster
    assert [ADDRESSES.index(one.address) for one in found.local] == local


def test_a_node_without_a_zone_takes_no_zones_hint() -> None:
    endpoints = [ready(0, **zone("")), ready(1, **zone("east"))]

    assert len(select(endpoints, Place("node1")).cluster) == 2


def test_the_zone_decides() -> None:
    """S-038."""
    endpoints = [ready(0, **zone("east")), ready(1, **zone("west"))]

    assert select(endpoints, HERE).cluster != select(endpoints, replace(HERE, zone="west")).cluster


@pytest.mark.parametrize(
    ("endpoints", "internal", "external"),
    [
        ([ready(0), ready(1)], "", ""),
        ([ready(1)], "", "drop"),
        ([failing(0)], "reject", "reject"),
        ([], "reject", "reject"),
        ([draining(0), ready(1)], "", ""),
    ],
)
def test_nothing_is_refused_in_one_way_and_only_elsewhere_in_another(
    endpoints, internal: str, external: str
) -> None:
    """S-046, S-056."""
    found = select(endpoints, HERE)

    assert found.refusal("Cluster") == internal
    assert found.refusal("Local") == external


def test_why_not_the_others() -> None:
    east, west = ready(0, **zone("east")), ready(1, **zone("west"))
    ending, gone, bad = draining(2), stopped(3), failing(4)

    found = select([east, west, ending, gone, bad], HERE)
    assert found.passed_over == {west: HINTED, ending: TERMINATING, gone: STOPPED, bad: NOT_READY}


@given(
    st.lists(
        st.builds(
            Endpoint,
            st.sampled_from(ADDRESSES),
            st.just(80),
            st.sampled_from(["node1", "node2", ""]),
            ready=st.booleans(),
            serving=st.booleans(),
            terminating=st.booleans(),
            zones=st.sampled_from([None, frozenset({"east"}), frozenset({"west"})]),
            nodes=st.sampled_from([None, frozenset({"node1"}), frozenset({"node2"})]),
        ),
        max_size=6,
        unique_by=lambda one: one.address,
    )
)
def test_what_is_always_so(endpoints: list[Endpoint]) -> None:
    found = select(endpoints, HERE)

    assert set(found.cluster) | set(found.passed_over) == set(endpoints)
    assert all(one.node == "node1" for one in found.local)
    for chosen, pool in (
        (found.cluster, endpoints),
        (found.local, [one for one in endpoints if one.node == "node1"]),
    ):
        assert bool(chosen) == any(one.ready or (one.serving and one.terminating) for one in pool)
        if any(one.ready for one in pool):
            assert all(one.ready for one in chosen)
