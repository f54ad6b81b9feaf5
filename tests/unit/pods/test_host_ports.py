# SPDX-License-Identifier: Apache-2.0
"""portMappings: what is understood, what is refused, and what elements they come to."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from pycni.errors import InvalidConfig
from pycni.pods import host_ports
from pycni.pods.host_ports import PortMapping, parse, plan
from pycni.pods.port_table import Forward

POD4, POD6 = ip_address("10.244.1.5"), ip_address("fd00:10:244:1::5")
SECOND4 = ip_address("10.244.1.9")
HOST4, HOST6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
GOOD = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}


def one(**changes: Any) -> tuple[PortMapping, ...]:
    return parse({"portMappings": [GOOD | changes]})


@pytest.mark.parametrize(
    "runtime_config",
    [
        {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]},
        # as containerd writes it, from Go structs without JSON names
        {
            "portMappings": [
                {"HostPort": 8080, "ContainerPort": 80, "Protocol": "udp", "HostIP": ""}
            ]
        },
        {"PORTMAPPINGS": [{"HOSTPORT": 8080, "containerport": 80, "protocol": "UDP"}]},
        {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": None}
            ]
        },
    ],
)
def test_keys_and_protocols_are_read_in_any_case(runtime_config: dict[str, Any]) -> None:
    assert parse(runtime_config) == (PortMapping(8080, 80, "udp"),)


@pytest.mark.parametrize(
    "runtime_config", [{}, {"portMappings": None}, {"portMappings": []}, {"bandwidth": {}}]
)
def test_no_mappings_are_none(runtime_config: dict[str, Any]) -> None:
    assert parse(runtime_config) == ()


@pytest.mark.parametrize("protocol", ["", None])
def test_a_mapping_without_protocol_is_tcp(protocol: str | None) -> None:
    assert one(protocol=protocol) == (PortMapping(8080, 80, "tcp"),)


def test_the_same_mapping_twice_is_one() -> None:
    assert len(parse({"portMappings": [GOOD, GOOD]})) == 1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", HOST4),
        ("2001:db8::1", HOST6),
        ("::ffff:192.0.2.1", HOST4),
        ("0.0.0.0", ip_address("0.0.0.0")),
    ],
)
def test_a_host_ip_is_of_either_family(text: str, address: Any) -> None:
    (mapping,) = one(hostIP=text)

    assert mapping.host_ip == address


@pytest.mark.parametrize(
    "changes",
    [
        {"hostPort": 0},
        {"hostPort": -1},
        {"hostPort": 65536},
        {"hostPort": "8080"},
        {"hostPort": True},
        {"hostPort": 80.5},
        {"hostPort": None},
        {"containerPort": 0},
        {"containerPort": 65536},
        {"protocol": "foo"},
        {"protocol": 6},
        {"hostIP": "example.org"},
        {"hostIP": "192.0.2.1/24"},
        {"hostIP": 5},
        {"hostIP": "fe80::1%eth0"},
    ],
)
def test_a_wrong_value_is_named_with_code_7(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        one(**changes)

    assert caught.value.code == 7
    (value,) = changes.values()
    assert value is None or repr(value) in caught.value.details


@pytest.mark.parametrize("value", [{}, "8080:80", [5], [[GOOD]]])
def test_what_is_no_list_of_objects_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfig):
        parse({"portMappings": value})


def test_a_mapping_leads_to_the_first_address_of_each_family() -> None:
    assert plan([PortMapping(8080, 80)], [POD4, SECOND4, POD6], owner="abc") == [
        Forward("tcp", None, 8080, POD4, 80, "abc"),
        Forward("tcp", None, 8080, POD6, 80, "abc"),
    ]


@pytest.mark.parametrize(
    ("host_ip", "key", "pod"),
    [
        (HOST4, HOST4, POD4),
        (HOST6, HOST6, POD6),
        (ip_address("0.0.0.0"), None, POD4),
        (ip_address("::"), None, POD6),
    ],
)
def test_a_host_ip_chooses_the_family(host_ip: Any, key: Any, pod: Any) -> None:
    planned = plan([PortMapping(8080, 80, "tcp", host_ip)], [POD4, POD6], owner="abc")

    assert planned == [Forward("tcp", key, 8080, pod, 80, "abc")]


def test_a_mapping_of_a_family_that_the_pod_lacks_is_refused() -> None:
    with pytest.raises(InvalidConfig) as caught:
        plan([PortMapping(8080, 80, "tcp", HOST6)], [POD4], owner="abc")

    assert "8080/tcp at 2001:db8::1" in caught.value.message


@pytest.mark.parametrize("other", [None, HOST4, ip_address("0.0.0.0")])
def test_one_port_cannot_lead_to_two(other: Any) -> None:
    mappings = [PortMapping(8080, 80, "tcp", HOST4), PortMapping(8080, 81, "tcp", other)]

    with pytest.raises(InvalidConfig):
        plan(mappings, [POD4], owner="abc")


@pytest.mark.parametrize(
    "other",
    [
        PortMapping(8080, 80, "udp", HOST4),
        PortMapping(8081, 80, "tcp", HOST4),
        PortMapping(8080, 80, "tcp", HOST6),
        PortMapping(8080, 80, "tcp", ip_address("192.0.2.2")),
    ],
)
def test_ports_that_differ_in_anything_stand_side_by_side(other: PortMapping) -> None:
    planned = plan([PortMapping(8080, 80, "tcp", HOST4), other], [POD4, POD6], owner="abc")

    assert len(planned) == 2


def test_a_long_owner_is_cut_to_what_a_comment_holds() -> None:
    (forward,) = plan([PortMapping(8080, 80)], [POD4], owner="x" * 500)

    assert len(forward.owner) == host_ports.port_table.OWNER_LIMIT


def test_the_overlays_port_is_nobodys_host_port() -> None:
    taken = PortMapping(4789, 53, "udp")

    host_ports.refuse_overlay_port((PortMapping(4789, 80), PortMapping(8472, 53, "udp")), 4789)
    with pytest.raises(InvalidConfig) as caught:
        host_ports.refuse_overlay_port((PortMapping(80, 80), taken), 4789)

    assert "4789/udp" in caught.value.message
    assert "overlay" in caught.value.details
