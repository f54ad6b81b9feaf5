# SPDX-License-Identifier: Apache-2.0
"""DHCP: what a pod without an address may ask, and how it is answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.cases import Case, Dataplanes, check
from bpf.outcomes import dropped, out_of_veth, passed, to_stack, with_macs
from bpf.world import (
    BROADCAST_MAC,
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    POD_ONE_MAC,
    POD_TWO_MAC,
    VETH_ONE,
    VETH_TWO,
    Endpoint,
    Tables,
    cluster,
)
from pycni.kernel.links import link_local

pytestmark = pytest.mark.root

ALL = "255.255.255.255"
FREE = "10.1.1.77"  # of this node, and no pod's yet


def clients() -> Tables:
    """Both pods of this node ask by DHCP."""
    tables = cluster(IPV4)
    asking = {
        str(link_local(POD_ONE_MAC)): Endpoint(VETH_ONE, POD_ONE_MAC),
        str(link_local(POD_TWO_MAC)): Endpoint(VETH_TWO, POD_TWO_MAC),
    }
    return replace(tables, endpoints={**tables.endpoints, **asking})


def ask(*, src: str = "0.0.0.0", mac: str = POD_ONE_MAC, client: str = "", **ip: Any) -> Packet:
    fields: dict[str, Any] = {"src": src, "dst": ALL} | ip
    eth = Ether(src=mac, dst=BROADCAST_MAC)
    message = BOOTP(chaddr=bytes.fromhex((client or mac).replace(":", "")), xid=7)
    return eth / IP(**fields) / UDP(sport=68, dport=67) / message / DHCP(options=["end"])


def answer(*, client: str = POD_ONE_MAC, dst: str = ALL, eth_dst: str = BROADCAST_MAC) -> Packet:
    eth = Ether(src=GATEWAY_MAC, dst=eth_dst)
    message = BOOTP(op=2, chaddr=bytes.fromhex(client.replace(":", "")), xid=7, yiaddr=FREE)
    return (
        eth
        / IP(src=IPV4.gateway, dst=dst)
        / UDP(sport=67, dport=68)
        / message
        / DHCP(options=["end"])
    )


def questions() -> Iterator[Case]:
    packet = ask()
    yield Case("by a pod without an address", packet, to_stack(packet), clients())
    packet = ask(src=IPV4.pod_one)
    yield Case("by a pod that has one", packet, to_stack(packet), clients())
    packet = ask()
    yield Case("not in a network with DHCP", packet, dropped("MULTICAST", packet))
    packet = ask(src=IPV4.pod_two)
    yield Case("from another's address", packet, dropped("SPOOFED_SOURCE", packet), clients())
    packet = ask(mac=FOREIGN_MAC, client=POD_ONE_MAC)
    yield Case("from a MAC that is not its own", packet, dropped("SPOOFED_MAC", packet), clients())
    packet = ask(client=POD_TWO_MAC)
    yield Case("for another pod", packet, dropped("MULTICAST", packet), clients())
    packet = ask(client=FOREIGN_MAC)
    yield Case("for nobody", packet, dropped("MULTICAST", packet), clients())
    packet = ask(dst=IPV4.group)
    yield Case("to a group", packet, dropped("MULTICAST", packet), clients())
    packet = ask(flags="MF")
    yield Case("a fragment", packet, dropped("MULTICAST", packet), clients())
    packet = ask()
    packet[UDP].dport = 68
    yield Case("to a client's port", packet, dropped("MULTICAST", packet), clients())
    packet = ask()
    packet[UDP].sport = 1068
    yield Case("from another port", packet, dropped("MULTICAST", packet), clients())
    packet = ask()
    packet[BOOTP].hlen = 16
    yield Case("of another kind of link", packet, dropped("MULTICAST", packet), clients())
    packet = Ether(bytes(ask())[:70])
    packet[IP].len = 56
    yield Case("cut before the client's MAC", packet, dropped("MULTICAST", packet), clients())


def answers() -> Iterator[Case]:
    packet = answer()
    yield Case("to all", packet, out_of_veth(VETH_ONE, packet), clients())
    packet = answer(client=POD_TWO_MAC)
    yield Case("to all, for another pod", packet, out_of_veth(VETH_TWO, packet), clients())
    packet = answer(dst=FREE, eth_dst=POD_ONE_MAC)
    yield Case("to the address it offers", packet, out_of_veth(VETH_ONE, packet), clients())
    packet = answer(client=FOREIGN_MAC)
    yield Case("to nobody", packet, dropped("MULTICAST", packet), clients())
    packet = answer(client=FOREIGN_MAC, dst=FREE)
    yield Case("to nobody's address", packet, dropped("MULTICAST", packet), clients())
    packet = answer(dst=FREE, eth_dst=GATEWAY_MAC)
    yield Case("not with DHCP", packet, dropped("UNKNOWN_DESTINATION", packet))


def deliveries() -> Iterator[Case]:
    packet = answer()
    delivered = with_macs(packet, src=GATEWAY_MAC, dst=POD_ONE_MAC)
    yield Case("to all", packet, passed(delivered, "POD"), clients())
    packet = answer(dst=FREE, eth_dst=POD_ONE_MAC)
    delivered = with_macs(packet, src=GATEWAY_MAC, dst=POD_ONE_MAC)
    yield Case("to the address it offers", packet, passed(delivered, "POD"), clients())
    packet = answer(client=POD_TWO_MAC)
    yield Case("for another pod", packet, dropped("MULTICAST", packet), clients())
    packet = answer(client=POD_TWO_MAC, dst=FREE, eth_dst=POD_ONE_MAC)
    yield Case("for another pod's MAC", packet, dropped("WRONG_ENDPOINT", packet), clients())
    packet = answer()
    yield Case("not with DHCP", packet, dropped("MULTICAST", packet))


def named(cases: Iterator[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(one, id=one.description) for one in cases])


@named(questions())
def test_a_pod_asks(dataplanes: Dataplanes, case: Case) -> None:
    check(dataplanes, "from_container", IPV4, case)


@named(answers())
def test_a_server_answers(dataplanes: Dataplanes, case: Case) -> None:
    check(dataplanes, "to_overlay", IPV4, case)


@named(deliveries())
def test_the_pod_gets_the_answer(dataplanes: Dataplanes, case: Case) -> None:
    check(dataplanes, "to_container", IPV4, case)
