# SPDX-License-Identifier: Apache-2.0
"""Random frames in one world, and what became of each: the programs against the rules."""

from __future__ import annotations

import random
import struct
from collections import Counter
from ipaddress import ip_address

from bpf.dataplane import FIRST, KEY_SIZE, TUNNEL_RECORD, Dataplane
from bpf.outcomes import Action
from bpf.world import (
    FOREIGN_MAC,
    NODE_THREE_MAC,
    NODE_TWO_MAC,
    ROUTER_MAC,
    UPLINK_IFINDEX,
    VETH_ONE,
    VNI,
    VXLAN_IFINDEX,
)
from fuzz.wire_frames import Stranger, of_a_pod, of_a_stranger
from fuzz.wire_pools import OWN_MAC, mac
from fuzz.wire_reading import Outer, is_answer, unwrap
from fuzz.wire_rules import Rules
from fuzz.wire_runs import BPF_F_TUNINFO_IPV6, REDIRECT, Runs, Went
from fuzz.wire_ways import Passage, Ways, is_heard
from fuzz.wire_worlds import DIRECT, IPIP, VXLAN, World

TAGGED = 0.005
"""Of the frames have a VLAN tag outside of their bytes."""


class Wrong(AssertionError):
    """A frame was delivered to somebody who may not have it."""


class Trial:
    """One world, and what became of the frames in it."""

    def __init__(self, world: World, dataplane: Dataplane) -> None:
        dataplane.fill(world.tables())
        dataplane.arrive_from(None)
        dataplane.answer(world.kernel)
        self.seen: Counter[str] = Counter()
        self._world = world
        self._dataplane = dataplane
        self._rules = Rules(world)
        self._ways = Ways(self._rules)
        self._from_container = Runs(dataplane, "from_container")
        self._from_underlay = Runs(dataplane, "from_underlay")
        self._from_overlay = Runs(dataplane, "from_overlay")
        self._sender = _stranger(world)

    def run(self, chance: random.Random, count: int) -> None:
        """Send `count` frames. Raises Wrong for the first that somebody gets who may not."""
        is_pod = self._world.sender == "pod"
        one = self._pod if is_pod else self._stranger
        for number in range(count):
            frame = of_a_pod(chance) if is_pod else of_a_stranger(chance, self._sender)
            tagged = chance.random() < TAGGED and len(frame) >= 54  # test_run takes no shorter ones
            if fault := (self._tagged if tagged else one)(frame):
                raise Wrong(f"frame {number}: {fault}\n{frame.hex(' ')}")

    def _tagged(self, frame: bytes) -> str | None:
        """It is of another network."""
        if self._world.sender == "pod":
            self.seen["dropped"] += 1
            action, _ = self._from_container.tagged(frame)
            return None if action == Action.SHOT else "taken from a VLAN"
        self.seen["left to the host"] += 1
        action, after = self._from_underlay.tagged(frame)
        return None if action == Action.UNSPEC and after == frame else "taken from a VLAN"

    def _pod(self, frame: bytes) -> str | None:
        action, after = self._from_container(frame)
        if action == Action.SHOT:
            self.seen["dropped"] += 1
            return None if after[12:] == frame[12:] else "changed, and dropped"
        if action == Action.UNSPEC:
            self.seen["left to a qdisc"] += 1
            return self._queued(frame, after)
        if action != Action.REDIRECT:
            return f"action {action}"
        went = self._from_container.went()
        if is_answer(frame, after) and went.ifindex == VETH_ONE:
            self.seen["answered"] += 1
            return None
        if went.into_stack:
            self.seen["to the stack"] += 1
            return self._stacked(frame, after)
        packet, refused = self._rules.of_pod(VETH_ONE, frame)
        if packet is None or refused:
            return f"redirected to {went.ifindex}, but {refused}"
        if went[:3] == (REDIRECT, VXLAN_IFINDEX, 0):
            self.seen["to a node by the device"] += 1
            same = after[12:] == frame[12:]
            return self._rules.to_node(packet, self._from_container.vtep()) if same else "changed"
        if went.ifindex != UPLINK_IFINDEX:
            self.seen["to a pod"] += 1
            return self._rules.to_pod(packet, frame, after, went.host_end)
        passage = self._ways.leaving(packet, frame, after)
        if passage is None:
            return "wrong outer headers"
        self.seen[f"to a node: {passage.way}"] += 1
        return self._ways.sent(passage, packet, frame, after, went)

    def _queued(self, frame: bytes, after: bytes) -> str | None:
        """The qdisc gives it to the stack, which routes it to pods, too."""
        packet, refused = self._rules.of_pod(VETH_ONE, frame)
        if packet is None or refused or after != frame:
            return f"left to a qdisc, but {refused}"
        if packet.dst in self._rules.endpoints or self._rules.owner(packet.dst):
            return None
        return self._rules.to_stack(packet)

    def _stacked(self, frame: bytes, after: bytes) -> str | None:
        if self._rules.is_dhcp(VETH_ONE, frame):
            return None if after == frame else "changed"
        packet, refused = self._rules.of_pod(VETH_ONE, frame)
        if packet is None or refused or after[12:] != frame[12:]:
            return f"to the stack, but {refused}"
        return self._rules.to_stack(packet)

    def _stranger(self, frame: bytes) -> str | None:
        action, after = self._from_underlay(frame)
        if action == Action.SHOT:
            self.seen["dropped"] += 1
            return None
        if action == Action.REDIRECT:
            return self._taken(frame, after, self._from_underlay.went())
        if action != Action.UNSPEC or after != frame:
            return f"action {action}"
        if fault := self._ways.left(frame):
            return fault
        outer = unwrap(frame) if is_heard(frame) else None
        if outer is None:
            self.seen["left to the host"] += 1
            return None
        return self._through_the_device(outer)

    def _taken(self, frame: bytes, after: bytes, went: Went) -> str | None:
        passages = self._ways.arriving(frame, after)
        if not passages:
            return "delivered, but by no way that its sender has"
        where = "the stack" if went.into_stack else "a pod"
        self.seen[f"to {where}: {passages[0].way}"] += 1
        faults = [self._ways.received(one, frame, after, went) for one in passages]
        return None if None in faults else faults[0]

    def _through_the_device(self, outer: Outer) -> str | None:
        """The kernel takes the outer headers off, and from_overlay sees the rest."""
        flags = BPF_F_TUNINFO_IPV6 if len(outer.src) == 16 else 0
        source, target = (
            one if flags else struct.pack("=I", int.from_bytes(one, "big")).ljust(16, b"\0")
            for one in (outer.src, outer.dst)
        )
        record = TUNNEL_RECORD.pack(outer.vni, target, 0, 0, 0, 0, source, KEY_SIZE, flags)
        self._dataplane.maps["given_tunnel"].update(FIRST, record)
        action, after = self._from_overlay(outer.inside)
        if action == Action.SHOT:
            self.seen["dropped behind the device"] += 1
            return None
        if outer.vni != VNI or outer.dst != self._rules.own_vtep:
            return "taken, but no VXLAN of ours"
        if action == Action.REDIRECT:
            self.seen["to a pod by the device"] += 1
            passage = Passage(VXLAN, outer.src, outer.inside)
            return self._ways.arrived(passage, after, self._from_overlay.went())
        packet, refused = self._rules.from_node(outer.src, outer.inside)
        if packet is None or refused:
            return f"to the stack, but {refused}"
        self.seen["to the stack by the device"] += 1
        return self._rules.into_stack(packet)


def _stranger(world: World) -> Stranger:
    """Whoever he is, he tries what is on most of the time."""
    underlay = world.underlay
    nodes = (*(underlay.node_two,) * 4, underlay.node_three, underlay.node_one)
    others = (underlay.stranger, underlay.world, underlay.pod_far, underlay.seconds[1])
    macs = (*(NODE_TWO_MAC,) * 4, *(ROUTER_MAC,) * 2, NODE_THREE_MAC, FOREIGN_MAC)
    on = [way for way in (DIRECT, IPIP) if way in world.config]
    return Stranger(
        sources=tuple(ip_address(one).packed for one in (*nodes, *others)),
        macs=(*map(mac, macs), OWN_MAC),
        target=ip_address(underlay.node_one).packed,
        ways=(*on * 3, *(VXLAN,) * (2 if on else 8), DIRECT, IPIP),
    )
