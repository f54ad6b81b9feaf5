# SPDX-License-Identifier: Apache-2.0
"""The ways to other nodes, as the kernel has them: which of them are told, and when it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.cluster import IPAddress
from pycni.faults import Fault, Weight
from pycni.kernel.fib import Path
from pycni.kernel.links import Link
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord
from pycni.upkeep import underlay
from pycni.upkeep.description import Description
from unit.node.around import DUMMY, ETH0, ETH1, LO, around, held, route, way

VTEP = ip_address("192.0.2.1")
NODE = Node("n1", 1, VTEP, (ip_network("10.244.0.0/24"),), (ip_network("10.244.0.0/16"),),
            "eth0", 1450, 4789)  # fmt: skip
OTHERS = [ip_address(f"192.0.2.{number}") for number in range(2, 8)]


def by(link: Link, *addresses: IPAddress) -> dict[IPAddress, Path]:
    return {one: Path(link.ifindex, one, 0) for one in addresses}


def faults(
    paths: dict[IPAddress, Path], others: Iterable[IPAddress] = OTHERS[:2], uplink: Link = ETH0
) -> list[Fault]:
    d, seen = described(others), see(paths, uplink=uplink)
    return list(underlay.faults(d, seen))


def described(others: Iterable[IPAddress]) -> Description:
    records = tuple(other(number, vtep) for number, vtep in enumerate(others, 2))
    return Description(Settings(), NODE, records)


def other(number: int, vtep: IPAddress) -> NodeRecord:
    return NodeRecord(f"n{number}", number, vtep, (ip_network(f"10.244.{number}.0/24"),))


def see(paths: dict[IPAddress, Path], uplink: Link = ETH0, **more: Any) -> Any:
    links = {one.ifindex: one for one in (LO, ETH0, ETH1, DUMMY)}
    addresses = [held(ETH0, "192.0.2.1/24"), held(ETH1, "198.51.100.1/24")]
    known = around(addresses, [route("192.0.2.0/24", way(ETH0))], links.values())
    ipr = SimpleNamespace(
        paths=lambda asked, _: {one: paths[one] for one in asked if one in paths},
        link_at=links.get,
        listed_rules=lambda _: more.get("rules", []),
    )
    return SimpleNamespace(
        ipr=ipr, link=lambda _: uplink, around=known, routes=more.get("routes", [])
    )


def test_ways_by_interfaces_of_other_machines_are_no_fault() -> None:
    assert faults(by(ETH0, OTHERS[0]) | by(ETH1, OTHERS[1])) == []


def test_a_node_without_a_way_is_named_with_its_address() -> None:
    (fault,) = faults(by(ETH0, OTHERS[0]))

    assert fault.part == "underlay"
    assert fault.sentence == (
        "the way to node n3 (192.0.2.3) is nowhere: this node has no route there"
    )
    assert "ip route get 192.0.2.3 from 192.0.2.1" in fault.todo
    assert fault.weight is Weight.DEGRADED


@pytest.mark.parametrize("link", [LO, DUMMY])
def test_a_way_into_the_host_is_named_with_its_interface(link: Link) -> None:
    (fault,) = faults(by(ETH0, OTHERS[0]) | by(link, OTHERS[1]))

    assert fault.found == f"out of {link.ifname}, which is no uplink of this node"


@pytest.mark.parametrize(
    ("where", "is_fault"), [("198.18.0.0/16", False), (f"{OTHERS[0]}/32", True)]
)
def test_a_way_by_another_table_needs_no_address(where: str, is_fault: bool) -> None:
    bare = ETH1._replace(ifindex=77, ifname="eth7")
    seen = see(by(bare, OTHERS[0]), routes=[route(where, way(bare))._replace(table=100)])
    seen.around.links[bare.ifindex] = bare

    assert bool(list(underlay.faults(described(OTHERS[:1]), seen))) is is_fault


def test_no_way_to_anybody_breaks_the_node_and_few_are_named() -> None:
    found = faults({}, OTHERS)

    assert {one.weight for one in found} == {Weight.BROKEN}
    assert [one.thing for one in found] == [
        "the way to node n2 (192.0.2.2)",
        "the way to node n3 (192.0.2.3)",
        "the way to node n4 (192.0.2.4)",
        "the way to 3 more nodes",
    ]
    assert all(one.todo for one in found)


def test_without_an_uplink_the_row_uplink_says_enough() -> None:
    assert faults({}, uplink=ETH0._replace(flags=0)) == []


def test_nobody_is_asked_again_as_long_as_the_kernel_has_the_same() -> None:
    d = described(OTHERS)
    before = underlay.state(d, see({}))

    assert underlay.state(d, see({})) == before
    assert underlay.state(d, see({}, routes=[route("192.0.2.0/24", way(ETH1))])) != before
    assert underlay.state(d, see({}, rules=["prohibit"])) != before
