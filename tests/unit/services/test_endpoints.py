# SPDX-License-Identifier: Apache-2.0
"""Slices become endpoints."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.services.endpoints import Endpoint, PortKey, collect
from unit.services.objects_made import endpoint, endpoint_slice, slices

HERE, THERE = "node1", "node2"
HTTP = PortKey("shop/web", "http", "TCP", 4)
ONE, TWO = "10.244.0.2", "10.244.1.2"


def of(*documents, key: PortKey = HTTP):
    found, aside = collect(slices(*documents), HERE)
    assert aside == []
    return found.get(key, ())


def addresses(ones) -> list[str]:
    return [str(one.address) for one in ones]


def test_a_service_has_the_endpoints_of_all_its_slices() -> None:
    """S-024: in any order."""
    first, second = endpoint_slice(endpoint(TWO)), endpoint_slice(endpoint(ONE), name="web-2")

    assert addresses(of(first, second)) == [ONE, TWO]
    assert of(first, second) == of(second, first)


def test_slices_of_other_services_and_of_none_are_not_its() -> None:
    other = endpoint_slice(endpoint(ONE), labels={"kubernetes.io/service-name": "db"})
    nobodys = endpoint_slice(endpoint(ONE), labels={"kubernetes.io/service-name": ""})

    assert of(other, nobodys) == ()


def test_an_endpoint_of_two_slices_is_one_and_that_of_this_node_counts() -> None:
    """S-025."""
    local = endpoint_slice(endpoint(ONE, node=HERE, ready=False))
    foreign = endpoint_slice(endpoint(ONE, node=THERE), name="web-2")

    for documents in ((local, foreign), (foreign, local)):
        (one,) = of(*documents)
        assert (one.node, one.ready) == (HERE, False)


def test_of_two_that_are_one_the_ready_one_counts() -> None:
    """S-028: an endpoint moves between slices in two steps."""
    leaving = endpoint_slice(endpoint(ONE, node=HERE, ready=False, terminating=True))
    there = endpoint_slice(endpoint(ONE, node=HERE), name="web-2")

    for documents in ((leaving, there), (there, leaving)):
        (one,) = of(*documents)
        assert one.ready


@pytest.mark.parametrize(
    ("conditions", "ready", "serving", "terminating"),
    [
        ({}, True, True, False),
        ({"ready": True, "serving": True, "terminating": True}, True, True, True),
        ({"ready": False, "serving": True, "terminating": True}, False, True, True),
        ({"ready": False, "serving": False, "terminating": False}, False, False, False),
    ],
)
def test_what_is_absent_is_ready_serving_and_stays(conditions, ready, serving, terminating) -> None:
    """S-026, S-030."""
    (one,) = of(endpoint_slice(endpoint(ONE, **conditions)))

    assert (one.ready, one.serving, one.terminating) == (ready, serving, terminating)


def test_the_number_comes_from_the_slice() -> None:
    """S-006: a named targetPort may differ between endpoints."""
    other = [{"name": "http", "port": 9090, "protocol": "TCP"}]

    ones = of(endpoint_slice(endpoint(ONE)), endpoint_slice(endpoint(TWO), name="b", ports=other))
    assert [(str(one.address), one.port) for one in ones] == [(ONE, 8080), (TWO, 9090)]


@pytest.mark.parametrize("port", [{"name": "http"}, {"name": "http", "port": 0}])
def test_a_port_without_a_number_counts_for_nothing(port) -> None:
    """S-027."""
    assert of(endpoint_slice(endpoint(ONE), ports=[port])) == ()


def test_a_port_without_a_name_is_that_of_a_service_with_one_port() -> None:
    key = PortKey("shop/web", "", "TCP", 4)

    assert len(of(endpoint_slice(endpoint(ONE), ports=[{"port": 8080}]), key=key)) == 1


def test_only_the_first_address_counts_and_names_are_none() -> None:
    """S-027."""
    named = endpoint_slice(endpoint("db.example.org"), name="b", addressType="FQDN")

    assert addresses(of(endpoint_slice(endpoint(ONE, TWO)), named)) == [ONE]


def test_families_and_protocols_are_apart() -> None:
    """S-005, S-008."""
    six = endpoint_slice(endpoint("fd00::2"), name="six", addressType="IPv6")
    udp = endpoint_slice(
        endpoint(TWO), name="udp", ports=[{"name": "dns", "port": 53, "protocol": "UDP"}]
    )

    found, _ = collect(slices(endpoint_slice(endpoint(ONE)), six, udp), HERE)
    assert {key: addresses(ones) for key, ones in found.items()} == {
        HTTP: [ONE],
        PortKey("shop/web", "http", "TCP", 6): ["fd00::2"],
        PortKey("shop/web", "dns", "UDP", 4): [TWO],
    }


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "no endpoint that others can reach"),
        ("169.254.1.1", "no endpoint that others can reach"),
        ("224.0.0.5", "no endpoint that others can reach"),
        ("0.0.0.0", "no endpoint that others can reach"),
        ("fd00::2", "addressType"),
        ("web", "web"),
    ],
)
def test_an_impossible_endpoint_is_named_and_the_others_stay(address: str, reason: str) -> None:
    """S-029: and the rest of its slice counts."""
    found, aside = collect(slices(endpoint_slice(endpoint(address), endpoint(ONE))), HERE)

    assert addresses(found[HTTP]) == [ONE]
    (one,) = aside
    assert one.name == "shop/web-1 endpoint 0"
    assert reason in one.reason


def test_an_endpoint_without_an_address_is_named() -> None:
    _, (one,) = collect(slices(endpoint_slice(endpoint())), HERE)

    assert one.reason == "it has no address"


def test_hints_are_read() -> None:
    (one,) = of(endpoint_slice(endpoint(ONE, zones=["a"], nodes=[HERE, THERE])))

    assert one == Endpoint(
        ip_address(ONE), 8080, zones=frozenset("a"), nodes=frozenset((HERE, THERE))
    )
