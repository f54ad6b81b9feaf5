# SPDX-License-Identifier: Apache-2.0
"""pycni/node/direct.py: who sends and takes packets without outer headers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.node import direct
from pycni.node.direct import (
    LINGER,
    accepts,
    is_wanted,
    lingers_until,
    overhead,
    routed_until,
)
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, ROUTED

NOW = 1_700_000_000.0
NODE = Node(
    "one", 1, ip_address("192.0.2.3"), (ip_network("10.244.0.0/24"),),
    (ip_network("10.244.0.0/16"),), "eth0", 1450, 4789,
)  # fmt: skip


def settings(encap: str, *, routed: bool = False) -> Settings:
    return Settings.model_validate(
        {"node_name": "one", "encap": encap, "routers_know_pods": routed}
    )


@pytest.mark.parametrize(
    ("encap", "wanted", "bytes_kept"),
    [("direct", True, 0), ("auto-direct", True, 50), ("auto", False, 50), ("kernel", False, 50)],
)
def test_only_direct_itself_leaves_no_room_for_vxlan(
    encap: str, wanted: bool, bytes_kept: int
) -> None:
    assert is_wanted(settings(encap)) is wanted
    assert overhead(settings(encap), 4) == bytes_kept


def test_a_nodes_record_says_it_only_while_it_sends_so_itself() -> None:
    assert accepts(replace(NODE, direct=True)) == (DIRECT,)
    assert accepts(replace(NODE, direct_until=NOW)) == ()
    assert accepts(replace(NODE, direct=True, routed=True)) == (DIRECT, ROUTED)
    assert accepts(replace(NODE, direct=True, routed_until=NOW)) == (DIRECT,)


def test_a_node_that_sends_no_more_takes_it_for_a_while() -> None:
    sent = replace(NODE, direct=True)
    until = lingers_until(settings("auto"), sent, NOW)
    assert until == NOW + LINGER

    lingers = replace(NODE, direct_until=until)
    assert lingers.takes_direct
    assert lingers_until(settings("auto"), lingers, NOW + 1) == until
    assert lingers_until(settings("auto"), lingers, until) == 0.0


def test_routers_stop_before_the_link_does() -> None:
    sent = replace(NODE, direct=True, routed=True)
    until = routed_until(settings("direct"), sent, NOW)
    assert until == NOW + LINGER
    assert lingers_until(settings("direct"), sent, NOW) == 0.0

    lingers = replace(NODE, direct=True, routed_until=until)
    assert lingers.takes_routed
    assert lingers.door_open_until == until
    assert replace(lingers, direct_until=until - 1).door_open_until == until - 1
    assert routed_until(settings("direct"), lingers, until) == 0.0
    assert routed_until(settings("direct", routed=True), lingers, NOW) == 0.0


@pytest.mark.parametrize("before", [None, NODE])
def test_a_node_that_never_sent_so_takes_nothing(before: Node | None) -> None:
    assert lingers_until(settings("auto"), before, NOW) == 0.0


def test_a_node_that_sends_so_again_takes_it_for_good() -> None:
    lingers = replace(NODE, direct_until=NOW + 1)

    assert lingers_until(settings(direct.ALL), lingers, NOW) == 0.0
