# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/direct.py: what `status` says about packets without VXLAN."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.dataplane.maps import Vtep
from pycni.errors import NotAvailable
from pycni.kernel.fib import Path
from pycni.kernel.links import IFF_RUNNING, IFF_UP, Link
from pycni.upkeep import direct

UPLINK = Link(2, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:02", mtu=1500)
TUNNEL = UPLINK._replace(ifindex=3, ifname="wg0", hardware=768)
OWN, NEAR, FAR, TUNNELLED = (ip_address(f"192.0.2.{number}") for number in (3, 7, 8, 9))
GATEWAY = ip_address("192.0.2.1")
PATHS = {NEAR: Path(2, NEAR, 0), FAR: Path(2, GATEWAY, 0), TUNNELLED: Path(3, TUNNELLED, 0)}


class Opened:
    def __init__(self, vteps: Any) -> None:
        self.vteps = vteps

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def items(self) -> Any:
        return self.vteps.items()

    def paths(self, asked: Any, source: Any) -> Any:
        assert source == OWN
        return {vtep: PATHS[vtep] for vtep in asked}

    def links(self, _: Any) -> Any:
        return {2: UPLINK, 3: TUNNEL}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Vtep]:
    """The other nodes of the maps."""
    vteps = {NEAR: Vtep(2, direct=True)}
    monkeypatch.setattr(direct.maps, "open_vteps", lambda _: Opened(vteps))
    monkeypatch.setattr(direct, "Fib", lambda **_: Opened({}))
    return vteps


def described(encap: str, *, routed: bool = False) -> Any:
    return SimpleNamespace(
        settings=SimpleNamespace(encap=encap, pin_root=None),
        node=SimpleNamespace(vtep=OWN, direct="direct" in encap, routed=routed, ipip=False),
        others=(SimpleNamespace(name="far", vtep=FAR),),
    )


def found(d: Any) -> list[str]:
    return [fault.sentence for fault in direct.faults(d, None)]  # type: ignore[arg-type]


@pytest.mark.usefixtures("known")
def test_nodes_on_the_link_are_no_fault() -> None:
    assert found(described("direct")) == []


def test_a_node_behind_a_router_is_named_with_what_to_do(known: dict[Any, Vtep]) -> None:
    known[FAR] = Vtep(3)

    (fault,) = direct.faults(described("direct"), None)  # type: ignore[arg-type]

    assert fault.sentence == (
        "node far is behind the router 192.0.2.1, so packets to it leave as VXLAN"
    )
    assert "auto-direct" in fault.todo


def test_a_node_behind_a_router_that_knows_pods_is_no_fault(known: dict[Any, Vtep]) -> None:
    known[FAR] = Vtep(3, direct=True, routed=True)
    assert found(described("direct", routed=True)) == []

    known[FAR] = Vtep(3, direct=True)
    assert len(found(described("direct", routed=True))) == 1


def test_a_node_over_a_link_without_macs_is_named(known: dict[Any, Vtep]) -> None:
    known[TUNNELLED] = Vtep(3, direct=True, routed=True)

    assert found(described("direct", routed=True)) == [
        "node 192.0.2.9 is on wg0, which is no Ethernet, so packets to it leave as VXLAN"
    ]


def test_many_are_counted(known: dict[Any, Vtep], monkeypatch: pytest.MonkeyPatch) -> None:
    many = {FAR + number: Vtep(number) for number in range(10, 10 + direct.NAMED + 2)}
    known |= many
    monkeypatch.setitem(globals(), "PATHS", PATHS | {one: Path(2, GATEWAY, 0) for one in many})

    assert found(described("direct"))[-1] == (
        "each of 2 more nodes is on no link with this node, either"
    )


@pytest.mark.parametrize("encap", ["auto-direct", "auto"])
def test_where_vxlan_is_on_purpose_it_is_no_fault(known: dict[Any, Vtep], encap: str) -> None:
    known[FAR] = Vtep(3)

    assert found(described(encap)) == []


@pytest.mark.usefixtures("known")
def test_without_pinned_maps_another_part_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Any) -> None:
        raise NotAvailable("there is no map", hint="run: pycni setup")

    monkeypatch.setattr(direct.maps, "open_vteps", missing)

    assert found(described("direct")) == []
