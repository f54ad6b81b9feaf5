# SPDX-License-Identifier: Apache-2.0
"""Nodes of one store, and a router between them that knows pods by BGP: packets need no VXLAN."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pycni.lab import cluster
from pycni.lab.processes import run
from pycni.node import next_hops
from pycni.settings import load
from support import fabric
from support.fabric import FAR_NODE, Fabric
from support.flood import unanswered
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not fabric.is_there() and os.environ.get("CI") != "true",
    reason="no BIRD on this machine: apt-get install bird2",
)


@pytest.fixture(scope="module")
def made() -> Iterator[Fabric]:
    with fabric.fabric(shared=True) as found:
        cluster.wait_for_members(found.lab)
        found.start_router(again=False)
        for node in found.nodes:
            found.start_bird(node)
        wait_until(lambda: all(map(found.is_up, found.nodes)), "all sessions are up")
        yield found


def by_router(made: Fabric) -> set[str]:
    """Networks to which the router's kernel has routes by BIRD, and to whom."""
    command = ["ip", "route", "show", "proto", "bird"]
    lines = run(made.lab.layout.underlay_netns, command).stdout.decode().splitlines()
    return {" ".join(line.split()[:3]) for line in lines}


def test_the_router_has_a_route_to_each_nodes_pods(made: Fabric) -> None:
    wait_until(lambda: len(by_router(made)) == 3, "the router knows three nodes")

    found = {text.split()[2] for text in by_router(made)}
    assert found == {made.vtep(node) for node in made.nodes}


def test_packets_by_the_router_need_no_vxlan(made: Fabric) -> None:
    one, _, three = made.lab.layout.pods
    settings = load(made.nodes[0].settings_path)

    def leaves() -> str:
        return {str(vtep): mode for vtep, mode in next_hops.modes(settings).items()}[FAR_NODE]

    wait_until(lambda: leaves() == "direct", "packets leave without VXLAN")
    assert unanswered(made.lab, one.netns, made.lab.addresses(three)) == []
    assert unanswered(made.lab, three.netns, made.lab.addresses(one)) == []


def test_nothing_is_learnt_from_it(made: Fabric) -> None:
    for node in made.nodes:
        heard = made.lab.pycni(node, "bgp", "routes")
        assert [row for row in heard if row["direction"] == "received"] == []
        assert made.status(node, "bgp")[0]["state"] == "ok"
