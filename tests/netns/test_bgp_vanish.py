# SPDX-License-Identifier: Apache-2.0
"""Nodes that know each other by BGP, with BFD: one comes, vanishes, and comes back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from pycni.lab.layout import NODE_UPLINK
from support import fabric
from support.fabric import Fabric
from support.flood import unanswered
from support.underlay import ip
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not fabric.is_there() and os.environ.get("CI") != "true",
    reason="no BIRD on this machine: apt-get install bird2",
)

Record = Callable[[str, object], None]
SOON = 8.0
"""Seconds: BFD takes half of one, the agents ask each second, and this machine has other work."""


@pytest.fixture(scope="module")
def made() -> Iterator[Fabric]:
    """Node three has no BIRD yet."""
    with fabric.fabric(bfd=True) as found:
        found.start_router(again=False)
        for node in found.nodes[:2]:
            found.start_bird(node)
        wait_until(lambda: all(len(found.next_hops(node)) == 1 for node in found.nodes[:2]),
                   "two nodes know each other")  # fmt: skip
        yield found


def answers(made: Fabric) -> bool:
    """Whether the pod of node three answers that of node one."""
    one, _, three = made.lab.layout.pods
    address = made.lab.addresses(three)
    return unanswered(made.lab, one.netns, address, count=1) == []


def until_it_answers(made: Fabric) -> float:
    began = time.monotonic()
    wait_until(lambda: answers(made), "node three's pod answers")
    return time.monotonic() - began


def test_a_node_that_joins_is_reached(made: Fabric, record_property: Record) -> None:
    assert not answers(made)

    made.start_bird(made.nodes[2])
    seconds = until_it_answers(made)

    record_property("joined", f"{seconds:.1f} s")


def test_a_node_that_vanishes_is_forgotten_and_found_again(
    made: Fabric, record_property: Record
) -> None:
    one, two, three = made.nodes
    wait_until(lambda: all(map(made.is_up, made.nodes)), "all sessions are up")
    time.sleep(4)  # BIRD's tables are taken for complete
    began = time.monotonic()
    ip(three.netns, "link", "set", NODE_UPLINK, "down")
    try:
        wait_until(lambda: len(made.next_hops(one)) == 1, "it is forgotten")
        forgotten = time.monotonic() - began
        assert unanswered(made.lab, made.lab.layout.pods[0].netns,
                          made.lab.addresses(made.lab.layout.pods[1])) == []  # fmt: skip
    finally:
        ip(three.netns, "link", "set", NODE_UPLINK, "up")
        ip(three.netns, "route", "replace", "default", "via", fabric.FAR_ROUTER,
           "dev", NODE_UPLINK)  # fmt: skip
    back = until_it_answers(made)

    record_property("vanished", f"forgotten {forgotten:.1f} s, back {back:.1f} s")
    assert forgotten < SOON
    assert len(made.next_hops(two)) == 2


def test_with_bfd_a_killed_bird_cuts_its_node_off_until_it_is_back(made: Fabric) -> None:
    """As docs/bgp.md says: who hears no more takes it for dead."""
    one, _, three = made.nodes
    wait_until(lambda: all(map(made.is_up, made.nodes)), "all sessions are up")
    made.stop_bird(three.name, kill=True)
    wait_until(lambda: len(made.next_hops(one)) == 1, "it is forgotten")

    made.start_bird(three)
    until_it_answers(made)
