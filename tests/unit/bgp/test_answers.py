# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/answers.py: sessions and routes, by codes and fields."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pycni.bgp import answers
from pycni.bgp.bird import Line
from unit.bgp.samples import ROUTES, SESSIONS, lines


def test_only_sessions_are_sessions():
    up, down = answers.sessions(lines(SESSIONS))

    assert (up.name, up.neighbour, up.asn, up.state) == ("b1", "198.18.0.2", "64512", "Established")
    assert (up.is_up, up.tells, up.error) == (True, True, "")
    assert (down.is_up, down.tells, down.error) == (False, False, "Socket: Connection refused")
    assert down.neighbour == "fd00::2"


def test_a_second_route_to_one_network_is_a_route_to_it():
    own, second, _, _ = answers.routes(lines(ROUTES))

    assert (own.prefix, own.protocol, own.next_hop) == (ip_network("10.244.1.0/24"), "own4", None)
    assert (second.prefix, second.is_best) == (own.prefix, False)
    assert (second.next_hop, second.as_path) == (ip_address("198.18.0.254"), "64999 64512")


def test_communities_of_both_kinds_have_one_form():
    _, _, route, _ = answers.routes(lines(ROUTES))

    assert route.communities == ("64512:100", "64512:7079:2")
    assert route.is_best


def test_of_two_next_hops_the_link_local_one_is_left():
    *_, route = answers.routes(lines(ROUTES))

    assert route.next_hop == ip_address("fd00::2")


def test_an_ipv4_next_hop_of_an_ipv6_route_is_one():
    mapped = ROUTES.replace("fd00::2 fe80::2", "::ffff:198.18.0.2")

    *_, route = answers.routes(lines(mapped))

    assert route.next_hop == ip_address("198.18.0.2")


@pytest.mark.parametrize("answer", ["0000 ", "1007-Table master4:\n0000 ", "0014 0 of 0 routes"])
def test_an_answer_without_routes_has_none(answer):
    assert list(answers.routes(lines(answer))) == []


def test_the_start_of_bird_is_one_line_of_its_status():
    said = [Line(1011, "Router ID is 1.2.3.4"), Line(1011, "Last reboot on 2026-11-29 23:46:12")]

    assert answers.boot(said) == "Last reboot on 2026-11-29 23:46:12"
    assert answers.boot([]) == ""
