# SPDX-License-Identifier: Apache-2.0
"""Which addresses of Services a node tells routers of."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pycni.bgp_settings import OF_SERVICES
from pycni.services.announced import Choice
from pycni.services.catalog import Catalog
from pycni.services.objects import read_one
from pycni.services.selection import Place
from unit.services.objects_made import CLUSTER_IP, endpoint, endpoint_slice, service

HERE, THERE = "node1", "node2"
EXTERNAL, BALANCER, PROXIED, ELSEWHERE = "203.0.113.7", "203.0.113.8", "203.0.113.9", "192.0.2.1"
NETWORKS = (ip_network("10.96.0.0/16"), ip_network("203.0.113.0/24"))
ALL = Choice(OF_SERVICES, NETWORKS)
LOCAL = {"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}
INGRESS = {"loadBalancer": {"ingress": [
    {"ip": BALANCER}, {"ip": ELSEWHERE}, {"ip": PROXIED, "ipMode": "Proxy"}, {"hostname": "x.y"},
]}}  # fmt: skip


def told(choice: Choice, *ends: dict[str, Any], **spec: Any) -> set[str]:
    """What node one announces of a Service with all kinds of addresses."""
    whole = {"type": "LoadBalancer", "status": INGRESS, "externalIPs": [EXTERNAL, ELSEWHERE]}
    catalog = Catalog(Place(HERE), lambda _: "", choice)
    catalog.change("Service", {"shop/web": read_one("Service", service(**(whole | spec)))})
    found = read_one("EndpointSlice", endpoint_slice(*ends))
    catalog.change("EndpointSlice", {"shop/web-1": found})
    catalog.changes()
    return set(map(str, catalog.announced))


def test_all_nodes_tell_addresses_with_the_policy_cluster() -> None:
    assert told(ALL) == {CLUSTER_IP, EXTERNAL, BALANCER}


@pytest.mark.parametrize(
    ("kind", "address"),
    [("cluster-ips", CLUSTER_IP), ("external-ips", EXTERNAL), ("load-balancers", BALANCER)],
)
def test_only_the_kinds_that_are_named_are_told(kind: str, address: str) -> None:
    assert told(Choice(frozenset({kind}), NETWORKS)) == {address}


def test_nothing_is_told_without_a_choice_or_its_networks() -> None:
    assert told(Choice()) == set()
    assert told(Choice(OF_SERVICES)) == set()
    assert told(Choice(OF_SERVICES, (ip_network("fd00::/8"),))) == set()


@pytest.mark.parametrize(
    ("end", "is_told"),
    [
        (endpoint("10.244.1.7", node=HERE), True),
        (endpoint("10.244.2.7", node=THERE), False),
        (endpoint("10.244.1.7"), False),
        (endpoint("10.244.1.7", node=HERE, ready=False), False),
        (endpoint("10.244.1.7", node=HERE, ready=False, serving=True, terminating=True), False),
    ],
)
def test_the_policy_local_takes_an_endpoint_here_that_is_ready(
    end: dict[str, Any], is_told: bool
) -> None:
    assert told(ALL, end, **LOCAL) == ({CLUSTER_IP, EXTERNAL, BALANCER} if is_told else set())


def test_each_address_follows_its_own_policy() -> None:
    far = endpoint("10.244.2.7", node=THERE)

    assert told(ALL, far, internalTrafficPolicy="Local") == {EXTERNAL, BALANCER}
    assert told(ALL, far, externalTrafficPolicy="Local") == {CLUSTER_IP}


def test_what_changes_is_told_with_the_next_look() -> None:
    catalog = Catalog(Place(HERE), lambda _: "", ALL)
    catalog.change("Service", {"shop/web": read_one("Service", service(**LOCAL))})
    catalog.changes()
    before = catalog.announced

    found = read_one("EndpointSlice", endpoint_slice(endpoint("10.244.1.7", node=HERE)))
    catalog.change("EndpointSlice", {"shop/web-1": found})
    catalog.changes()
    between = catalog.announced
    catalog.change("Service", {"shop/web": None})
    catalog.changes()

    wanted = frozenset({ip_address(CLUSTER_IP)})
    assert [before, between, catalog.announced] == [frozenset(), wanted, frozenset()]
