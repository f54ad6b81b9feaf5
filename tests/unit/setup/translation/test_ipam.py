# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/ipam.py: ranges, gateways, routes."""

from __future__ import annotations

from typing import Any

import pytest

from pycni.setup.translation import ipam
from unit.setup.translation.samples import BRIDGE, PROTOTYPE, finding, own, result

CLUSTER = "10.88.0.0/16"
RANGE = {"subnet": "10.88.1.0/24", "rangeStart": "10.88.1.10", "rangeEnd": "10.88.1.20"}


def bridge(**keys: Any) -> dict[str, Any]:
    return BRIDGE | {"name": "n", "cniVersion": "1.0.0", "ipam": {"type": "host-local", **keys}}


def prototype(**keys: Any) -> dict[str, Any]:
    return PROTOTYPE | {"ipam": keys}


@pytest.mark.parametrize("keys", [RANGE, {"ranges": [[RANGE]]}, {"ranges": [RANGE]}])
def test_a_range_becomes_one_of_pycni(keys: dict[str, Any]) -> None:
    done = result(bridge(**keys), CLUSTER)

    assert done.refused == []
    assert own(done)["ipam"] == {"ranges": [RANGE]}
    assert done.settings == f'cluster_cidrs = ["{CLUSTER}"]\nnode_prefix = {{ipv4 = 24}}\n'


def test_a_range_with_one_end_goes_on_with_one() -> None:
    keys = {key: one for key, one in RANGE.items() if key != "rangeEnd"}

    assert own(result(bridge(**keys), CLUSTER))["ipam"] == {"ranges": [keys]}


def test_a_subnet_without_ends_leaves_the_addresses_to_the_node() -> None:
    done = result(bridge(subnet="10.88.1.0/24"), CLUSTER)

    assert "ipam" not in own(done)


def test_both_families_go_on() -> None:
    six = {"subnet": "fd00:88:0:1::/64", "rangeStart": "fd00:88:0:1::10"}

    done = result(bridge(ranges=[[RANGE], [six]]), CLUSTER, "fd00:88::/56")

    assert own(done)["ipam"] == {"ranges": [RANGE, six]}
    assert 'cluster_cidrs = ["10.88.0.0/16", "fd00:88::/56"]' in done.settings
    assert "node_prefix = {ipv4 = 24, ipv6 = 64}" in done.settings


def test_the_prototypes_range_is_in_the_subnet_beside_ipam() -> None:
    done = result(prototype(rangeStart="10.244.5.10", rangeEnd="10.244.5.90"))

    assert own(done)["ipam"]["ranges"] == [
        {"subnet": "10.244.0.0/16", "rangeStart": "10.244.5.10", "rangeEnd": "10.244.5.90"}
    ]
    assert (
        "no other node's part"
        in finding(prototype(rangeStart="10.244.5.10"), "ipam.rangeStart").says
    )


@pytest.mark.parametrize(
    ("start", "end", "key", "why"),
    [
        ("10.245.0.1", "10.244.0.9", "rangeStart", "is not in the subnet 10.244.0.0/16"),
        ("10.244.0.1", "10.245.0.9", "rangeEnd", "is not in the subnet 10.244.0.0/16"),
        ("10.244.0.9", "10.244.0.1", "rangeEnd", "comes before rangeStart, which is 10.244.0.9"),
        ("::ffff:10.244.0.1", "10.244.0.9", "rangeStart", "write 10.244.0.1"),
        ("10.244.0.1", "::ffff:10.244.0.9", "rangeEnd", "write 10.244.0.9"),
        ("fd00::1", "10.244.0.9", "rangeStart", "is not in the subnet"),
        ("10.244.0.1", "fe80::1%eth0", "rangeEnd", "a zone after %"),
        ("10.244.0.1/16", "10.244.0.9", "rangeStart", "is no IP address"),
        ("10.244.0.01", "10.244.0.9", "rangeStart", "is no IP address"),
        (5, "10.244.0.9", "rangeStart", "must be text in quotes, not a number"),
        ("10.244.0.1", ["10.244.0.9"], "rangeEnd", "must be text in quotes, not a list"),
    ],
)
def test_a_range_that_cannot_be_is_refused_at_its_end(
    start: Any, end: Any, key: str, why: str
) -> None:
    done = result(prototype(rangeStart=start, rangeEnd=end))

    assert [one.key for one in done.refused] == [f"ipam.{key}"]
    assert why in done.refused[0].says


def test_a_range_in_a_wrong_subnet_waits_for_that() -> None:
    document = PROTOTYPE | {"subnet": "x", "ipam": {"rangeStart": "10.0.0.1"}}

    assert "correct that first" in finding(document, "ipam.rangeStart").says


def test_a_range_without_subnet_is_refused() -> None:
    assert "needs `subnet`" in finding(bridge(rangeStart="10.88.1.1"), "ipam.rangeStart").says


@pytest.mark.parametrize(
    ("keys", "key", "fate", "says"),
    [
        ({"subnet": "10.244.0.0/16"}, "subnet", "not needed", "beside ipam"),
        ({"subnet": "10.1.0.0/16"}, "subnet", "refused", "remove one of the two"),
        ({"type": "anything"}, "type", "not needed", "itself"),
        ({"gateway": "10.244.0.9"}, "gateway", "not needed", "not read"),
        ({"addresses": [{"address": "10.244.0.9/24"}]}, "addresses", "refused", "pycni/ips"),
        ({"dataDir": "/x"}, "dataDir", "refused", "unknown key"),
        ({"range_start": "x"}, "range_start", "refused", "did you mean rangestart"),
    ],
)
def test_a_key_of_the_prototypes_ipam(keys: dict[str, Any], key: str, fate: str, says: str) -> None:
    found = finding(prototype(**keys), f"ipam.{key}")

    assert found.fate == fate
    assert says in found.says


def test_the_prototype_does_not_read_a_subnet_in_ipam() -> None:
    document = {"type": "testcni", "mode": "vxlan", "ipam": {"subnet": "10.244.0.0/16"}}

    assert "move it there" in finding(document, "ipam.subnet").says


@pytest.mark.parametrize(
    ("keys", "key", "fate", "says"),
    [
        ({"gateway": "10.88.1.1"}, "gateway", "not needed", "first address"),
        (
            {"gateway": "10.88.1.9"},
            "gateway",
            "refused",
            "always the first address of 10.88.1.0/24",
        ),
        ({"subnet": "255.255.255.255/32", "gateway": "10.88.1.1"}, "gateway", "refused", "first"),
        ({"gateway": "x"}, "gateway", "refused", "no IP address"),
        ({"routes": [{"dst": "0.0.0.0/0"}]}, "routes[0]", "not needed", "default route"),
        ({"routes": [{"dst": "::/0", "gw": "::1"}]}, "routes[0]", "not needed", "default route"),
        ({"routes": [{"dst": "10.0.0.0/8"}]}, "routes[0]", "refused", "a default route only"),
        ({"routes": [{"dst": "0.0.0.0/0", "mtu": 1}]}, "routes[0]", "refused", "default route"),
        ({"routes": [7]}, "routes[0]", "refused", "an object in braces"),
        ({"routes": {"dst": "0.0.0.0/0"}}, "routes", "refused", "a list in brackets"),
        ({"resolvConf": "/etc/resolv.conf"}, "resolvConf", "refused", '"dns" in the list'),
        ({"dataDir": "/run/x"}, "dataDir", "not needed", "link"),
        ({"ranges": {}}, "ranges", "refused", "a list in brackets"),
        ({"ranges": [[RANGE, RANGE]]}, "ranges[0][1]", "refused", "a second range of IPv4"),
        ({"ranges": [[{}]]}, "ranges[0][0]", "refused", "must be text in quotes, not null"),
        ({"ranges": [["10.88.1.0/24"]]}, "ranges[0][0]", "refused", "an object in braces"),
        ({"ranges": [3]}, "ranges[0]", "refused", "an object in braces"),
        ({"ranges": [[RANGE | {"x": 1}]]}, "ranges[0][0].x", "refused", "unknown key"),
    ],
)
def test_a_key_of_host_local(keys: dict[str, Any], key: str, fate: str, says: str) -> None:
    found = finding(bridge(**({"subnet": "10.88.1.0/24"} | keys)), f"ipam.{key}", CLUSTER)

    assert found.fate == fate
    assert says in found.says


@pytest.mark.parametrize("kind", ["dhcp", "static", "whereabouts"])
def test_another_ipam_plugin_is_refused_with_the_key_that_calls_it(kind: str) -> None:
    (found,) = result(BRIDGE | {"name": "n", "ipam": {"type": kind, "addresses": []}}).refused

    assert found.key == "ipam.type"
    assert f"pycni can call {kind} itself" in found.says


@pytest.mark.parametrize("value", [[], "host-local", 3, {"type": 3}])
def test_an_ipam_that_is_no_object_is_refused(value: Any) -> None:
    assert result(BRIDGE | {"name": "n", "ipam": value}).refused


def test_every_key_of_a_range_is_one_of_host_local() -> None:
    assert set(ipam.RANGE) <= set(ipam.HOST_LOCAL)
