# SPDX-License-Identifier: Apache-2.0
"""pycni/node/direct.py: which nodes get packets without outer headers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.kernel.fib import Path
from pycni.kernel.links import IFF_RUNNING, IFF_UP, Link
from pycni.node import direct
from pycni.node.direct import (
    LINGER,
    Scope,
    accepts,
    chosen,
    is_wanted,
    lingers_until,
    overhead,
    routed_until,
    scopes,
    still_accepts,
)
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, ROUTED, NodeRecord

NOW = 1_700_000_000.0
UPLINK = Link(2, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:02", mtu=1500)
NO_ETHERNET = Link(3, IFF_UP | IFF_RUNNING, mac="", mtu=1420, hardware=768)
NEAR, FAR, OVER_TUNNEL = (ip_address(f"192.0.2.{number}") for number in (7, 8, 9))
GATEWAY = ip_address("192.0.2.1")
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


def test_only_nodes_that_say_so_take_it() -> None:
    old = NodeRecord("two", 2, NEAR, ())
    new = replace(old, name="three", vtep=FAR, accepts=(DIRECT,))
    routed = replace(old, name="four", vtep=OVER_TUNNEL, accepts=(DIRECT, ROUTED))
    others = [old, new, routed]
    on_links, everywhere = replace(NODE, direct=True), replace(NODE, direct=True, routed=True)

    assert set(scopes(NODE, others).values()) == {Scope.NOWHERE}
    assert scopes(on_links, others) == {
        NEAR: Scope.NOWHERE,
        FAR: Scope.LINK,
        OVER_TUNNEL: Scope.LINK,
    }
    assert scopes(everywhere, others) == {
        NEAR: Scope.NOWHERE,
        FAR: Scope.LINK,
        OVER_TUNNEL: Scope.ROUTERS,
    }


def test_a_nodes_record_says_it_only_while_it_sends_so_itself() -> None:
    assert accepts(replace(NODE, direct=True)) == (DIRECT,)
    assert accepts(replace(NODE, direct_until=NOW)) == ()
    assert accepts(replace(NODE, direct=True, routed=True)) == (DIRECT, ROUTED)
    assert accepts(replace(NODE, direct=True, routed_until=NOW)) == (DIRECT,)


def test_before_a_change_it_says_what_it_takes_before_and_after() -> None:
    both = (DIRECT, ROUTED)
    assert still_accepts(settings("auto", routed=True), both) == ()
    assert still_accepts(settings("direct"), both) == (DIRECT,)
    assert still_accepts(settings("direct", routed=True), both) == both
    assert still_accepts(settings("direct", routed=True), ()) == ()


def test_only_nodes_on_one_link_get_it() -> None:
    paths = {NEAR: Path(2, NEAR, 0), FAR: Path(2, GATEWAY, 0), OVER_TUNNEL: Path(3, OVER_TUNNEL, 0)}
    links = {2: UPLINK, 3: NO_ETHERNET}

    assert chosen(dict.fromkeys([*paths, GATEWAY], Scope.LINK), paths, links) == {NEAR}
    assert chosen(dict.fromkeys([*paths, GATEWAY], Scope.ROUTERS), paths, links) == {NEAR, FAR}
    assert chosen(dict.fromkeys(paths, Scope.NOWHERE), paths, links) == set()
    assert chosen({NEAR: Scope.ROUTERS}, paths, {}) == set()


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
