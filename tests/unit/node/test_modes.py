# SPDX-License-Identifier: Apache-2.0
"""pycni/node/modes.py: how packets leave to each other node."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.dataplane.maps import NextHop, Vtep
from pycni.kernel.fib import Path
from pycni.kernel.links import IFF_RUNNING, IFF_UP, Link
from pycni.node import modes
from pycni.node.modes import Mode
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, IPIP, ROUTED, NodeRecord

UPLINK = Link(2, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:02", mtu=1500)
NO_ETHERNET = Link(3, IFF_UP | IFF_RUNNING, mac="", mtu=1420, hardware=768)
LINKS = {2: UPLINK, 3: NO_ETHERNET}
NEAR, FAR, TUNNELLED = (ip_address(f"192.0.2.{number}") for number in (7, 8, 9))
GATEWAY = ip_address("192.0.2.1")
PATHS = {NEAR: Path(2, NEAR, 0), FAR: Path(2, GATEWAY, 0), TUNNELLED: Path(3, TUNNELLED, 0)}
NODE = Node(
    "one", 1, ip_address("192.0.2.3"), (ip_network("10.244.0.0/24"),),
    (ip_network("10.244.0.0/16"),), "eth0", 1450, 4789,
)  # fmt: skip
SENDS_VXLAN, SENDS_IPIP = NODE, replace(NODE, ipip=True)
SENDS_DIRECT, SENDS_ROUTED = replace(NODE, direct=True), replace(NODE, direct=True, routed=True)
EVERYTHING = (DIRECT, ROUTED, IPIP)


def settings(encap: str, *, routed: bool = False) -> Settings:
    return Settings.model_validate(
        {"node_name": "one", "encap": encap, "routers_know_pods": routed}
    )


@pytest.mark.parametrize(
    ("node", "accepts", "mode"),
    [
        (SENDS_VXLAN, EVERYTHING, Mode.VXLAN),
        (SENDS_DIRECT, (), Mode.VXLAN),
        (SENDS_DIRECT, (IPIP,), Mode.VXLAN),
        (SENDS_DIRECT, (DIRECT,), Mode.DIRECT),
        (SENDS_DIRECT, EVERYTHING, Mode.DIRECT),
        (SENDS_ROUTED, (DIRECT, IPIP), Mode.DIRECT),
        (SENDS_ROUTED, (ROUTED,), Mode.VXLAN),
        (SENDS_ROUTED, EVERYTHING, Mode.ROUTED),
        (SENDS_IPIP, (DIRECT, ROUTED), Mode.VXLAN),
        (SENDS_IPIP, EVERYTHING, Mode.IPIP),
    ],
)
def test_the_sender_chooses_among_what_the_other_takes(
    node: Node, accepts: tuple[str, ...], mode: Mode
) -> None:
    other = NodeRecord("two", 2, NEAR, (), accepts=accepts)

    assert modes.towards(node, accepts) is mode
    assert modes.towards_all(node, [other]) == {NEAR: mode}


def test_a_node_that_takes_for_a_while_sends_vxlan() -> None:
    lingers = replace(NODE, direct_until=1.0, routed_until=1.0, ipip_until=1.0)

    assert modes.towards(lingers, EVERYTHING) is Mode.VXLAN
    assert modes.accepts(lingers) == ()


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (Mode.VXLAN, {}),
        (Mode.DIRECT, {NEAR: Mode.DIRECT}),
        (Mode.ROUTED, {NEAR: Mode.DIRECT, FAR: Mode.DIRECT}),
        (Mode.IPIP, {NEAR: Mode.IPIP, FAR: Mode.IPIP}),
    ],
)
def test_the_path_decides_how_far_a_mode_goes(mode: Mode, found: dict[object, Mode]) -> None:
    wanted = dict.fromkeys([*PATHS, GATEWAY], mode)

    assert modes.chosen(wanted, PATHS, LINKS) == found
    assert modes.chosen(wanted, PATHS, {}) == {}


@pytest.mark.parametrize(
    ("encap", "version", "kept"),
    [("ipip", 4, 20), ("ipip", 6, 40), ("direct", 4, 0), ("auto-direct", 4, 50), ("auto", 6, 70)],
)
def test_each_setting_leaves_room_for_its_headers(encap: str, version: int, kept: int) -> None:
    assert modes.overhead(settings(encap), version) == kept


@pytest.mark.parametrize(("mode", "size"), [(Mode.VXLAN, 50), (Mode.DIRECT, 0), (Mode.IPIP, 20)])
def test_each_mode_has_its_header(mode: Mode, size: int) -> None:
    hop = NextHop(2, 1500 - size, UPLINK.mac, UPLINK.mac, on_link=True,
                  direct=mode is Mode.DIRECT, ipip=mode is Mode.IPIP)  # fmt: skip

    assert modes.leaves(hop) is mode
    assert modes.header(mode, 4) == size


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (SENDS_VXLAN, ()),
        (SENDS_DIRECT, (DIRECT,)),
        (SENDS_ROUTED, (DIRECT, ROUTED)),
        (SENDS_IPIP, (IPIP,)),
    ],
)
def test_a_record_has_the_words_of_what_is_sent(node: Node, words: tuple[str, ...]) -> None:
    known = Vtep(2, direct=DIRECT in words, routed=ROUTED in words, ipip=IPIP in words)

    assert modes.accepts(node) == words
    assert modes.accepted(known) == words


@pytest.mark.parametrize(
    ("encap", "routed", "stays"),
    [
        ("ipip", True, (IPIP,)),
        ("direct", False, (DIRECT,)),
        ("auto-direct", True, (DIRECT, ROUTED)),
        ("auto", True, ()),
    ],
)
def test_before_a_setup_nothing_is_promised_that_it_ends(
    encap: str, routed: bool, stays: tuple[str, ...]
) -> None:
    wanted = settings(encap, routed=routed)

    assert modes.still_accepts(wanted, (*EVERYTHING, "later")) == stays
    assert modes.still_accepts(wanted, ()) == ()
