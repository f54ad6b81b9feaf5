# SPDX-License-Identifier: Apache-2.0
"""pycni/node/ipip.py: who sends and takes IPIP."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.node import ipip
from pycni.node.direct import LINGER
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import IPIP

NOW = 1_700_000_000.0
NODE = Node(
    "one", 1, ip_address("192.0.2.3"), (ip_network("10.244.0.0/24"),),
    (ip_network("10.244.0.0/16"),), "eth0", 1480, 4789,
)  # fmt: skip


def settings(encap: str) -> Settings:
    return Settings.model_validate({"node_name": "one", "encap": encap})


@pytest.mark.parametrize(("encap", "wanted"), [("ipip", True), ("direct", False), ("auto", False)])
def test_only_its_own_setting_wants_it(encap: str, wanted: bool) -> None:
    assert ipip.is_wanted(settings(encap)) is wanted


def test_the_header_is_that_of_one_ip_version() -> None:
    assert [ipip.overhead(version) for version in (4, 6)] == [20, 40]


def test_a_nodes_record_says_it_only_while_it_sends_so_itself() -> None:
    assert ipip.accepts(replace(NODE, ipip=True)) == (IPIP,)
    assert ipip.accepts(replace(NODE, ipip_until=NOW)) == ()


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
    lingers = replace(NODE, ipip_until=2.0)
    assert lingers.takes_ipip
    assert lingers.door_open_until == 2.0
    assert replace(lingers, direct_until=1.0).door_open_until == 1.0
