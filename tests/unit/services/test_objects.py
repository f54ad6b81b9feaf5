# SPDX-License-Identifier: Apache-2.0
"""What comes in is checked, and what is wrong stops nothing else."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.services.objects import DEFAULT_AFFINITY, read
from unit.services.objects_made import endpoint_slice, service


def test_what_is_neither_is_passed_over() -> None:
    assert read([{"kind": "Pod"}, {}]).services == ()


@pytest.mark.parametrize(
    "label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"]
)
def test_what_is_for_another_proxy_is_not_ours(label: str) -> None:
    """S-003, S-004: Services and slices; an empty value counts, too."""
    found = read([service(labels={label: ""}), endpoint_slice(labels={label: "other"})])

    assert found.services == ()
    assert found.slices == ()
    assert found.set_aside == ()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"ports": [{"port": 0}]}, "greater than or equal to 1"),
        ({"ports": [{"port": 65536}]}, "less than or equal to 65535"),
        ({"ports": [{"port": "http"}]}, "valid integer"),
        ({"ports": [{"port": 80}, {"name": "b", "port": 80}]}, "one number and protocol"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "one name"),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, "'TCP', 'UDP' or 'SCTP'"),
        ({"clusterIPs": ["10.96.0.300"]}, "10.96.0.300"),
        ({"clusterIPs": ["10.96.0.1", "10.96.0.2"]}, "one family"),
        ({"externalIPs": ["nonsense"]}, "nonsense"),
        ({"type": "Magic"}, "'ClusterIP'"),
        ({"internalTrafficPolicy": "Near"}, "'Cluster' or 'Local'"),
        ({"loadBalancerSourceRanges": ["10.0.0.0/33"]}, "10.0.0.0/33"),
        ({"sessionAffinity": "ClientIP",
          "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}, "greater than or equal"),
    ],
)  # fmt: skip
def test_a_bad_service_is_named_and_others_are_read(spec, reason: str) -> None:
    found = read([service("bad", **spec), service("good", clusterIPs=["10.96.0.11"])])

    assert [one.name for one in found.services] == ["shop/good"]
    (aside,) = found.set_aside
    assert (aside.kind, aside.name) == ("Service", "shop/bad")
    assert reason in aside.reason


@pytest.mark.parametrize(
    "document",
    [{"kind": "Service"}, {"kind": "Service", "metadata": [], "spec": 3},
     {"kind": "EndpointSlice", "metadata": {"name": ""}}],
)  # fmt: skip
def test_what_is_no_object_is_set_aside(document) -> None:
    (aside,) = read([document]).set_aside

    assert aside.name == "default/(no name)" or aside.name == "default/"


def test_null_is_absent() -> None:
    """The API writes null for empty lists."""
    (made,) = read([service(externalIPs=None, loadBalancerSourceRanges=None)]).services

    assert made.spec.external_ips == ()


def test_ipv4_in_ipv6_is_ipv4() -> None:
    (made,) = read([service(clusterIPs=["::ffff:10.96.0.10"])]).services

    assert made.cluster_addresses == (ip_address("10.96.0.10"),)


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None"}, 0),
        ({"sessionAffinity": "ClientIP"}, DEFAULT_AFFINITY),
        ({"sessionAffinity": "ClientIP",
          "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}, 5),
    ],
)  # fmt: skip
def test_affinity_has_a_time(spec, seconds: int) -> None:
    """S-048."""
    (made,) = read([service(**spec)]).services

    assert made.affinity == seconds


def test_headless_and_external_name_have_no_address() -> None:
    """S-001, S-002."""
    headless = service("one", clusterIP="None", clusterIPs=["None"])
    external = service("two", type="ExternalName", externalName="example.org")

    assert [one.cluster_addresses for one in read([headless, external]).services] == [(), ()]


def test_the_older_one_is_told_by_time_and_then_by_uid() -> None:
    old = service("old", created="2026-01-01T00:00:00Z", clusterIPs=["10.96.0.1"])
    new = service("new", created="2026-01-02T00:00:00Z", clusterIPs=["10.96.0.2"])
    timeless = service("later", clusterIPs=["10.96.0.3"])

    ones = sorted(read([timeless, new, old]).services, key=lambda one: one.age)
    assert [one.metadata.name for one in ones] == ["old", "new", "later"]
