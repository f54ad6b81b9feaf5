# SPDX-License-Identifier: Apache-2.0
"""pycni/node/uplink.py: which interface and which address, from what the kernel shows."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel.addresses import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_SECONDARY,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    Address,
)
from pycni.kernel.routes import Route
from pycni.node.uplink import Uplink, Wish, choose
from unit.node.around import DUMMY, ETH0, ETH1, LO, WIREGUARD, around, held, route, way

FIRST = held(ETH0, "192.0.2.1/24")
SECOND = held(ETH1, "198.51.100.1/24")
FIRST6 = held(ETH0, "2001:db8::1/64")
SECOND6 = held(ETH1, "2001:db8:1::1/64")
ON_LO = held(LO, "203.0.113.1/32")
ON_LO6 = held(LO, "2001:db8:9::1/128")
VIP = held(ETH0, "192.0.2.77/32")
LOOPBACK = held(LO, "127.0.0.1/8", is_global=False)
TUNNEL = held(WIREGUARD, "203.0.113.99/24")

ROUTER, ROUTER1, ROUTER6 = "192.0.2.254", "198.51.100.254", "fe80::1"
DEFAULT = route("default", way(ETH0, ROUTER))
OTHER = ip_address("192.0.2.2")
ANY = Wish()
"""The settings name nothing, and nothing is registered."""


def chosen(
    addresses: list[Address],
    routes: list[Route],
    wish: Wish = ANY,
    others: list[IPAddress] | None = None,
) -> tuple[str, str, int]:
    found: Uplink = choose(around(addresses, routes), wish, others=others or [])
    return found.ifname, str(found.vtep), found.mtu


@pytest.mark.parametrize(
    ("addresses", "routes", "expected"),
    [
        pytest.param([FIRST, SECOND], [DEFAULT], ("eth0", "192.0.2.1", 1500), id="default route"),
        pytest.param(
            [FIRST, SECOND],
            [route("default", way(ETH1, ROUTER1), way(ETH0, ROUTER))],
            ("eth1", "198.51.100.1", 9000),
            id="the first of several next hops",
        ),
        pytest.param(
            [FIRST, SECOND],
            [route("default", way(ETH1, ROUTER1, is_dead=True), way(ETH0, ROUTER))],
            ("eth0", "192.0.2.1", 1500),
            id="the first next hop that is not dead",
        ),
        pytest.param(
            [FIRST, SECOND],
            [
                route("default", way(ETH1, ROUTER1), metric=500),
                route("default", way(ETH0, ROUTER), metric=100),
            ],
            ("eth0", "192.0.2.1", 1500),
            id="the lowest metric, listed last",
        ),
        pytest.param(
            [FIRST, SECOND],
            [
                route("default", way(ETH1, ROUTER1), metric=100),
                route("default", way(ETH0, ROUTER)),
            ],
            ("eth0", "192.0.2.1", 1500),
            id="no metric is the lowest",
        ),
        pytest.param(
            [FIRST6, SECOND],
            [route("default6", way(ETH0, ROUTER6))],
            ("eth0", "2001:db8::1", 1500),
            id="no IPv4 default route",
        ),
        pytest.param(
            [FIRST, FIRST6, SECOND6],
            [DEFAULT, route("default6", way(ETH1, ROUTER6))],
            ("eth0", "192.0.2.1", 1500),
            id="IPv4 before IPv6",
        ),
        pytest.param(
            [LOOPBACK, ON_LO],
            [route("default", way(ETH0, ROUTER6), way(ETH1, ROUTER6))],
            ("eth0", "203.0.113.1", 1500),
            id="BGP on the host: the address is on lo, the smaller MTU counts",
        ),
        pytest.param(
            [FIRST, ON_LO],
            [route("default", way(ETH0, ROUTER), source="203.0.113.1")],
            ("eth0", "203.0.113.1", 1500),
            id="the source that the default route names",
        ),
        pytest.param(
            [held(DUMMY, "203.0.113.8/32"), FIRST6],
            [route("default", way(ETH1, ROUTER6))],
            ("eth1", "203.0.113.8", 9000),
            id="the address is on a dummy",
        ),
    ],
)
def test_a_new_node_takes_the_way_to_the_world(
    addresses: list[Address], routes: list[Route], expected: tuple[str, str, int]
) -> None:
    assert chosen(addresses, routes) == expected


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (held(ETH0, "192.0.2.9/24", IFA_F_TENTATIVE), "tentative"),
        (held(ETH0, "192.0.2.9/24", IFA_F_DADFAILED), "failed"),
        (held(ETH0, "192.0.2.9/24", IFA_F_DEPRECATED), "deprecated"),
        (held(ETH0, "2001:db8::9/64", IFA_F_TEMPORARY), "temporary"),
        (held(ETH0, "2001:db8::9/64", IFA_F_TENTATIVE | IFA_F_DADFAILED), "failed"),
        (held(ETH0, "169.254.1.9/16"), "not reachable"),
    ],
)
def test_an_address_that_may_go_is_not_chosen(bad: Address, why: str) -> None:
    assert chosen([bad, FIRST], [DEFAULT])[1] == "192.0.2.1"
    assert chosen([bad, FIRST6], [DEFAULT])[1] == "2001:db8::1"

    with pytest.raises(SetupError, match="no global address that can be the VTEP") as caught:
        chosen([bad], [DEFAULT])
    assert why in caught.value.details


def test_a_secondary_address_of_ipv4_is_no_temporary_one() -> None:
    assert chosen([held(ETH0, "192.0.2.9/24", IFA_F_SECONDARY)], [DEFAULT])[1] == "192.0.2.9"


def test_a_virtual_address_waits_for_all_others() -> None:
    second = held(ETH0, "192.0.2.9/24", IFA_F_SECONDARY)

    assert chosen([VIP, second, FIRST], [DEFAULT])[1] == "192.0.2.1"
    assert chosen([VIP, second], [DEFAULT])[1] == "192.0.2.9"
    assert chosen([VIP], [DEFAULT])[1] == "192.0.2.77"


@pytest.mark.parametrize("registered", [SECOND, VIP, ON_LO, FIRST6, SECOND6])
def test_the_registered_address_stays_while_it_is_there(registered: Address) -> None:
    addresses = [FIRST, SECOND, VIP, ON_LO, FIRST6, SECOND6]

    assert chosen(addresses, [DEFAULT], Wish(registered=registered.ip))[1] == str(registered.ip)


def test_it_stays_without_a_default_route_and_when_it_is_deprecated_or_checked_again() -> None:
    for flags in (0, IFA_F_DEPRECATED, IFA_F_TENTATIVE):
        registered = held(ETH1, "198.51.100.1/24", flags)
        wish = Wish(registered=registered.ip)

        assert chosen([FIRST, registered], [], wish) == ("eth1", "198.51.100.1", 9000)


def test_it_does_not_stay_where_another_machine_has_it() -> None:
    registered = held(ETH0, "192.0.2.9/24", IFA_F_DADFAILED)

    assert chosen([registered, FIRST], [DEFAULT], Wish(registered=registered.ip))[1] == "192.0.2.1"


def test_a_node_whose_address_is_gone_keeps_to_its_ip_version() -> None:
    wish = Wish(registered=ip_address("2001:db8::99"))

    assert chosen([FIRST, FIRST6], [DEFAULT], wish)[1] == "2001:db8::1"
    assert chosen([FIRST], [DEFAULT], wish)[1] == "192.0.2.1"


def test_the_settings_go_before_what_is_registered() -> None:
    addresses = [FIRST, SECOND, ON_LO, TUNNEL]
    registered = FIRST.ip

    named = chosen(addresses, [DEFAULT], Wish("eth1", registered=registered))
    tunnel = chosen(addresses, [DEFAULT], Wish("wg0", registered=registered))
    given = chosen(addresses, [DEFAULT], Wish(vtep=SECOND.ip, registered=registered))
    both = chosen(addresses, [DEFAULT], Wish("eth1", ON_LO.ip, registered))

    assert named == ("eth1", "198.51.100.1", 9000)
    assert tunnel == ("wg0", "203.0.113.99", 1420)
    assert given == ("eth1", "198.51.100.1", 9000)
    assert both == ("eth1", "203.0.113.1", 1500)  # packets to the world leave by eth0


def test_the_mtu_is_that_of_every_way_to_other_nodes() -> None:
    far = [ip_address("10.9.0.2"), ip_address("10.9.1.2")]
    routes = [
        DEFAULT,
        route("192.0.2.0/24", way(ETH0)),
        route("10.9.0.0/16", way(WIREGUARD)),
        route("10.9.1.0/24", way(ETH1, ROUTER1)),
    ]

    assert chosen([FIRST], routes, others=[OTHER]) == ("eth0", "192.0.2.1", 1500)
    assert chosen([FIRST], routes, others=[OTHER, far[1]]) == ("eth0", "192.0.2.1", 1500)
    assert chosen([FIRST], routes, others=far) == ("eth0", "192.0.2.1", 1420)
    assert chosen([SECOND], routes, Wish("eth1"), [far[1]]) == ("eth1", "198.51.100.1", 9000)


def test_an_address_on_lo_leaves_by_the_routes_to_other_nodes() -> None:
    routes = [DEFAULT, route("198.51.100.0/24", way(ETH1)), route("203.0.113.2/32", way(WIREGUARD))]
    wish = Wish(vtep=ON_LO.ip)

    assert chosen([FIRST, ON_LO], routes, wish) == ("eth0", "203.0.113.1", 1500)
    others = [ip_address("198.51.100.2")]
    assert chosen([FIRST, ON_LO], routes, wish, others) == ("eth1", "203.0.113.1", 9000)
    others.append(ip_address("203.0.113.2"))
    assert chosen([FIRST, ON_LO], routes, wish, others) == ("eth1", "203.0.113.1", 1420)


def test_an_ipv6_address_on_lo_leaves_by_the_ipv6_default_route() -> None:
    routes = [DEFAULT, route("default6", way(ETH1, ROUTER6), metric=1024)]

    assert chosen([FIRST, ON_LO6], routes, Wish(vtep=ON_LO6.ip)) == ("eth1", "2001:db8:9::1", 9000)


@pytest.mark.parametrize(
    ("addresses", "routes", "wish", "message", "details"),
    [
        ([FIRST], [], Wish(), "no default route", ""),
        ([FIRST], [DEFAULT], Wish("eth9"), "no interface eth9", ""),
        ([FIRST], [DEFAULT], Wish(vtep=OTHER), "no interface of this node has the address", ""),
        ([], [DEFAULT], Wish(), "eth0 has no global address", ""),
        (
            [FIRST, SECOND],
            [DEFAULT],
            Wish("eth0", SECOND.ip),
            "198.51.100.1 is not an address of the uplink eth0",
            "it is one of eth1; eth0 has 192.0.2.1",
        ),
        (
            [SECOND],
            [DEFAULT],
            Wish("eth0", SECOND.ip),
            "is not an address of the uplink eth0",
            "eth0 has none",
        ),
        (
            [held(ETH0, "192.0.2.1/24", IFA_F_DADFAILED)],
            [DEFAULT],
            Wish(vtep=FIRST.ip),
            "192.0.2.1 of eth0 cannot be used: taken by another machine",
            "",
        ),
        ([ON_LO], [], Wish(vtep=ON_LO.ip), "no route tells by which interface", ""),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    addresses: list[Address], routes: list[Route], wish: Wish, message: str, details: str
) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        chosen(addresses, routes, wish)

    assert details in caught.value.details
    assert caught.value.hint
