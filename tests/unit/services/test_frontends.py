# SPDX-License-Identifier: Apache-2.0
"""Services become addresses and ports."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pycni.services.endpoints import PortKey
from pycni.services.frontends import Kind, frontends
from unit.services.objects_made import CLUSTER_IP, PORTS, service, services

CLUSTER_IP6 = "fd00:96::10"
DUAL = {"clusterIPs": [CLUSTER_IP, CLUSTER_IP6]}
NODE_PORT = {"name": "http", "port": 80, "nodePort": 30080}
BALANCED = {"type": "LoadBalancer", "ports": [NODE_PORT]}
VIP, VIP6 = "203.0.113.10", "2001:db8::10"


def made(*documents, external_ips: bool = True, owned=lambda _: ""):
    found, aside = frontends(services(*documents), external_ips=external_ips, owned=owned)
    assert aside == []
    return found


def told(ones) -> list[tuple[str, str, int]]:
    return [(one.kind.value, str(one.address or "node"), one.port) for one in ones]


def balancer(*entries: dict[str, str]) -> dict[str, Any]:
    return {"loadBalancer": {"ingress": list(entries)}}


def test_a_cluster_ip_leads_to_a_port_of_its_service() -> None:
    (one,) = made(service())

    assert (one.kind, str(one.address), one.port, one.protocol) == (
        Kind.CLUSTER_IP, CLUSTER_IP, 80, "TCP"
    )  # fmt: skip
    assert one.target == PortKey("shop/web", "http", "TCP", 4)


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": [VIP]},
        {"type": "ExternalName", "clusterIP": "", "clusterIPs": [], "externalIPs": [VIP]},
    ],
)
def test_headless_and_external_name_have_none(spec) -> None:
    """S-001, S-002: of any kind."""
    assert made(service(**spec)) == []


def test_each_port_and_protocol_is_its_own() -> None:
    """S-005."""
    dns = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]

    assert [(one.port, one.protocol, one.target.port_name) for one in made(service(ports=dns))] == [
        (53, "UDP", "dns"), (53, "TCP", "dns-tcp")
    ]  # fmt: skip


def test_each_family_is_its_own() -> None:
    """S-008."""
    assert [one.target.version for one in made(service(**DUAL))] == [4, 6]


def test_a_service_of_before_dual_stack_has_its_one_address() -> None:
    assert told(made(service(clusterIPs=[]))) == [("ClusterIP", CLUSTER_IP, 80)]


@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_a_node_port_is_the_nodes_in_the_families_of_the_service(kind: str) -> None:
    """S-011."""
    found = made(service(type=kind, ports=[NODE_PORT], **DUAL))

    assert [one.target.version for one in found if one.kind is Kind.NODE_PORT] == [4, 6]
    assert ("NodePort", "node", 30080) in told(found)


def test_a_node_port_that_is_left_of_another_type_is_none() -> None:
    assert told(made(service(ports=[NODE_PORT]))) == [("ClusterIP", CLUSTER_IP, 80)]


def test_a_balancer_without_node_ports() -> None:
    """S-016."""
    found = made(service(type="LoadBalancer", status=balancer({"ip": VIP})))

    assert told(found) == [("ClusterIP", CLUSTER_IP, 80), ("LoadBalancer", VIP, 80)]


@pytest.mark.parametrize(
    ("entry", "is_frontend"),
    [
        ({"ip": VIP}, True),
        ({"ip": VIP, "ipMode": "VIP"}, True),
        ({"ip": VIP, "ipMode": "Proxy"}, False),
        ({"hostname": "lb.example.org"}, False),
        ({"ip": VIP6}, False),
    ],
)
def test_what_is_a_balancers_address(entry, is_frontend: bool) -> None:
    """S-014, S-015; and one of a family that the Service has not is none."""
    found = made(service(status=balancer(entry), **BALANCED))

    assert any(one.kind is Kind.LOAD_BALANCER for one in found) == is_frontend


def test_an_address_that_is_left_of_another_type_is_none() -> None:
    assert told(made(service(status=balancer({"ip": VIP})))) == [("ClusterIP", CLUSTER_IP, 80)]


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ([], []),
        (["192.0.2.0/24", "2001:db8::/32"], ["192.0.2.0/24"]),
        ([" 192.0.2.0/24 "], ["192.0.2.0/24"]),
        (["192.0.2.7/24"], ["192.0.2.0/24"]),
        (["192.0.2.0/24", "0.0.0.0/0"], []),
    ],
)
def test_source_ranges_are_the_balancers_alone(ranges, kept) -> None:
    """S-010, S-017."""
    document = service(
        loadBalancerSourceRanges=ranges, externalIPs=["203.0.113.11"],
        status=balancer({"ip": VIP}), **BALANCED
    )  # fmt: skip

    for one in made(document):
        want = [ip_network(text) for text in kept] if one.kind is Kind.LOAD_BALANCER else []
        assert list(one.source_ranges) == want


def test_the_policy_is_that_of_the_way_in() -> None:
    """S-040."""
    document = service(
        internalTrafficPolicy="Local", externalIPs=["203.0.113.11"],
        status=balancer({"ip": VIP}), **BALANCED
    )  # fmt: skip

    assert {one.kind: one.policy for one in made(document)} == {
        Kind.CLUSTER_IP: "Local",
        Kind.NODE_PORT: "Cluster",
        Kind.LOAD_BALANCER: "Cluster",
        Kind.EXTERNAL_IP: "Cluster",
    }


def test_affinity_is_for_every_way_in() -> None:
    """S-049."""
    document = service(sessionAffinity="ClientIP", status=balancer({"ip": VIP}), **BALANCED)

    assert {one.affinity for one in made(document)} == {10_800}


def test_external_ips_are_off_unless_said() -> None:
    """S-018: and their Service is told why."""
    document = service(externalIPs=[VIP])

    found, (aside,) = frontends(services(document), external_ips=False, owned=lambda _: "")
    assert told(found) == [("ClusterIP", CLUSTER_IP, 80)]
    assert (aside.name, aside.reason) == ("shop/web", "externalIPs are switched off")
    assert ("ExternalIP", VIP, 80) in told(made(document))


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIPs": ["127.0.0.1"]},
        {"externalIPs": ["169.254.169.254"]},
        {"externalIPs": ["224.0.0.1"]},
        {"status": balancer({"ip": "0.0.0.0"}), **BALANCED},
    ],
)
def test_no_service_has_an_address_that_is_nobodys(spec) -> None:
    _, (aside,) = frontends(services(service(**spec)), external_ips=True, owned=lambda _: "")

    assert "no address that others can send to" in aside.reason


def test_no_service_has_an_address_of_a_node_or_pod() -> None:
    """S-018."""
    owners = {ip_address("198.18.0.1"): "a node's"}
    document = service(externalIPs=["198.18.0.1"])

    found, (aside,) = frontends(
        services(document), external_ips=True, owned=lambda one: owners.get(one, "")
    )
    assert len(found) == 1
    assert aside.reason == "ExternalIP 198.18.0.1 is a node's address"


def test_the_older_of_two_has_what_both_claim() -> None:
    """S-020: whichever comes first; and when it goes, the other has it."""
    old = service("old", created="2026-01-01T00:00:00Z", externalIPs=[VIP])
    new = service(
        "new", created="2026-01-02T00:00:00Z", externalIPs=[VIP], clusterIPs=["10.96.0.11"]
    )

    for documents in ((old, new), (new, old)):
        found, (aside,) = frontends(services(*documents), external_ips=True, owned=lambda _: "")
        (holder,) = (one.target.service for one in found if str(one.address) == VIP)
        assert holder == "shop/old"
        assert aside.name == "shop/new"
        assert aside.reason == f"{VIP} 80/TCP is of the older Service shop/old"
    assert ("ExternalIP", VIP, 80) in told(made(new))


def test_two_services_may_have_one_address_with_different_ports() -> None:
    other = service("other", externalIPs=[VIP], clusterIPs=["10.96.0.11"],
                    ports=[{"name": "http", "port": 81}])  # fmt: skip

    assert len(made(service(externalIPs=[VIP]), other)) == 4


def test_two_services_cannot_have_one_node_port() -> None:
    one = service("one", type="NodePort", ports=[NODE_PORT])
    two = service("two", type="NodePort", ports=[NODE_PORT], clusterIPs=["10.96.0.11"])

    _, (aside,) = frontends(services(one, two), external_ips=False, owned=lambda _: "")
    assert aside.reason == "node port 30080/TCP is of the older Service shop/one"


def test_one_address_by_two_fields_is_one() -> None:
    document = service(externalIPs=[VIP], status=balancer({"ip": VIP}), **BALANCED)

    assert [one.kind for one in made(document) if str(one.address) == VIP] == [Kind.LOAD_BALANCER]


def test_the_ports_of_a_service_are_as_many_as_it_says() -> None:
    assert len(made(service(ports=[*PORTS, {"name": "https", "port": 443}]))) == 2
