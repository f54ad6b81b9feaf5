# SPDX-License-Identifier: Apache-2.0
"""from_container: flows through Services that need another source: of a pod to itself, and of one
whose answers another flow has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpf.outcomes import (
    dropped,
    into_pod,
    with_macs,
)
from bpf.service_world import (
    CLIENT,
    OTHER_VIP,
    PORT,
    TARGET,
    VIP,
    End,
    Services,
    answering,
    packet,
    request,
    target,
)
from bpf.world import (
    GATEWAY_MAC,
    OVERLAY_MAC,
    POD_ONE_MAC,
    VETH_ONE,
    Family,
)

pytestmark = pytest.mark.root


def test_a_pod_reaches_itself_from_the_gateway(services: Services, family: Family) -> None:
    """S-065, S-066, S-160: from a port that no socket and no node port has."""
    services.put(VIP[family.name], [End(3, family.pod_one)])

    outcome = services.send(request(family, "TCP"))

    (source_port,) = {to.to[1] for key, to in services.flows().items() if key[3] == PORT}
    assert 61000 <= source_port < 65536
    expected = packet(
        family, "TCP", (family.gateway, source_port, family.pod_one, TARGET), flags="S"
    )
    assert outcome == into_pod(VETH_ONE, with_macs(expected, src=GATEWAY_MAC, dst=POD_ONE_MAC))


def test_a_pods_answer_to_itself_comes_back_from_the_service(
    services: Services, family: Family, protocol: str
) -> None:
    """S-065, S-066"""
    services.put(VIP[family.name], [End(3, family.pod_one, target(protocol))], protocol=protocol)
    services.send(request(family, protocol))
    (answers,) = (key for key in services.flows() if key[1] == target(protocol))
    more = answering(protocol)

    outcome = services.send(packet(family, protocol, answers, **more))

    ends = (VIP[family.name], PORT, family.pod_one, CLIENT)
    expected = packet(family, protocol, ends, **more)
    assert outcome == into_pod(VETH_ONE, with_macs(expected, src=GATEWAY_MAC, dst=POD_ONE_MAC))


def test_two_services_with_one_endpoint_get_different_source_ports(
    services: Services, family: Family
) -> None:
    """S-085, S-123"""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end])
    services.put(OTHER_VIP[family.name], [replace(end, at=4)], service=2)

    services.send(request(family, "TCP"))
    services.send(
        packet(family, "TCP", (family.pod_one, CLIENT, OTHER_VIP[family.name], PORT), flags="S")
    )

    flows = services.flows()
    first = flows[family.pod_one, CLIENT, VIP[family.name], PORT]
    second = flows[family.pod_one, CLIENT, OTHER_VIP[family.name], PORT]
    assert first.to == (family.pod_one, CLIENT, family.pod_far, TARGET)
    assert second.to[1] >= 61000
    back = flows[family.pod_far, TARGET, family.pod_one, second.to[1]]
    assert back.to == (OTHER_VIP[family.name], PORT, family.pod_one, CLIENT)


def test_sctp_without_a_free_flow_is_dropped(services: Services, family: Family) -> None:
    """S-101, S-123"""
    end = End(3, family.pod_far, PORT)
    services.put(VIP[family.name], [end], protocol="SCTP")
    services.put(OTHER_VIP[family.name], [replace(end, at=4)], service=2, protocol="SCTP")
    services.send(request(family, "SCTP"))
    sent = packet(family, "SCTP", (family.pod_one, CLIENT, OTHER_VIP[family.name], PORT))

    assert services.send(sent) == dropped("NO_FLOW", sent)


def test_a_direct_connection_beside_one_through_a_service_gets_its_own_answers(
    services: Services, family: Family
) -> None:
    """S-086"""
    services.put(VIP[family.name], [End(3, family.pod_far)])
    services.send(request(family, "TCP"))
    direct = (family.pod_one, CLIENT, family.pod_far, TARGET)

    services.send(packet(family, "TCP", direct, flags="S"))

    flows = services.flows()
    own_port = flows[direct].to[1]
    assert own_port >= 61000
    assert flows[family.pod_far, TARGET, family.pod_one, own_port].to == (
        family.pod_far, TARGET, family.pod_one, CLIENT,
    )  # fmt: skip


def test_a_direct_connection_after_one_through_a_service_is_its_own(
    services: Services, family: Family
) -> None:
    """S-086"""
    services.put(VIP[family.name], [End(3, family.pod_far)])
    services.send(request(family, "TCP"))
    services.change_flows(expires=1)
    direct = (family.pod_one, CLIENT, family.pod_far, TARGET)
    sent = packet(family, "TCP", direct, flags="S")

    outcome = services.send(sent)

    assert outcome.packet == bytes(with_macs(sent, src=OVERLAY_MAC, dst=GATEWAY_MAC))
    assert services.flows() == {}
