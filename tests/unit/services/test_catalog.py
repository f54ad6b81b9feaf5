# SPDX-License-Identifier: Apache-2.0
"""Changes of objects become changes of service ports, and only of those that they concern."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.dataplane.service_maps import FrontendKey
from pycni.services.catalog import Catalog
from pycni.services.endpoints import PortKey
from pycni.services.objects import read_one
from pycni.services.selection import Place
from pycni.services.wanted import Use
from unit.services.objects_made import CLUSTER_IP, endpoint_slice, service

WEB = PortKey("shop/web", "http", "TCP", 4)
FRONT = FrontendKey(ip_address(CLUSTER_IP), 80, 6)
NAME = "shop/web"


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(Place("node1"), lambda _: "")


def tell(catalog: Catalog, kind: str, documents) -> None:
    catalog.change(kind, {name: one and read_one(kind, one) for name, one in documents.items()})


def endpoint(address: str, **fields):
    return {"addresses": [address], "nodeName": "node2", **fields}


def test_a_service_and_its_slices_become_a_port(catalog: Catalog) -> None:
    """S-024"""
    tell(catalog, "Service", {NAME: service()})
    tell(catalog, "EndpointSlice", {"shop/web-1": endpoint_slice(endpoint("10.244.2.7"))})
    tell(catalog, "EndpointSlice", {"shop/web-2": endpoint_slice(endpoint("10.244.2.8"))})

    (found,) = catalog.changes().items()

    assert found[0] == WEB
    assert found[1].frontends == {FRONT: False}
    assert {str(address) for address, _ in found[1].ends} == {"10.244.2.7", "10.244.2.8"}


def test_nothing_is_told_twice(catalog: Catalog) -> None:
    tell(catalog, "Service", {NAME: service()})
    catalog.changes()
    tell(catalog, "Service", {NAME: service()})

    assert catalog.changes() == {}


def test_slices_without_their_service_lead_nowhere(catalog: Catalog) -> None:
    tell(catalog, "EndpointSlice", {"shop/web-1": endpoint_slice(endpoint("10.244.2.7"))})
    assert catalog.changes() == {}

    tell(catalog, "Service", {NAME: service()})

    assert list(catalog.changes()) == [WEB]


def test_a_service_that_goes_takes_its_ports_along(catalog: Catalog) -> None:
    tell(catalog, "Service", {NAME: service()})
    catalog.changes()

    tell(catalog, "Service", {NAME: None})

    assert catalog.changes() == {WEB: None}


def test_a_family_that_comes_or_goes_leaves_the_other_alone(catalog: Catalog) -> None:
    """S-009"""
    tell(catalog, "Service", {NAME: service()})
    catalog.changes()
    of_both = service(clusterIPs=[CLUSTER_IP, "fd00:96::10"])

    tell(catalog, "Service", {NAME: of_both})
    more = catalog.changes()
    tell(catalog, "Service", {NAME: service()})
    fewer = catalog.changes()

    assert [key.version for key in more] == [6]
    assert {key.version: one for key, one in fewer.items()} == {6: None}


def test_what_a_list_does_not_have_is_gone(catalog: Catalog) -> None:
    """S-031"""
    tell(catalog, "Service", {NAME: service(), "shop/other": service()})
    catalog.changes()

    catalog.retain("Service", [])

    assert catalog.changes() == {WEB: None}
    assert catalog.set_aside == []


def test_an_object_that_becomes_bad_is_as_if_it_were_not_there(catalog: Catalog) -> None:
    tell(catalog, "Service", {NAME: service()})
    catalog.changes()

    tell(catalog, "Service", {NAME: service(ports=[{"port": 0}])})

    assert catalog.changes() == {WEB: None}
    assert [one.name for one in catalog.set_aside] == [NAME]
    tell(catalog, "Service", {NAME: service()})
    assert list(catalog.changes()) == [WEB]
    assert catalog.set_aside == []


def test_external_name_and_back(catalog: Catalog) -> None:
    """S-002"""
    tell(catalog, "Service", {NAME: service()})
    catalog.changes()
    gone = service(type="ExternalName", clusterIP="", clusterIPs=[])

    tell(catalog, "Service", {NAME: gone})
    assert catalog.changes() == {WEB: None}
    tell(catalog, "Service", {NAME: service()})

    assert list(catalog.changes()) == [WEB]


@pytest.mark.parametrize(
    ("protocol", "conditions", "uses"),
    [
        ("TCP", {"ready": True}, [Use(all=True)]),
        ("TCP", {"ready": False, "serving": True, "terminating": True}, [Use()]),
        ("TCP", {"ready": False, "serving": False}, [Use()]),
        ("UDP", {"ready": False, "serving": True, "terminating": True}, [Use()]),
        ("UDP", {"ready": False, "serving": False}, []),
    ],
)
def test_which_endpoints_keep_their_flows(
    catalog: Catalog, protocol: str, conditions: dict[str, bool], uses: list[Use]
) -> None:
    """S-074, S-075, S-076, S-166"""
    ports = [{"name": "http", "port": 80, "protocol": protocol}]
    of_slice = [{"name": "http", "port": 8080, "protocol": protocol}]
    tell(catalog, "Service", {NAME: service(ports=ports)})
    ready, other = endpoint("10.244.2.7"), endpoint("10.244.2.8", conditions=conditions)
    tell(catalog, "EndpointSlice", {"shop/web-1": endpoint_slice(ready, other, ports=of_slice)})

    ((_, found),) = catalog.changes().items()

    address = ip_address("10.244.2.8")
    assert [use for end, use in found.ends.items() if end[0] == address] == uses


def test_sctp_with_another_target_port_is_left_out_and_named(catalog: Catalog) -> None:
    """S-101"""
    ports = [{"name": "http", "port": 80, "protocol": "SCTP"}]
    of_slice = [{"name": "http", "port": 8080, "protocol": "SCTP"}]
    tell(catalog, "Service", {NAME: service(ports=ports)})
    slices = endpoint_slice(endpoint("10.244.2.7"), ports=of_slice)
    tell(catalog, "EndpointSlice", {"shop/web-1": slices})

    assert catalog.changes() == {}
    assert [one.name for one in catalog.set_aside] == [NAME]


def test_only_cluster_ips_are_forwarded(catalog: Catalog) -> None:
    balanced = service(
        type="LoadBalancer",
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        externalIPs=["203.0.113.10"],
    )
    tell(catalog, "Service", {NAME: balanced})

    ((_, found),) = catalog.changes().items()

    assert found.frontends == {FRONT: False}


def test_an_address_that_is_somebodys_is_refused() -> None:
    """S-073"""
    catalog = Catalog(Place("node1"), lambda _: "this node's")
    tell(catalog, "Service", {NAME: service()})

    assert catalog.changes() == {}
    assert "this node's" in catalog.set_aside[0].reason
