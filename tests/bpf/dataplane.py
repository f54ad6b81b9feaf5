# SPDX-License-Identifier: Apache-2.0
"""The five programs loaded for a test, without any device: maps to fill, packets to run.

Compiles with recorded.h in front (which says why). Nothing is pinned or attached: all of it is
gone with the process. Runs in the caller's netns and changes nothing there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from scapy.packet import Packet

from bpf.layout import address, config, mac, prefix, prefix_length
from bpf.outcomes import Action, Outcome, Redirect
from bpf.world import VNI, Family, Fib, Tables
from loader import btf, probe
from loader.bpf import Map, Object, Program, RingBuffer, TestRun
from loader.clang import compile_file, find_clang
from loader.compile import SOURCES, compile_programs
from loader.objects import Objects
from loader.places import OBJECTS, PROGRAMS

Counts = dict[tuple[str, str], tuple[int, int]]

FIRST = struct.pack("=I", 0)
ENDPOINT = struct.Struct("=I6sH")
NEXTHOP = struct.Struct("=II6s6sHH")
REMOTE_KEY = struct.Struct("=I16s")
SELF = struct.Struct("=16sQ")
COUNT = struct.Struct("=QQ")  # struct drop_count, struct path_count
REDIRECT_RECORD = struct.Struct("=IIQI16sI")
FIB_RECORD = struct.Struct("=iI6s6sI16sII")
TUNNEL_RECORD = struct.Struct("=I16sBBHI16sIQ")  # struct bpf_tunnel_key, size, flags
HELPERS = {1: "redirect", 2: "redirect_peer", 3: "redirect_neigh"}
AF_INET, AF_INET6 = 2, 10
ROOM = {"services": 64, "slots": 64, "backends": 64, "flows": 8192, "affinity": 8192}
"""Entries of the maps of Services, which have one where they are off."""
NO_TUNNEL = bytes(TUNNEL_RECORD.size)
FAILS = 0xFFFFFFFF  # recorded.h

IP6_LENGTH = 14 + 40  # with the Ethernet header

# include/uapi/linux/bpf.h
BPF_F_TUNINFO_IPV6 = 1
BPF_F_ZERO_CSUM_TX = 2
BPF_F_DONT_FRAGMENT = 4
KEY_SIZE, KEY_SIZE_WITHOUT_LOCAL = 44, 28


def compile_recorded(directory: Path) -> Objects:
    """The programs behind recorded.h, and unusual.c, compiled below `directory`."""
    sources = directory / "sources"
    sources.mkdir()
    recorder = Path(__file__).with_name("recorded.h")
    for program in OBJECTS:
        includes = (recorder, SOURCES / f"{program}.c")
        text = "".join(f'#include "{path}"\n' for path in includes)
        (sources / f"{program}.c").write_text(text)
    objects = compile_programs(directory / "objects", sources=sources)
    unusual = Path(__file__).with_name("unusual.c")
    compile_file(unusual, objects.path("unusual"), clang=find_clang())
    return objects


def tunnel_address(text: str) -> bytes:
    """An address in struct bpf_tunnel_key: there IPv4 is a number in host order."""
    parsed = ip_address(text)
    raw = parsed.packed if parsed.version == 6 else struct.pack("=I", int(parsed))
    return raw.ljust(16, b"\0")


@cache
def _takes_local_address() -> bool:
    """What setup asks before it tells the programs to write one."""
    return any(one.name == "tunnel_key_local" and one.available for one in probe.probe())


class Dataplane:
    """The programs of node one over `underlay`, sharing maps as they do on a node."""

    def __init__(self, objects: Objects, underlay: Family, **changes: bytes) -> None:
        self.underlay = underlay
        self.reasons = btf.of_object(objects.path(PROGRAMS[0])).enum("drop_reason")
        self.points = btf.of_object(objects.path(PROGRAMS[0])).enum("attach_point")
        self.paths = btf.of_object(objects.path(PROGRAMS[0])).enum("packet_path")
        self.flags = btf.of_object(objects.path(PROGRAMS[0])).enum("endpoint_flag")
        if not _takes_local_address():
            changes["tunnel_key_local"] = b"\0"
        self._local = changes.get("tunnel_key_local") != b"\0"
        self._tables = Tables()
        self._close = ExitStack()
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, Program] = {}
        self._unusual: dict[tuple[str, str], Program] = {}  # ("cut" or "tag", program)
        constants = config(objects, **changes)
        for program in PROGRAMS:
            with Object.open(objects.path(program)) as opened:
                shared = [name for name in opened.maps() if name in self.maps]
                for name in shared:
                    opened.reuse_map(name, self.maps[name].fd)
                for name in opened.maps().keys() & ROOM.keys():
                    opened.set_max_entries(name, ROOM[name])
                opened.set_rodata(constants)
                opened.load()
                for name in opened.maps():
                    if name not in self.maps:
                        self.maps[name] = self._close.enter_context(opened.map(name))
                self.programs[program] = self._close.enter_context(opened.program(program))
            self._put_unusual_before(objects, self.programs[program])
        self.vouch(fresh=True)

    def vouch(self, *, fresh: bool) -> None:
        """Whether the agent vouches for next hops from now on."""
        until = (1 << 63) if fresh else 0
        self.maps["self"].update(FIRST, SELF.pack(address(self.underlay.node_one), until))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def fill(self, tables: Tables) -> None:
        """Make the maps hold exactly `tables`."""
        if tables == self._tables:
            return
        for name in ("endpoints", "remotes", "vteps", "nexthops", "path_mtus", "nodes"):
            for key in self.maps[name].keys():  # noqa: SIM118 (a BPF map, not a dict)
                self.maps[name].delete(key)
        for where, ep in tables.endpoints.items():
            flags = sum(
                number
                for name, number in self.flags.items()
                if getattr(ep, name.removeprefix("ENDPOINT_").lower())
            )
            value = ENDPOINT.pack(ep.ifindex, mac(ep.mac), flags)
            self.maps["endpoints"].update(address(where), value)
        for where, vtep in tables.remotes.items():
            key = REMOTE_KEY.pack(prefix_length(where), prefix(where)[:16])
            self.maps["remotes"].update(key, address(vtep))
        for row, vtep in enumerate(tables.vteps):
            self.maps["vteps"].update(address(vtep), struct.pack("=II", row, 0))
        vteps = (self.underlay.node_one, *tables.vteps)
        for where, vtep in {**{one: one for one in vteps}, **tables.nodes}.items():
            self.maps["nodes"].update(address(where), address(vtep))
        for vtep, hop in tables.nexthops.items():
            value = NEXTHOP.pack(
                hop.ifindex, hop.mtu, mac(hop.dst_mac), mac(hop.src_mac),
                hop.on_link + 2 * hop.direct + 4 * hop.unresolved + 8 * hop.ipip, 0,
            )  # fmt: skip
            self.maps["nexthops"].update(address(vtep), value)
        for vtep, mtu in tables.path_mtus.items():
            self.maps["path_mtus"].update(address(vtep), struct.pack("=I", mtu))
        self._tables = tables

    def arrive_from(self, vtep: str | None, *, vni: int = VNI, to: str = "") -> None:
        """Tunnel metadata of the packets from now on; None: they have none.

        `to` is the outer destination; empty: the node's VTEP.
        """
        record = NO_TUNNEL
        if vtep is not None:
            flags = BPF_F_TUNINFO_IPV6 if ip_address(vtep).version == 6 else 0
            source, target = map(tunnel_address, (vtep, to or self.underlay.node_one))
            record = TUNNEL_RECORD.pack(vni, target, 0, 0, 0, 0, source, KEY_SIZE, flags)
        self.maps["given_tunnel"].update(FIRST, record)

    def arrive_unreadable(self, error: int) -> None:
        """From now on the kernel answers with an error when asked for tunnel metadata."""
        record = TUNNEL_RECORD.pack(VNI, bytes(16), 0, 0, 0, 0, bytes(16), FAILS, error)
        self.maps["given_tunnel"].update(FIRST, record)

    def answer(self, fib: Fib) -> None:
        """What the kernel answers from now on when asked for a route."""
        family, gateway = 0, b""
        if fib.gateway:
            parsed = ip_address(fib.gateway)
            family, gateway = AF_INET if parsed.version == 4 else AF_INET6, parsed.packed
        record = FIB_RECORD.pack(fib.result, fib.ifindex, mac(fib.dst_mac), mac(fib.src_mac),
                                 family, gateway.ljust(16, b"\0"), 0, 0)  # fmt: skip
        self.maps["given_fib"].update(FIRST, record)

    @property
    def asked(self) -> tuple[int, int]:
        """Interface and flags with which the kernel was asked for a route last."""
        *_, ifindex, flags = FIB_RECORD.unpack(self.maps["given_fib"].lookup(FIRST) or b"")
        return ifindex, flags

    def run(
        self, program: str, packet: Packet | bytes, *, mark: int = 0, gso_size: int = 0,
        came_in_on: int = 0,
    ) -> Outcome:  # fmt: skip
        """Run one packet through one program and gather what it did.

        `came_in_on` is the interface it came in on; 0, to which older kernels hold all, is none.
        """
        raw = bytes(packet)
        segments = -(-len(raw) // gso_size) if gso_size else 0
        fields = {"gso_size": gso_size, "gso_segs": segments, "ingress_ifindex": came_in_on}
        return self._observe(program, lambda: self.test_run(program, raw, mark=mark, **fields))

    def _observe(self, program: str, run: Callable[[], TestRun]) -> Outcome:
        """What the run of one packet did."""
        drops, forwarded = self.drops(program), self.forwarded(program)
        self.maps["last_redirect"].update(FIRST, bytes(REDIRECT_RECORD.size))
        self.maps["last_tunnel"].update(FIRST, NO_TUNNEL)
        result = run()
        return Outcome(
            Action(result.action), result.packet, self.last_redirect(), *self.last_tunnel(),
            result.mark, self._dropped(program, drops, len(result.packet)),
            self._path(program, forwarded, len(result.packet)),
        )  # fmt: skip

    def run_as(self, program: str, packet: bytes, claimed: int) -> Outcome:
        """run() of a packet whose skb->protocol is `claimed`, whatever its bytes are."""
        real = int.from_bytes(packet[12:14], "big")
        claims = packet[:12] + claimed.to_bytes(2, "big") + packet[14:]
        liar = self._unusual["lie", program]
        return self._observe(program, lambda: liar.test_run(claims, priority=real))

    def test_run(self, program: str, packet: bytes, **fields: int) -> TestRun:
        """Program.test_run() for packets of any length, and nothing more."""
        if len(packet) >= IP6_LENGTH:
            return self.programs[program].test_run(packet, **fields)
        padded = packet.ljust(IP6_LENGTH, b"\0")
        return self._unusual["cut", program].test_run(padded, priority=len(packet), **fields)

    def test_run_tagged(self, program: str, packet: bytes) -> TestRun:
        """Run a packet whose VLAN tag is in the skb, not in its bytes."""
        return self._unusual["tag", program].test_run(packet)

    def drops(self, program: str = "") -> Counts:
        """(attach point, reason) to (packets, bytes) of all CPUs, where not zero; all or one's."""
        return self._table("drops", self.reasons, "DROP_REASONS", program)

    def forwarded(self, program: str = "") -> Counts:
        """(attach point, path) to (packets, bytes) of all CPUs, where not zero; all or one's."""
        return self._table("forwarded", self.paths, "PATHS", program)

    def _table(self, name: str, columns: dict[str, int], width: str, program: str) -> Counts:
        found = {}
        size = columns[width]
        names = {number: name.split("_", 1)[1] for name, number in columns.items() if name != width}
        points = [program.upper()] if program else self.points.keys() - {"ATTACH_POINTS"}
        for point in points:
            for number in range(size):
                index = struct.pack("=I", self.points[point] * size + number)
                values = self.maps[name].lookup_percpu(index) or []
                counts = [COUNT.unpack(value) for value in values]
                packets, octets = (sum(column) for column in zip(*counts, strict=True))
                if packets or octets:
                    found[point, names[number]] = packets, octets
        return found

    def events(self) -> list[bytes]:
        """The events since the last call, each beginning with struct event."""
        with RingBuffer(self.maps["events"]) as ring:
            return ring.poll(0)

    def last_redirect(self) -> Redirect | None:
        """Arguments of the last redirect since the last run() began."""
        record = self.maps["last_redirect"].lookup(FIRST) or b""
        helper, ifindex, flags, family, neighbour, _ = REDIRECT_RECORD.unpack(record)
        shown = ""
        if family:
            shown = str(ip_address(neighbour[:4] if family == AF_INET else neighbour))
        return Redirect(HELPERS[helper], ifindex, flags, shown) if helper else None

    def _put_unusual_before(self, objects: Objects, program: Program) -> None:
        with Object.open(objects.path("unusual")) as opened:
            opened.load()
            # The kernel empties the array when nobody holds it open.
            goes_on = self._close.enter_context(opened.map("goes_on"))
            goes_on.update(FIRST, struct.pack("=I", program.fd))
            for name in opened.programs():
                before = self._close.enter_context(opened.program(name))
                self._unusual[name, program.name] = before

    def last_tunnel(self) -> tuple[str | None, bool]:
        """The VTEP of the key that was written, after a check of everything else in it, and whether
        the outer packet may be cut."""
        record = self.maps["last_tunnel"].lookup(FIRST) or b""
        vni, remote, tos, ttl, ext, label, local, size, flags = TUNNEL_RECORD.unpack(record)
        if not size:
            return None, False
        v6 = flags & BPF_F_TUNINFO_IPV6
        assert (vni, tos, ttl, ext, label) == (VNI, 0, 64, 0, 0)
        assert local == tunnel_address(self.underlay.node_one)
        assert flags & ~BPF_F_DONT_FRAGMENT == v6 | BPF_F_ZERO_CSUM_TX
        assert size == (KEY_SIZE if self._local else KEY_SIZE_WITHOUT_LOCAL)
        vtep = str(ip_address(remote if v6 else remote[3::-1]))
        return vtep, not flags & BPF_F_DONT_FRAGMENT

    def _dropped(self, program: str, before: Counts, length: int) -> dict[str, int]:
        return _since(before, self.drops(program), length)

    def _path(self, program: str, before: Counts, length: int) -> str | None:
        counted = _since(before, self.forwarded(program), length)
        assert set(counted.values()) <= {1}
        assert len(counted) <= 1
        return next(iter(counted), None)


def _since(before: Counts, after: Counts, length: int) -> dict[str, int]:
    """What was counted since `before`, after a check of the bytes."""
    counted = {}
    for (point, name), (packets, octets) in after.items():
        packets_before, octets_before = before.get((point, name), (0, 0))
        if packets != packets_before:
            assert octets - octets_before == length * (packets - packets_before)
            counted[name] = packets - packets_before
    return counted
