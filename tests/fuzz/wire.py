# SPDX-License-Identifier: Apache-2.0
"""Random frames of a pod and of a host on the underlay, against the rules of the overlay.

`python -m fuzz.wire --count 10000000`, in tests/, runs on every processor and says what went where.
The same seed gives the same frames. Nothing is attached or pinned: BPF_PROG_TEST_RUN.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from multiprocessing import get_context
from pathlib import Path

from bpf.dataplane import (
    FIRST,
    IP6_LENGTH,
    KEY_SIZE,
    REDIRECT_RECORD,
    TUNNEL_RECORD,
    Dataplane,
    compile_recorded,
)
from bpf.outcomes import Action
from bpf.world import (
    FAMILIES,
    IPV4,
    IPV6,
    POD_ONE_MAC,
    POD_TWO_MAC,
    STACK_IFINDEX,
    UPLINK_IFINDEX,
    VETH_ONE,
    VETH_TWO,
    VNI,
    VXLAN_IFINDEX,
    Endpoint,
    Family,
    NextHop,
    Tables,
    cluster,
)
from fuzz.wire_frames import link_local, of_a_pod, of_a_stranger
from fuzz.wire_rules import Outer, Read, Rules, is_answer, unwrap
from loader import libbpf
from loader.objects import Objects

COUNT = 10_000_000
REDIRECT, REDIRECT_PEER = 1, 2
BPF_F_TUNINFO_IPV6, BPF_F_INGRESS = 1, 1

Went = tuple[int, int, int]
"""What a program did last: helper, interface, flags."""


class Runs:
    """A program, run as often as may be: no allocation for each packet."""

    def __init__(self, dataplane: Dataplane, program: str) -> None:
        self._dataplane, self._program = dataplane, program
        self._fd = dataplane.programs[program].fd
        self._run = libbpf.library().bpf_prog_test_run_opts
        self._out = ctypes.create_string_buffer(4096)
        self._redirect = dataplane.maps["last_redirect"]
        self._tunnel = dataplane.maps["last_tunnel"]
        self._options = libbpf._TestRunOpts(
            sz=ctypes.sizeof(libbpf._TestRunOpts),
            data_out=ctypes.addressof(self._out),
            repeat=1,
        )

    def __call__(self, frame: bytes) -> tuple[int, bytes]:
        """Action and packet."""
        if len(frame) < IP6_LENGTH:  # test_run takes no shorter ones
            result = self._dataplane.test_run(self._program, frame)
            return result.action, result.packet
        options = self._options
        options.data_in = frame
        options.data_size_in = len(frame)
        options.data_size_out = len(self._out)
        libbpf.check(self._run(self._fd, ctypes.byref(options)), "test run")
        return ctypes.c_int32(options.retval).value, self._out.raw[: options.data_size_out]

    def went(self) -> Went:
        """Arguments of the last redirect."""
        helper, ifindex, flags, *_ = REDIRECT_RECORD.unpack(self._redirect.lookup(FIRST) or b"")
        return helper, ifindex, flags

    def vtep(self) -> bytes:
        """That of the last tunnel key."""
        record = TUNNEL_RECORD.unpack(self._tunnel.lookup(FIRST) or b"")
        remote, flags = record[1], record[8]
        return bytes(remote) if flags & BPF_F_TUNINFO_IPV6 else bytes(remote[3::-1])


@dataclass(frozen=True)
class World:
    """What is loaded, and who sends."""

    sender: str
    """"pod" or "stranger"."""
    underlay: Family = IPV4
    flags: tuple[str, ...] = ()
    """Of the pods."""
    config: tuple[str, ...] = ()
    """What is on in struct config."""

    @property
    def name(self) -> str:
        return "-".join((self.sender, self.underlay.name, *self.flags, *self.config))

    def tables(self) -> Tables:
        """Pods that have their addresses by DHCP, too, and next hops to all nodes."""
        tables = cluster(self.underlay, **dict.fromkeys(self.flags, True))
        asking = {
            link_local(mac): Endpoint(ifindex, mac)
            for mac, ifindex in ((POD_ONE_MAC, VETH_ONE), (POD_TWO_MAC, VETH_TWO))
        }
        hops = {vtep: NextHop() for vtep in tables.vteps}
        return replace(tables, endpoints={**tables.endpoints, **asking}, nexthops=hops)


WORLDS = (
    World("pod"),
    World("pod", IPV6, config=("own_encap",)),
    World("pod", flags=("masquerade",), config=("own_encap",)),
    World("pod", flags=("masquerade", "queued")),
    World("pod", IPV6, flags=("shaped",), config=("own_encap",)),
    World("pod", config=("netkit",)),
    World("stranger", config=("own_encap",)),
    World("stranger", IPV6, config=("own_encap",)),
    World("stranger", flags=("shaped",)),
)


class Wrong(AssertionError):
    """A frame was delivered to somebody who may not have it."""


class Trial:
    """One world, and what became of the frames in it."""

    def __init__(self, world: World, dataplane: Dataplane) -> None:
        tables = world.tables()
        dataplane.fill(tables)
        dataplane.arrive_from(None)
        self.seen: Counter[str] = Counter()
        self._world = world
        self._dataplane = dataplane
        self._rules = Rules(tables, world.underlay, FAMILIES)
        self._from_container = Runs(dataplane, "from_container")
        self._from_underlay = Runs(dataplane, "from_underlay")
        self._from_overlay = Runs(dataplane, "from_overlay")
        strangers = (world.underlay.stranger, world.underlay.world, world.underlay.pod_far)
        nodes = (world.underlay.node_two,) * 4 + (
            world.underlay.node_three,
            world.underlay.node_one,
        )
        self._sources = tuple(ip_address(one).packed for one in (*nodes, *strangers))

    def run(self, chance: random.Random, count: int) -> None:
        """Send `count` frames. Raises Wrong for the first that somebody gets who may not."""
        one = self._pod if self._world.sender == "pod" else self._stranger
        for number in range(count):
            frame = self._make(chance)
            if fault := one(frame):
                raise Wrong(f"frame {number}: {fault}\n{frame.hex(' ')}")

    def _make(self, chance: random.Random) -> bytes:
        if self._world.sender == "pod":
            return of_a_pod(chance)
        return of_a_stranger(chance, self._sources, self._rules.own_vtep)

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
        helper, ifindex, flags = self._from_container.went()
        if is_answer(frame, after) and ifindex == VETH_ONE:
            self.seen["answered"] += 1
            return None
        if (helper, ifindex, flags) == (REDIRECT, STACK_IFINDEX, BPF_F_INGRESS):
            self.seen["to the stack"] += 1
            return self._stacked(frame, after)
        packet, refused = self._rules.of_pod(VETH_ONE, frame)
        if packet is None or refused:
            return f"redirected to {ifindex}, but {refused}"
        if helper == REDIRECT and ifindex in (VXLAN_IFINDEX, UPLINK_IFINDEX):
            self.seen["to a node"] += 1
            return self._sent(packet, frame, after, ifindex)
        self.seen["to a pod"] += 1
        return self._rules.to_pod(packet, frame, after, ifindex)

    def _queued(self, frame: bytes, after: bytes) -> str | None:
        """The qdisc gives it to the stack, which routes it to pods, too."""
        packet, refused = self._rules.of_pod(VETH_ONE, frame)
        if packet is None or refused or after != frame:
            return f"left to a qdisc, but {refused}"
        if packet.dst in self._rules.endpoints or self._rules.owner(packet.dst):
            return None
        return (
            self._rules.to_stack(packet)
            if packet.dst not in self._rules.vteps
            else (self._rules.out_of_pods(packet))
        )

    def _stacked(self, frame: bytes, after: bytes) -> str | None:
        if self._rules.is_dhcp(VETH_ONE, frame):
            return None if after == frame else "changed"
        packet, refused = self._rules.of_pod(VETH_ONE, frame)
        if packet is None or refused or after[12:] != frame[12:]:
            return f"to the stack, but {refused}"
        return self._rules.to_stack(packet)

    def _sent(self, packet: Read, frame: bytes, after: bytes, ifindex: int) -> str | None:
        if ifindex == VXLAN_IFINDEX:
            inside, vtep = after, self._from_container.vtep()
        else:
            outer = unwrap(after)
            if outer is None or (outer.src, outer.vni) != (self._rules.own_vtep, VNI):
                return "wrong outer headers"
            inside, vtep = outer.inside, outer.dst
        if inside[12:] != frame[12:]:
            return "changed"
        return self._rules.to_node(packet, vtep)

    def _stranger(self, frame: bytes) -> str | None:
        action, after = self._from_underlay(frame)
        if action == Action.SHOT:
            self.seen["dropped"] += 1
            return None
        outer = unwrap(frame)
        if action == Action.REDIRECT:
            if outer is None or outer.vni != VNI or outer.dst != self._rules.own_vtep:
                return "delivered, but no VXLAN of ours"
            self.seen["to a pod"] += 1
            return self._arrived(outer, after, self._from_underlay.went()[:2])
        if action != Action.UNSPEC or after != frame:
            return f"action {action}"
        if outer is None:
            self.seen["left to the host"] += 1
            return None
        return self._through_the_device(outer)

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
            return self._arrived(outer, after, self._from_overlay.went()[:2])
        packet, refused = self._rules.from_node(outer.src, outer.inside)
        if packet is None or refused:
            return f"to the stack, but {refused}"
        self.seen["to the stack"] += 1
        return self._rules.into_stack(packet)

    def _arrived(self, outer: Outer, after: bytes, went: tuple[int, int]) -> str | None:
        packet, refused = self._rules.from_node(outer.src, outer.inside)
        if packet is None or refused:
            return f"delivered to {went[1]}, but {refused}"
        if not _same_but_marks(outer.inside, after):
            return "changed"
        return self._rules.to_pod(packet, outer.inside, after[:12] + outer.inside[12:], went[1])


def _same_but_marks(before: bytes, after: bytes) -> bool:
    """Whether at most congestion marks differ, which test_own_decap.py tests, and the MACs."""
    if before[12:] == after[12:]:
        return True
    marked = {14, 15, 24, 25} if before[12:14] == b"\x08\x00" else {15}
    return len(before) == len(after) and all(
        one == other or at in marked
        for at, (one, other) in enumerate(zip(before, after, strict=True))
        if at >= 12
    )


@contextmanager
def loaded(objects: Objects, world: World) -> Iterator[Dataplane]:
    config = dict.fromkeys(world.config, b"\1")
    with Dataplane(objects, world.underlay, **config) as dataplane:
        yield dataplane


def trial(objects: Objects, world: World, *, seed: int, count: int) -> Counter[str]:
    """Send `count` frames in a world; what became of them. Raises Wrong."""
    with loaded(objects, world) as dataplane:
        one = Trial(world, dataplane)
        try:
            one.run(random.Random(f"{seed} {world.name}"), count)
        except Wrong as wrong:
            raise Wrong(f"{world.name}, seed {seed}, {wrong}") from None
        counted = sum(packets for packets, _ in dataplane.drops().values())
    dropped = one.seen["dropped"] + one.seen["dropped behind the device"]
    if counted != dropped:
        raise Wrong(f"{world.name}, seed {seed}: {dropped} dropped, {counted} counted")
    return one.seen


def run(objects: Objects, *, seed: int, count: int, report: Callable[[str], object]) -> None:
    """`count` frames in all worlds, on all processors. Raises Wrong."""
    share = count // len(WORLDS)
    begin = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        work = {
            world: pool.submit(trial, objects, world, seed=seed, count=share) for world in WORLDS
        }
        for world, future in work.items():
            report(f"{world.name}: {_table(future.result())}")
    report(f"{share * len(WORLDS)} frames, 0 delivered wrongly, {time.monotonic() - begin:.0f} s")


def _table(seen: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(seen.items()))


def main() -> None:
    """Exit status 0 if nobody got what he may not have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as directory:
        objects = compile_recorded(Path(directory))
        run(objects, seed=options.seed, count=options.count, report=_say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
