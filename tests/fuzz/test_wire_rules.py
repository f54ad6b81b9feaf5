# SPDX-License-Identifier: Apache-2.0
"""Each rule about random frames finds what it is for: maps are mixed up, constants are wrong, or a
program takes everything."""

from __future__ import annotations

import pickle
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from bpf.dataplane import Dataplane
from bpf.layout import ON, address, prefix
from bpf.outcomes import Action
from bpf.world import (
    FOREIGN_MAC,
    IPV4,
    IPV6,
    VETH_ONE,
    VXLAN_PORT,
    Family,
    Fib,
    Tables,
)
from fuzz.wire_reading import unwrap_ipip
from fuzz.wire_runs import REDIRECT_PEER, Went
from fuzz.wire_trial import Trial, Wrong
from fuzz.wire_worlds import COMES_IN_ON, HAS_SEEN, LOOKS_FOR, WORLDS, World
from loader.objects import Objects

pytestmark = pytest.mark.root

ENOUGH = 20_000
"""Frames that find a fault as gross as those below."""
TRIES = 500
"""Each ends with the first fault, and one thing that is wrong may break several rules."""

Change = Callable[[Tables, Family], Tables]


def hops(**of_node_two: object) -> Change:
    def change(tables: Tables, underlay: Family) -> Tables:
        hop = replace(tables.nexthops[underlay.node_two], **of_node_two)  # type: ignore[arg-type]
        return replace(tables, nexthops={**tables.nexthops, underlay.node_two: hop})

    return change


def both(**fields: object) -> Change:
    """All next hops."""

    def change(tables: Tables, _: Family) -> Tables:
        changed = {vtep: replace(hop, **fields) for vtep, hop in tables.nexthops.items()}  # type: ignore[arg-type]
        return replace(tables, nexthops=changed)

    return change


def same(tables: Tables, _: Family) -> Tables:
    return tables


def all_pods_are_one(tables: Tables, _: Family) -> Tables:
    one = tables.endpoints[IPV4.pod_one]
    return replace(tables, endpoints={**tables.endpoints, IPV4.pod_two: one})


def all_is_node_twos(tables: Tables, underlay: Family) -> Tables:
    return replace(tables, remotes=dict.fromkeys(tables.remotes, underlay.node_two))


def swapped_macs(tables: Tables, underlay: Family) -> Tables:
    two, three = (tables.nexthops[vtep] for vtep in (underlay.node_two, underlay.node_three))
    swapped = {
        underlay.node_two: replace(two, dst_mac=three.dst_mac),
        underlay.node_three: replace(three, dst_mac=two.dst_mac),
    }
    return replace(tables, nexthops=swapped)


def a_stranger_is_a_node(tables: Tables, underlay: Family) -> Tables:
    return replace(
        tables,
        vteps=(*tables.vteps, underlay.stranger),
        remotes=dict.fromkeys(tables.remotes, underlay.stranger),
        nexthops={**tables.nexthops, underlay.stranger: tables.nexthops[underlay.node_two]},
    )


@dataclass(frozen=True)
class Fault:
    """What is wrong in a world, and what the rules say then."""

    what: str
    world: World
    says: str
    tables: Change = same
    constants: Mapping[str, bytes] = field(default_factory=dict)
    kernel: Fib | None = None
    vtep: str = ""
    """What the node takes for its own."""

    def __str__(self) -> str:
        return f"{self.what}, {self.world.name}"


OFF = b"\0"
OTHER_PORT = struct.pack("!H", VXLAN_PORT + 1)
POD = World("pod")
STRANGER = World("stranger")
POD_DIRECT = World("pod", config=("direct", "own_encap"))
DIRECT = World("stranger", config=("direct", "own_encap"))
POD_IPIP = World("pod", IPV6, config=("ipip", "own_encap"))
IPIP = World("stranger", config=("ipip",))
SOMEBODY_ELSE = "delivered, but by no way that its sender has"

FAULTS = (
    Fault("another port is the overlay's", POD, "VXLAN of a pod",
          constants={"vxlan_port": OTHER_PORT}),
    Fault("pods are mixed up", POD, "another pod's packet", all_pods_are_one),
    Fault("a node speaks for another", STRANGER, "its source is not that node's",
          all_is_node_twos),
    # Without outer headers, in
    Fault("nodes' MACs are mixed up", DIRECT, "its source is not that node's", swapped_macs),
    Fault("a stranger's MAC is a node's", DIRECT, SOMEBODY_ELSE, hops(dst_mac=FOREIGN_MAC)),
    Fault("the kernel knows a stranger", World("stranger", config=("direct",), kernel=HAS_SEEN),
          SOMEBODY_ELSE, kernel=replace(HAS_SEEN, dst_mac=FOREIGN_MAC)),
    Fault("nodes are taken to be on this link", replace(DIRECT, is_away=True), SOMEBODY_ELSE,
          both(ifindex=COMES_IN_ON)),
    Fault("it is on by mistake", STRANGER, SOMEBODY_ELSE, constants={"direct": b"\1"}),
    Fault("it is off by mistake", DIRECT, "left to the host: VXLAN, but not from that node's MAC",
          constants={"direct": OFF}),
    Fault("node two gets VXLAN only", DIRECT, "delivered: VXLAN, but not from that node's MAC",
          hops(direct=False)),
    Fault("the world is the gateway", DIRECT, "not for this node",
          constants={"gateway4": address(IPV4.world), "gateway6": address(IPV6.world)}),
    # Without outer headers, out
    Fault("nodes' MACs are mixed up", POD_DIRECT, "wrong MACs", swapped_macs),
    Fault("all get it", POD_DIRECT, "direct to a node that takes none", both(direct=True)),
    Fault("a router's node is on the link", World("pod", config=("direct", "routed")),
          "no router knows it", hops(on_link=True)),
    Fault("another network is the cluster's", POD_DIRECT, "its receiver does not know it",
          constants={"cluster4": prefix("203.0.0.0/16")}),
    # In IPIP, in
    Fault("a node speaks for another", IPIP, "its source is not that node's", all_is_node_twos),
    Fault("a stranger is a node", IPIP, "of no node", a_stranger_is_a_node),
    Fault("it is on by mistake", STRANGER, SOMEBODY_ELSE, constants={"ipip": ON}),
    Fault("the world is the gateway", IPIP, "not for this node",
          constants={"gateway4": address(IPV4.world), "gateway6": address(IPV6.world)}),
    Fault("it is off by mistake", World("stranger", config=("direct", "ipip")), "IPIP of a pod",
          constants={"ipip": bytes(4)}),
    # In IPIP, out
    Fault("it is off by mistake", POD_IPIP, "IPIP of a pod", constants={"ipip": bytes(4)}),
    Fault("all get it", POD_IPIP, "ipip to a node that takes none", both(ipip=True)),
    Fault("the node takes itself for another", POD_IPIP, "wrong outer headers",
          vtep=IPV6.node_three),
    Fault("a stranger is a node", POD_IPIP, "to no node", a_stranger_is_a_node),
    Fault("a node is taken for another", POD_IPIP, "another node's packet", all_is_node_twos),
    Fault("nodes' MACs are mixed up", World("pod", config=("direct", "ipip")), "wrong MACs",
          swapped_macs),
    Fault("the kernel looks for another", World("pod", config=("ipip",), kernel=LOOKS_FOR),
          "another neighbour", kernel=replace(LOOKS_FOR, gateway=IPV4.stranger)),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_is_set_up_wrongly_is_found(recorded: Objects, fault: Fault) -> None:
    world = fault.world
    underlay = replace(world.underlay, node_one=fault.vtep or world.underlay.node_one)
    constants = {**world.constants(), **fault.constants}
    with Dataplane(recorded, underlay, **constants) as dataplane:
        trial = Trial(world, dataplane)
        dataplane.fill(fault.tables(world.tables(), world.underlay))
        dataplane.answer(fault.kernel or world.kernel)

        assert any(fault.says in said for said in findings(trial))


@dataclass(frozen=True)
class Careless:
    """A program that gives everything to pod one, without an outer header."""

    def __call__(self, frame: bytes) -> tuple[int, bytes]:
        outer = unwrap_ipip(frame)
        return Action.REDIRECT, outer.inside if outer else frame

    def tagged(self, frame: bytes) -> tuple[int, bytes]:
        return Action.OK, frame

    def went(self) -> Went:
        return Went(REDIRECT_PEER, VETH_ONE, 0)


@pytest.mark.parametrize(
    ("world", "says"),
    [
        (POD, "taken from a VLAN"),
        (STRANGER, "taken from a VLAN"),
        (DIRECT, "for another station"),
        (IPIP, "for another station"),
        (IPIP, "it ends behind its outer packet"),
        (IPIP, "it is for a group"),
    ],
    ids=lambda one: one.name if isinstance(one, World) else one,
)
def test_a_program_that_takes_everything_is_found(
    recorded: Objects, world: World, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Dataplane(recorded, world.underlay, **world.constants()) as dataplane:
        trial = Trial(world, dataplane)
        for program in ("_from_container", "_from_underlay"):
            monkeypatch.setattr(trial, program, Careless())

        assert any(says in said for said in findings(trial, tries=10 * TRIES))


def test_a_world_is_the_same_in_another_process() -> None:
    """Each trial has its own."""
    for world in WORLDS:
        there: World = pickle.loads(pickle.dumps(world))

        assert (there.tables(), there.name) == (world.tables(), world.name)


def findings(trial: Trial, tries: int = TRIES) -> Iterator[str]:
    """What is found first, over and over."""
    for seed in range(tries):
        with pytest.raises(Wrong) as found:
            trial.run(random.Random(seed), ENOUGH)
        yield str(found.value)
