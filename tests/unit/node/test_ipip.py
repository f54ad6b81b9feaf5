# SPDX-License-Identifier: Apache-2.0
"""pycni/node/ipip.py and ways.py: which nodes get IPIP, and what a record says of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.kernel.fib import Path
from pycni.kernel.links import IFF_RUNNING, IFF_UP, Link
from pycni.node import ipip, ways
from pycni.node.direct import LINGER
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, IPIP, NodeRecord

NOW = 1_700_000_000.0
UPLINK = Link(2, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:02", mtu=1500)
NO_ETHERNET = Link(3, IFF_UP | IFF_RUNNING, mac="", mtu=1420, hardware=768)
NEAR, FAR, TUNNELLED = (ip_address(f"192.0.2.{number}") for number in (7, 8, 9))
GATEWAY = ip_address("192.0.2.1")
NODE = Node(
    "one", 1, ip_address("192.0.2.3"), (ip_network("10.244.0.0/24"),),
    (ip_network("10.244.0.0/16"),), "eth0", 1480, 4789,
)  # fmt: skip


def settings(encap: str) -> Settings:
    return Settings.model_validate({"node_name": "one", "encap": encap})


@pytest.mark.parametrize(
    ("encap", "version", "kept"),
    [("ipip", 4, 20), ("ipip", 6, 40), ("direct", 4, 0), ("auto-direct", 4, 50), ("auto", 6, 70)],
)
def test_each_way_leaves_room_for_its_headers(encap: str, version: int, kept: int) -> None:
    assert ways.overhead(settings(encap), version) == kept


def test_a_nodes_record_says_it_only_while_it_sends_so_itself() -> None:
    assert ways.accepts(replace(NODE, ipip=True)) == (IPIP,)
    assert ways.accepts(replace(NODE, direct=True)) == (DIRECT,)
    assert ways.accepts(replace(NODE, ipip_until=NOW)) == ()


@pytest.mark.parametrize(
    ("encap", "stays"), [("ipip", (IPIP,)), ("direct", (DIRECT,)), ("auto", ())]
)
def test_before_a_setup_nothing_is_promised_that_it_ends(
    encap: str, stays: tuple[str, ...]
) -> None:
    assert ways.still_accepts(settings(encap), (DIRECT, IPIP, "later")) == stays


def test_nodes_that_take_it_get_it_by_a_router_too_but_not_without_ethernet() -> None:
    paths = {NEAR: Path(2, NEAR, 0), FAR: Path(2, GATEWAY, 0), TUNNELLED: Path(3, TUNNELLED, 0)}
    links = {2: UPLINK, 3: NO_ETHERNET}
    old = NodeRecord("two", 2, NEAR, (), accepts=(DIRECT,))
    new = [
        NodeRecord("three", 3, FAR, (), accepts=(IPIP,)),
        NodeRecord("four", 4, TUNNELLED, (), accepts=(IPIP,)),
        NodeRecord("five", 5, GATEWAY, (), accepts=(IPIP,)),
    ]

    assert ipip.chosen(ipip.takers([old, *new]), paths, links) == {FAR}


@pytest.mark.parametrize(
    ("encap", "before", "until"),
    [
        ("auto", None, 0.0),
        ("auto", NODE, 0.0),
        ("auto", replace(NODE, ipip=True), NOW + LINGER),
        ("direct", replace(NODE, ipip=True), NOW + LINGER),
        ("auto", replace(NODE, ipip_until=NOW + 7), NOW + 7),
        ("auto", replace(NODE, ipip_until=NOW - 1), 0.0),
        ("ipip", replace(NODE, ipip=True), 0.0),
        ("ipip", replace(NODE, ipip_until=NOW + 7), 0.0),
    ],
)
def test_what_is_sent_no_more_is_taken_for_a_while(
    encap: str, before: Node | None, until: float
) -> None:
    assert ipip.lingers_until(settings(encap), before, NOW) == until


def test_programs_take_it_until_that_is_over() -> None:
    assert not NODE.takes_ipip
    assert replace(NODE, ipip=True).takes_ipip
    assert replace(NODE, ipip_until=1.0).takes_ipip
