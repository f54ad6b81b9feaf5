# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/learned.py and trust.py: what BGP says is believed, or told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.bgp import learned
from pycni.bgp.answers import Route, Session
from pycni.bgp.config import MARK, RESTART_TIME
from pycni.bgp.neighbours import mark
from pycni.bgp.trust import SETTLING, Trust
from pycni.stores import DIRECT, ROUTED
from unit.bgp.samples import NODE, ROUTER, SETTINGS, VTEP

ASN = 64512
TWO = ip_address("198.18.0.2")
CIDR_TWO, CIDR_THREE = ip_network("10.244.2.0/24"), ip_network("10.244.3.0/24")
V6_TWO = ip_network("fd00:10:244:2::/64")
ROUTE = Route(CIDR_TWO, "peer", True, TWO, "", (f"{ASN}:{MARK}:2",))
UP = Session("peer", "198.18.0.254", "64999", "Established", "now")
DOWN = replace(UP, state="Active")


def learn(*routes: Route) -> learned.Learned:
    return learned.learn(routes, NODE, SETTINGS.cluster, asn=ASN)


def problems(*routes: Route) -> list[str]:
    return [f"{one.thing} is {one.found}" for one in learn(*routes).problems]


def test_a_pod_cidr_is_behind_its_next_hop():
    found = learn(ROUTE, replace(ROUTE, prefix=CIDR_THREE, next_hop=ROUTER))

    assert found.behind == {CIDR_TWO: TWO, CIDR_THREE: ROUTER}
    assert found.problems == ()


@pytest.mark.parametrize(
    "network", ["10.244.2.0/25", "10.244.0.0/16", "203.0.113.0/24", "0.0.0.0/0", "10.244.2.7/32"]
)
def test_what_is_no_pod_cidr_is_passed_over(network):
    assert learn(replace(ROUTE, prefix=ip_network(network))).behind == {}


@pytest.mark.parametrize(
    ("next_hop", "why"),
    [
        ("127.0.0.1", "no address that this node can send to"),
        ("fd00::2", "of another IP version than this node's VTEP"),
        (str(VTEP), "is this node"),
        ("10.244.9.9", "an address of the pods"),
    ],
)
def test_a_next_hop_that_nobody_can_send_to_is_told(next_hop, why):
    route = replace(ROUTE, next_hop=ip_address(next_hop))

    assert learn(route).behind == {}
    assert why in problems(route)[0]


def test_of_two_routes_the_best_counts():
    second = replace(ROUTE, is_best=False, next_hop=ROUTER)

    assert learn(second, ROUTE).behind == {CIDR_TWO: TWO}
    assert problems(second, ROUTE) == []  # two ways to one node


def test_two_announcers_of_one_network_are_a_problem_and_the_best_is_used():
    stranger = replace(ROUTE, is_best=False, next_hop=ROUTER, communities=())

    assert learn(ROUTE, stranger).behind == {CIDR_TWO: TWO}
    assert problems(ROUTE, stranger) == [
        f"the network {CIDR_TWO} is announced by 2 nodes, at {TWO} (peer) and {ROUTER} (peer)"
    ]


def test_another_announcer_of_this_nodes_network_is_a_problem():
    foreign = replace(ROUTE, prefix=NODE.pod_cidrs[0], is_best=False)

    assert learn(foreign).behind == {}
    assert problems(foreign) == [
        f"this node's network {NODE.pod_cidrs[0]} is announced by another, too, at {TWO} "
        "(session peer)"
    ]


def test_what_this_node_said_itself_may_come_back():
    own = f"{ASN}:{MARK}:{mark(NODE.name, NODE.vtep)}"

    assert problems(replace(ROUTE, prefix=NODE.pod_cidrs[0], communities=(own,))) == []


def test_a_record_is_made_for_each_next_hop():
    behind = {CIDR_THREE: ROUTER, V6_TWO: ROUTER, CIDR_TWO: ROUTER}

    (record,) = learned.records(behind)

    assert (record.name, record.vtep) == ("bgp-198-18-0-254", ROUTER)
    assert (record.pod_cidrs, record.blocks) == ((CIDR_TWO, V6_TWO), (CIDR_THREE,))
    assert record.accepts == (DIRECT, ROUTED)
    assert record.node_id == int(ROUTER)
    assert learned.behind_of([record]) == behind


def test_records_behind_ipv6_next_hops_have_names_and_ids():
    one, two = learned.records({CIDR_TWO: ip_address("fd00::"), CIDR_THREE: ip_address("fd00::2")})

    assert one.node_id != two.node_id
    assert one.name == "bgp-fd00-0000-0000-0000-0000-0000-0000-0000"


def test_nothing_is_forgotten_before_all_sessions_have_been_up_for_a_while():
    trust = Trust()

    assert not trust.is_complete([UP, DOWN], "boot", 0)
    assert not trust.is_complete([UP], "boot", 1)
    assert not trust.is_complete([UP], "boot", 1 + SETTLING / 2)
    assert trust.is_complete([UP], "boot", 1 + SETTLING)


def test_a_session_that_ends_later_changes_nothing():
    trust = Trust()
    trust.is_complete([UP], "boot", 0)
    trust.is_complete([UP], "boot", SETTLING)

    assert trust.is_complete([DOWN], "boot", SETTLING + 1)


def test_a_bird_that_was_started_again_begins_anew():
    trust = Trust()
    trust.is_complete([UP], "boot", 0)
    trust.is_complete([UP], "boot", SETTLING)

    assert not trust.is_complete([UP], "another boot", SETTLING + 1)


def test_a_bird_that_did_not_answer_begins_anew():
    trust = Trust()
    trust.is_complete([UP], "boot", 0)
    trust.is_complete([UP], "boot", SETTLING)
    trust.lost()

    assert not trust.is_complete([UP], "boot", SETTLING + 1)


def test_a_speaker_that_stays_away_is_not_waited_for_for_ever():
    trust = Trust()
    trust.is_complete([DOWN], "boot", 0)

    assert not trust.is_complete([DOWN], "boot", RESTART_TIME - 1)
    assert trust.is_complete([DOWN], "boot", RESTART_TIME)
