# SPDX-License-Identifier: Apache-2.0
"""Every way into a client's pod: an answer comes from the Service again (S-137, chapter 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from scapy.packet import Packet

from bpf.dataplane import Dataplane
from bpf.layout import ON
from bpf.outcomes import Outcome, into_pod, out_of_veth, passed, with_macs
from bpf.service_world import (
    VIP,
    End,
    Services,
    answer,
    packet,
    request,
    seen,
    swapped,
    target,
)
from bpf.test_own_decap import outside, udp, vxlan
from bpf.world import (
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    POD_ONE_MAC,
    POD_TWO_MAC,
    ROUTER_MAC,
    VETH_ONE,
    VETH_TWO,
    Family,
    NextHop,
    cluster,
)

pytestmark = pytest.mark.root


def begin(services: Services, family: Family, protocol: str, address: str) -> End:
    """A flow of pod one to an endpoint at an address."""
    end = End(3, address, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)
    services.send(request(family, protocol))
    return end


def arrived(family: Family, protocol: str) -> Packet:
    """The answer as pod one gets it."""
    return with_macs(seen(family, protocol), src=GATEWAY_MAC, dst=POD_ONE_MAC)


def from_far(packet: Packet) -> Packet:
    return with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)


def test_from_a_pod_of_this_node(services: Services, family: Family, protocol: str) -> None:
    end = begin(services, family, protocol, family.pod_two)
    services.dataplane.fill(swapped())
    sent = with_macs(answer(family, protocol, end), src=POD_TWO_MAC, dst=GATEWAY_MAC)

    outcome = services.send(sent)

    assert outcome == into_pod(VETH_TWO, arrived(family, protocol))


def test_from_another_node_by_our_own_decapsulation(
    services: Services, family: Family, protocol: str
) -> None:
    end = begin(services, family, protocol, family.pod_far)
    sent = outside(IPV4) / udp() / vxlan() / from_far(answer(family, protocol, end))

    outcome = services.dataplane.run("from_underlay", sent)

    wanted = with_macs(seen(family, protocol), src=GATEWAY_MAC, dst=POD_ONE_MAC)
    if family is IPV4:
        assert outcome == into_pod(VETH_ONE, wanted)
    else:
        assert outcome.packet == bytes(wanted)


def test_from_another_node_by_the_kernels_device(
    services: Services, family: Family, protocol: str
) -> None:
    end = begin(services, family, protocol, family.pod_far)
    services.dataplane.arrive_from(IPV4.node_two)

    outcome = services.dataplane.run("from_overlay", from_far(answer(family, protocol, end)))

    assert outcome == into_pod(VETH_ONE, arrived(family, protocol))


def test_from_another_nodes_own_address(services: Services) -> None:
    """S-071"""
    end = begin(services, IPV4, "TCP", IPV4.node_two)
    services.dataplane.arrive_from(IPV4.node_two)

    outcome = services.dataplane.run("from_overlay", from_far(answer(IPV4, "TCP", end)))

    assert outcome == into_pod(VETH_ONE, arrived(IPV4, "TCP"))


def test_from_the_hosts_stack(services: Services, family: Family, protocol: str) -> None:
    """S-070: this node's own processes, and the world."""
    end = begin(services, family, protocol, family.world)

    outcome = services.dataplane.run("to_container", answer(family, protocol, end))

    assert outcome == passed(arrived(family, protocol), "POD")


def test_into_a_pod_with_a_limit_it_is_undone_once(
    services: Services, family: Family, protocol: str
) -> None:
    end = begin(services, family, protocol, family.pod_far)
    services.dataplane.fill(cluster(IPV4, shaped=True))
    services.dataplane.arrive_from(IPV4.node_two)

    first = services.dataplane.run("from_overlay", from_far(answer(family, protocol, end)))
    services.dataplane.arrive_from(None)
    second = services.dataplane.run("to_container", first.packet)

    undone = with_macs(seen(family, protocol), src=OVERLAY_MAC, dst=GATEWAY_MAC)
    assert first == out_of_veth(VETH_ONE, undone)
    assert second == passed(arrived(family, protocol), "POD")


def test_from_another_node_without_outer_headers(
    make_dataplane: Callable[..., Dataplane], family: Family, protocol: str
) -> None:
    services = Services(make_dataplane(IPV4, services=ON, direct=b"\1"))
    hop = NextHop(ifindex=VETH_ONE, dst_mac=ROUTER_MAC, on_link=True, direct=True)
    services.dataplane.fill(replace(cluster(IPV4), nexthops={IPV4.node_two: hop}))
    end = begin(services, family, protocol, family.pod_far)
    sent = with_macs(answer(family, protocol, end), src=ROUTER_MAC, dst="00:00:00:00:00:00")

    outcome = services.dataplane.run("from_underlay", sent)

    assert outcome == into_pod(VETH_ONE, arrived(family, protocol))


def test_a_packet_that_is_no_answer_stays_as_it_is(
    services: Services, family: Family, protocol: str
) -> None:
    """S-137"""
    end = begin(services, family, protocol, family.pod_far)
    ends = (end.address, end.port + 1, family.pod_one, 40000)
    sent = packet(family, protocol, ends, src_mac=FOREIGN_MAC)

    outcome = services.dataplane.run("to_container", sent)

    assert outcome == passed(with_macs(sent, src=GATEWAY_MAC, dst=POD_ONE_MAC), "POD")


def test_an_expired_flow_undoes_nothing(services: Services, family: Family, protocol: str) -> None:
    end = begin(services, family, protocol, family.pod_far)
    services.change_flows(expires=1)

    outcome: Outcome = services.dataplane.run("to_container", answer(family, protocol, end))

    wanted = with_macs(answer(family, protocol, end), src=GATEWAY_MAC, dst=POD_ONE_MAC)
    assert outcome == passed(wanted, "POD")
