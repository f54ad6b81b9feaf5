# SPDX-License-Identifier: Apache-2.0
"""from_container: packets to Services. Statements (S-...) are those of the contract that
docs/services.md sums up; sums are those that scapy computes for the packet as it should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.packet import Packet

from bpf.outcomes import (
    Outcome,
    Redirect,
    dropped,
    into_pod,
    to_node,
    to_stack,
    with_macs,
)
from bpf.service_world import (
    CLIENT,
    PORT,
    REJECT_MARK,
    TARGET,
    VIP,
    End,
    Services,
    packet,
    request,
    target,
    translated,
)
from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    MASQUERADE_MARK,
    OVERLAY_MAC,
    POD_ONE_MAC,
    POD_TWO_MAC,
    VETH_TWO,
    Family,
    cluster,
)

pytestmark = pytest.mark.root


def rejected(reason: str, sent: Packet) -> Outcome:
    return replace(to_stack(sent, mark=REJECT_MARK), drops={reason: 1}, path=None)


def test_a_backend_on_this_node_gets_it_from_the_pod_itself(
    services: Services, family: Family, protocol: str
) -> None:
    """S-006, S-063, S-101"""
    end = End(3, family.pod_two, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)

    outcome = services.send(request(family, protocol))

    expected = translated(family, protocol, end)
    assert outcome == into_pod(VETH_TWO, with_macs(expected, src=GATEWAY_MAC, dst=POD_TWO_MAC))


def test_a_backend_on_another_node_gets_it_by_the_overlay(
    services: Services, family: Family, protocol: str
) -> None:
    """S-064: without the mark of what is masqueraded."""
    end = End(3, family.pod_far, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)

    outcome = services.send(request(family, protocol))

    expected = translated(family, protocol, end)
    assert outcome == to_node(IPV4.node_two, with_macs(expected, src=OVERLAY_MAC, dst=GATEWAY_MAC))


def test_a_backend_outside_gets_it_by_the_stack_masqueraded_as_all_that_leaves(
    services: Services, family: Family, protocol: str
) -> None:
    services.dataplane.fill(cluster(IPV4, masquerade=True))
    end = End(3, family.world, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)

    outcome = services.send(request(family, protocol))

    expected = translated(family, protocol, end)
    assert outcome == to_stack(
        with_macs(expected, src=POD_ONE_MAC, dst=GATEWAY_MAC), mark=MASQUERADE_MARK
    )


def test_another_node_as_backend_gets_it_by_the_overlay(services: Services) -> None:
    """S-071"""
    end = End(3, IPV4.node_two)
    services.put(VIP["IPv4"], [end])

    outcome = services.send(request(IPV4, "TCP"))

    expected = translated(IPV4, "TCP", end)
    assert outcome == to_node(IPV4.node_two, with_macs(expected, src=OVERLAY_MAC, dst=GATEWAY_MAC))


def test_both_entries_of_a_flow_are_written_turned_round(
    services: Services, family: Family, protocol: str
) -> None:
    """S-116, S-120"""
    end = End(3, family.pod_far, target(protocol), generation=9)
    services.put(VIP[family.name], [end], protocol=protocol)
    here, there = (family.pod_one, CLIENT), (family.pod_far, target(protocol))
    front = (VIP[family.name], PORT)

    services.send(request(family, protocol))

    flows = services.flows()
    assert {key: flow.to for key, flow in flows.items()} == {
        (*here, *front): (*here, *there),
        (*there, *here): (*front, *here),
    }
    assert {(flow.backend, flow.generation) for flow in flows.values()} == {(3, 9)}
    seconds = {"TCP": 60, "UDP": 30, "SCTP": 60}[protocol]
    assert all(seconds - 5 < flow.expires_in <= seconds for flow in flows.values())


def test_a_port_that_the_service_does_not_have_is_rejected(
    services: Services, family: Family, protocol: str
) -> None:
    """S-057, S-059"""
    services.put(VIP[family.name], [End(3, family.pod_two)], protocol=protocol, number=PORT + 1)

    outcome = services.send(request(family, protocol))

    assert outcome == rejected("UNKNOWN_PORT", request(family, protocol))
    assert services.flows() == {}


def test_the_same_port_of_another_protocol_is_another(services: Services, family: Family) -> None:
    """S-005"""
    services.put(VIP[family.name], [End(3, family.pod_two)], protocol="TCP")

    outcome = services.send(request(family, "UDP"))

    assert outcome == rejected("UNKNOWN_PORT", request(family, "UDP"))


def test_an_echo_to_a_service_is_rejected(services: Services) -> None:
    """S-061"""
    from scapy.layers.inet import ICMP

    services.put(VIP["IPv4"], [End(3, IPV4.pod_two)])
    echo = packet(IPV4, "UDP", (IPV4.pod_one, 1, VIP["IPv4"], 1))
    echo = (
        echo.__class__(src=POD_ONE_MAC, dst=GATEWAY_MAC)
        / IPV4.ip(IPV4.pod_one, VIP["IPv4"])
        / ICMP(type=8)
    )

    assert services.send(echo) == rejected("UNKNOWN_PORT", echo)


def test_a_service_without_endpoints_rejects(
    services: Services, family: Family, protocol: str
) -> None:
    """S-055, S-060: nothing remembers it."""
    services.put(VIP[family.name], [], protocol=protocol)

    outcome = services.send(request(family, protocol))

    assert outcome == rejected("NO_ENDPOINT", request(family, protocol))
    assert services.flows() == {}


def test_the_same_socket_connects_once_there_is_an_endpoint(
    services: Services, family: Family, protocol: str
) -> None:
    """S-060, S-077"""
    services.put(VIP[family.name], [], protocol=protocol)
    services.send(request(family, protocol))
    end = End(3, family.pod_two, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)

    outcome = services.send(request(family, protocol))

    assert outcome.path == "POD"


def test_local_without_local_endpoints_drops(services: Services, family: Family) -> None:
    """S-041, S-046"""
    services.put(VIP[family.name], [End(3, family.pod_far)], local=True)

    outcome = services.send(request(family, "TCP"))

    assert outcome == dropped("NO_LOCAL_ENDPOINT", request(family, "TCP"))


def test_local_without_any_endpoint_rejects(services: Services, family: Family) -> None:
    """S-046"""
    services.put(VIP[family.name], [], local=True)

    outcome = services.send(request(family, "TCP"))

    assert outcome == rejected("NO_ENDPOINT", request(family, "TCP"))


def test_local_chooses_only_endpoints_on_this_node(services: Services, family: Family) -> None:
    """S-041"""
    far = [End(number, family.pod_far, TARGET + number) for number in range(4, 12)]
    services.put(VIP[family.name], [*far, End(3, family.pod_two, local=True)], local=True)

    for number in range(30):
        sent = packet(
            family, "TCP", (family.pod_one, CLIENT + number, VIP[family.name], PORT), flags="S"
        )
        assert services.send(sent).redirect == Redirect("redirect_peer", VETH_TWO)


def test_new_flows_are_spread_over_all_endpoints(services: Services, family: Family) -> None:
    """S-039, S-134"""
    ends = [End(number, family.pod_far, TARGET + number) for number in range(1, 6)]
    services.put(VIP[family.name], ends)

    for number in range(200):
        services.send(
            packet(
                family, "TCP", (family.pod_one, CLIENT + number, VIP[family.name], PORT), flags="S"
            )
        )

    chosen = [flow.backend for flow in services.flows().values() if flow.flags & 1]
    assert len(chosen) == 200
    assert all(15 < chosen.count(end.at) < 85 for end in ends)


def test_a_connection_that_began_before_goes_on_as_it_was(
    services: Services, family: Family
) -> None:
    """S-142: kube-proxy has forwarded it, and still does."""
    services.put(VIP[family.name], [End(3, family.pod_two)])
    sent = request(family, "TCP", flags="A")

    outcome = services.send(sent)

    assert outcome == to_stack(sent)
    assert services.flows() == {}


def test_a_fragment_is_not_ours(services: Services) -> None:
    services.put(VIP["IPv4"], [End(3, IPV4.pod_two)], protocol="UDP")
    sent = request(IPV4, "UDP")
    sent["IP"].flags = "MF"

    assert services.send(sent) == to_stack(sent)


def test_what_goes_to_the_world_is_not_touched(
    services: Services, family: Family, protocol: str
) -> None:
    services.put(VIP[family.name], [End(3, family.pod_two)], protocol=protocol)
    sent = packet(family, protocol, (family.pod_one, CLIENT, family.world, PORT))

    assert services.send(sent) == to_stack(sent)
    assert services.flows() == {}


def test_a_spoofed_source_reaches_no_service(services: Services, family: Family) -> None:
    """S-047, S-138"""
    services.put(VIP[family.name], [End(3, family.pod_two)])
    sent = packet(family, "TCP", (family.pod_two, CLIENT, VIP[family.name], PORT), flags="S")

    assert services.send(sent) == dropped("SPOOFED_SOURCE", sent)


def test_a_udp_datagram_without_a_sum_gets_none(services: Services) -> None:
    """S-099"""
    end = End(3, IPV4.pod_two)
    services.put(VIP["IPv4"], [end], protocol="UDP")

    outcome = services.send(request(IPV4, "UDP", chksum=0))

    expected = translated(IPV4, "UDP", end, chksum=0)
    assert outcome.packet == bytes(with_macs(expected, src=GATEWAY_MAC, dst=POD_TWO_MAC))
