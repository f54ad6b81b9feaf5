# SPDX-License-Identifier: Apache-2.0
"""The uplink's MTU and the overlay's: what differs, and who may put it right."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

from pycni.faults import Fault, Weight
from pycni.kernel.addresses import IFA_F_DADFAILED
from pycni.kernel.links import Link
from pycni.kernel.routes import RTN_LOCAL, RTN_UNICAST, Route
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.upkeep import uplink
from pycni.upkeep.description import Description
from unit.node.around import ETH0, around, held

POD_CIDR, CLUSTER = ip_network("10.244.0.0/24"), ip_network("10.244.0.0/16")
NODE = Node("n1", 1, ip_address("192.0.2.1"), (POD_CIDR,), (CLUSTER,), "eth0", 1450, 4789)


def faults(
    *,
    mtu: int = 0,
    link: Link = ETH0,
    named: str = "eth0",
    vtep: str = "",
    flags: int = 0,
    kind: int = RTN_LOCAL,
) -> list[Fault]:
    """With these settings, of a node that was set up with eth0, 192.0.2.1 and 1450 bytes."""
    settings = Settings(uplink=named, vtep=vtep, mtu=mtu, cluster_cidrs=(str(CLUSTER),))
    addresses = [held(link, "192.0.2.1/24", flags), held(link, "192.0.2.7/24")]
    ipr = SimpleNamespace(route_to=lambda to: Route(ip_network(to), link.ifindex, kind=kind))
    seen: Any = SimpleNamespace(
        ipr=ipr, link=lambda _: link, around=around(addresses, links=[link])
    )
    return list(uplink.faults(Description(settings, NODE), seen))


def test_an_uplink_as_setup_found_it_is_no_fault() -> None:
    assert faults() == []
    assert faults(mtu=1450) == []


def test_an_address_that_the_kernel_does_not_take_for_its_own_is_for_a_person() -> None:
    (fault,) = faults(kind=RTN_UNICAST)

    assert fault.sentence == "the local route of this node's address 192.0.2.1 is gone"
    todo = "run: ip route add local 192.0.2.1 dev eth0 table local proto kernel src 192.0.2.1"
    assert fault.todo == todo


def test_the_local_routes_of_a_vrf_are_in_its_table() -> None:
    assert faults(kind=RTN_UNICAST, link=ETH0._replace(master=9)) == []


def test_an_uplink_with_another_mtu_is_for_setup_to_follow() -> None:
    (lower,) = faults(link=ETH0._replace(mtu=1400))
    (higher,) = faults(link=ETH0._replace(mtu=9000))

    assert lower.sentence == "eth0 is one with the MTU 1400; the overlay was made for one of 1500"
    assert (lower.todo, lower.weight) == ("", Weight.BROKEN)
    assert (higher.todo, higher.weight) == ("", Weight.DEGRADED)


def test_settings_with_another_mtu_are_for_a_person_to_apply() -> None:
    (fault,) = faults(mtu=1300)

    assert fault.sentence == "the overlay's MTU is 1450, and `mtu` in the settings is 1300"
    assert (fault.todo, fault.weight) == ("run: pycni setup", Weight.DEGRADED)


def test_settings_that_the_uplink_does_not_carry_are_for_a_person_to_change() -> None:
    (fault,) = faults(mtu=1450, link=ETH0._replace(mtu=1400))

    assert "leaves 1350 bytes for pods, not 1450" in fault.found
    assert "lower `mtu` in the settings" in fault.todo


def test_more_bytes_than_the_uplink_carries_break_nothing_before_a_setup() -> None:
    (fault,) = faults(mtu=1500)

    assert "leaves 1450 bytes for pods, not 1500" in fault.found
    assert fault.weight is Weight.DEGRADED


def test_settings_that_no_setup_could_follow_break_nothing_before_one() -> None:
    (interface,) = faults(named="eth7")
    (address,) = faults(vtep="192.0.2.9")

    assert interface.sentence == (
        "the uplink by the settings is refused: this node has no interface eth7"
    )
    assert "`uplink` in the settings" in interface.todo
    assert "no interface of this node has the address 192.0.2.9" in address.sentence
    assert {interface.weight, address.weight} == {Weight.DEGRADED}


def test_settings_with_another_address_are_for_a_person_to_apply() -> None:
    (fault,) = faults(vtep="192.0.2.7")

    assert fault.sentence == (
        "the uplink by the settings is eth0 with 192.0.2.7, not eth0 with 192.0.2.1"
    )
    assert (fault.todo, fault.weight) == ("run: pycni setup", Weight.DEGRADED)


def test_an_address_that_another_machine_took_is_no_matter_of_an_edit() -> None:
    (fault,) = faults(vtep="192.0.2.7", flags=IFA_F_DADFAILED)

    assert "taken by another machine" in fault.found
    assert fault.weight is Weight.BROKEN
