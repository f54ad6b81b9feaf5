# SPDX-License-Identifier: Apache-2.0
"""A row of a packet table, and how a row is checked: whole packet in, whole outcome out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from scapy.packet import Packet

from bpf.dataplane import Dataplane
from bpf.outcomes import Action, Outcome, to_node, with_macs
from bpf.world import (
    FAMILIES,
    GATEWAY_MAC,
    NO_ROUTE,
    OVERLAY_MAC,
    VNI,
    Family,
    Fib,
    Tables,
    cluster,
)


@dataclass(frozen=True)
class Case:
    """`tables` are the maps' contents (None: those of `cluster()`); `came_from` is the VTEP in the
    tunnel metadata of the packet, None if it has none."""

    description: str
    packet: Packet | bytes
    outcome: Outcome
    tables: Tables | None = None
    came_from: str | None = None
    vni: int = VNI
    gso_size: int = 0
    mark: int = 0
    came_in_on: int = 0
    fib: Fib = NO_ROUTE


Dataplanes = dict[str, Dataplane]  # by the name of the underlay's family
Rows = Callable[[Family, Family], Iterator[Case]]  # family of the pods, of the underlay


def in_all_families(rows: Rows) -> pytest.MarkDecorator:
    """Parametrize a test as (underlay, case): the table for each family over each underlay."""
    return pytest.mark.parametrize(
        ("underlay", "case"),
        [
            pytest.param(
                underlay, case, id=f"{family.name} over {underlay.name}: {case.description}"
            )
            for underlay in FAMILIES
            for family in FAMILIES
            for case in rows(family, underlay)
        ],
    )


def check(dataplanes: Dataplanes, program: str, underlay: Family, case: Case) -> None:
    """Run the case and compare everything that is seen of it."""
    dataplane = dataplanes[underlay.name]
    dataplane.fill(cluster(underlay) if case.tables is None else case.tables)
    dataplane.arrive_from(case.came_from, vni=case.vni)
    dataplane.answer(case.fib)

    outcome = dataplane.run(
        program, case.packet, mark=case.mark, gso_size=case.gso_size, came_in_on=case.came_in_on
    )

    assert outcome == case.outcome, f"{case.description}\ngot  {outcome}\nwant {case.outcome}"


def check_tagged_is_left(dataplane: Dataplane, tables: Tables, packet: Packet) -> None:
    """With a VLAN tag, which is in the skb, it passes `from_underlay` and is not counted."""
    dataplane.fill(tables)
    before = dataplane.drops(), dataplane.forwarded()

    result = dataplane.test_run_tagged("from_underlay", bytes(packet))

    assert Action(result.action) == Action.UNSPEC
    assert (dataplane.drops(), dataplane.forwarded()) == before


@contextmanager
def unvouched(dataplane: Dataplane) -> Iterator[None]:
    """No agent vouches for next hops meanwhile."""
    dataplane.vouch(fresh=False)
    try:
        yield
    finally:
        dataplane.vouch(fresh=True)


def in_vxlan(underlay: Family, packet: Packet, *, may_be_cut: bool = False) -> Outcome:
    """To node two, by the device."""
    inside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    return to_node(underlay.node_two, inside, may_be_cut=may_be_cut)
