"""The five programs loaded for a test, without any device: maps to fill, packets to run.

Compiles with recorded.h in front (which says why). Nothing is pinned or attached: all of it is
gone with the process. Runs in the caller's netns and changes nothing there.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Self

from outcomes import Action, Outcome, Redirect
from scapy.packet import Packet
from world import (
    GATEWAY_MAC,
    IPV4,
    IPV6,
    MASQUERADE_MARK,
    OVERLAY_IFINDEX,
    OVERLAY_MAC,
    OVERLAY_MTU,
    VNI,
    VXLAN_PORT,
    Family,
    Tables,
)

from loader import btf
from loader.bpf import Map, Object, RingBuffer
from loader.compile import PROGRAMS, SOURCES, Objects, compile_programs

FIRST = struct.pack("=I", 0)
ENDPOINT = struct.Struct("=I6sH")
REMOTE_KEY = struct.Struct("=I16s")
DROP_COUNT = struct.Struct("=QQ")
REDIRECT_RECORD = struct.Struct("=IIQ")
TUNNEL_RECORD = struct.Struct("=I16sBBHI16sIQ")  # struct bpf_tunnel_key, size, flags
HELPERS = {1: "redirect", 2: "redirect_peer"}
NO_TUNNEL = bytes(TUNNEL_RECORD.size)

# include/uapi/linux/bpf.h
BPF_F_TUNINFO_IPV6 = 1
BPF_F_ZERO_CSUM_TX = 2
BPF_F_DONT_FRAGMENT = 4
KEY_SIZE, KEY_SIZE_WITHOUT_LOCAL = 44, 28


def compile_recorded(directory: Path) -> Objects:
    """The programs behind recorded.h, compiled below `directory`."""
    sources = directory / "sources"
    sources.mkdir()
    recorder = Path(__file__).with_name("recorded.h")
    for program in PROGRAMS:
        includes = (recorder, SOURCES / f"{program}.c")
        text = "".join(f'#include "{path}"\n' for path in includes)
        (sources / f"{program}.c").write_text(text)
    return compile_programs(directory / "objects", sources=sources)


def address(text: str) -> bytes:
    """union ip_addr"""
    parsed = ip_address(text)
    return bytes(10) + b"\xff\xff" + parsed.packed if parsed.version == 4 else parsed.packed


def prefix_length(text: str) -> int:
    """Counted from the top of the 128 bits."""
    network = ip_network(text)
    return network.prefixlen + 128 - network.max_prefixlen


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def prefix(text: str) -> bytes:
    """struct prefix"""
    mask = (1 << 128) - (1 << 128 - prefix_length(text))
    return address(str(ip_network(text).network_address)) + mask.to_bytes(16, "big")


def config(objects: Objects, underlay: Family, **changes: bytes) -> bytes:
    """struct config by member name, whatever its layout; `changes` are raw members."""
    members = {
        "vni": struct.pack("=I", VNI),
        "overlay_ifindex": struct.pack("=I", OVERLAY_IFINDEX),
        "overlay_mtu": struct.pack("=I", OVERLAY_MTU),
        "masquerade_mark": struct.pack("=I", MASQUERADE_MARK),
        "event_mask": struct.pack("=I", 0),
        "vxlan_port": struct.pack("!H", VXLAN_PORT),
        "gateway_mac": mac(GATEWAY_MAC),
        "overlay_mac": mac(OVERLAY_MAC),
        "tunnel_key_local": b"\1",
        "vtep": address(underlay.node_one),
        "gateway4": address(IPV4.gateway),
        "gateway6": address(IPV6.gateway),
        "cluster4": prefix(IPV4.cluster),
        "cluster6": prefix(IPV6.cluster),
    } | changes
    some = objects.path(PROGRAMS[0])
    raw = bytearray(btf.size_of(some, "config"))
    for member in btf.struct(some, "config"):
        if member.name in members:
            raw[member.offset : member.offset + member.size] = members.pop(member.name)
    assert not members, f"struct config has no {', '.join(members)}"
    return bytes(raw)


class Dataplane:
    """The programs of node one over `underlay`, sharing maps as they do on a node."""

    def __init__(self, objects: Objects, underlay: Family, **changes: bytes) -> None:
        self.underlay = underlay
        self.reasons = btf.enum(objects.path(PROGRAMS[0]), "drop_reason")
        self.points = btf.enum(objects.path(PROGRAMS[0]), "attach_point")
        self._local = changes.get("tunnel_key_local") != b"\0"
        self._tables = Tables()
        self._drops_before: Mapping[str, int] = {}
        self._close = ExitStack()
        self.maps: dict[str, Map] = {}
        self.programs = {}
        constants = config(objects, underlay, **changes)
        for program in PROGRAMS:
            with Object.open(objects.path(program)) as opened:
                shared = [name for name in opened.maps() if name in self.maps]
                for name in shared:
                    opened.reuse_map(name, self.maps[name].fd)
                opened.set_rodata(constants)
                opened.load()
                for name in opened.maps():
                    if name not in self.maps:
                        self.maps[name] = self._close.enter_context(opened.map(name))
                self.programs[program] = self._close.enter_context(opened.program(program))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def fill(self, tables: Tables) -> None:
        """Make the maps hold exactly `tables`."""
        if tables == self._tables:
            return
        for name in ("endpoints", "remotes", "vteps"):
            for key in self.maps[name].keys():  # noqa: SIM118 (a BPF map, not a dict)
                self.maps[name].delete(key)
        for where, ep in tables.endpoints.items():
            value = ENDPOINT.pack(ep.ifindex, mac(ep.mac), ep.masquerade)
            self.maps["endpoints"].update(address(where), value)
        for where, vtep in tables.remotes.items():
            key = REMOTE_KEY.pack(prefix_length(where), prefix(where)[:16])
            self.maps["remotes"].update(key, address(vtep))
        for row, vtep in enumerate(tables.vteps):
            self.maps["vteps"].update(address(vtep), struct.pack("=I", row))
        self._tables = tables

    def arrive_from(self, vtep: str | None, *, vni: int = VNI) -> None:
        """Tunnel metadata of the packets from now on; None: they have none."""
        record = NO_TUNNEL
        if vtep is not None:
            v6 = ip_address(vtep).version == 6
            source = ip_address(vtep).packed if v6 else _host_order(vtep)
            flags = BPF_F_TUNINFO_IPV6 if v6 else 0
            record = TUNNEL_RECORD.pack(
                vni, bytes(16), 0, 0, 0, 0, source.ljust(16, b"\0"), KEY_SIZE, flags
            )
        self.maps["given_tunnel"].update(FIRST, record)

    def run(
        self, program: str, packet: Packet | bytes, *, mark: int = 0, gso_size: int = 0
    ) -> Outcome:
        """Run one packet through one program and gather what it did."""
        before = self.drops()
        self.maps["last_redirect"].update(FIRST, bytes(REDIRECT_RECORD.size))
        self.maps["last_tunnel"].update(FIRST, NO_TUNNEL)
        raw = bytes(packet)
        segments = -(-len(raw) // gso_size) if gso_size else 0
        result = self.programs[program].test_run(
            raw, mark=mark, gso_size=gso_size, gso_segs=segments
        )
        return Outcome(
            Action(result.action), result.packet, self.last_redirect(), self._last_tunnel(),
            result.mark, self._counted(program, before, len(raw)),
        )  # fmt: skip

    def drops(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(attach point, reason) to (packets, bytes) of all CPUs, where not zero."""
        found = {}
        size = self.reasons["DROP_REASONS"]
        points = {number: name for name, number in self.points.items()}
        reasons = {number: name for name, number in self.reasons.items()}
        for index in range(self.maps["drops"].info.max_entries):
            values = self.maps["drops"].lookup_percpu(struct.pack("=I", index)) or []
            counts = [DROP_COUNT.unpack(value) for value in values]
            packets, octets = (sum(column) for column in zip(*counts, strict=True))
            if packets or octets:
                key = points[index // size], reasons[index % size].removeprefix("DROP_")
                found[key] = packets, octets
        return found

    def events(self) -> list[bytes]:
        """The events since the last call, as struct drop_event."""
        with RingBuffer(self.maps["events"]) as ring:
            return ring.poll(0)

    def last_redirect(self) -> Redirect | None:
        """Arguments of the last redirect since the last run() began."""
        record = self.maps["last_redirect"].lookup(FIRST) or b""
        helper, ifindex, flags = REDIRECT_RECORD.unpack(record)
        return Redirect(HELPERS[helper], ifindex, flags) if helper else None

    def last_tunnel(self) -> tuple[object, ...]:
        """Members of the last tunnel key written, then its size and the flags."""
        return TUNNEL_RECORD.unpack(self.maps["last_tunnel"].lookup(FIRST) or b"")

    def _last_tunnel(self) -> str | None:
        """The VTEP of the key, after a check of everything else in it."""
        vni, remote, tos, ttl, ext, label, local, size, flags = self.last_tunnel()
        if not size:
            return None
        v6 = bool(int(str(flags)) & BPF_F_TUNINFO_IPV6)
        source = ip_address(self.underlay.node_one).packed if v6 else _host_order(self.underlay.node_one)
        expected = BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT | (BPF_F_TUNINFO_IPV6 if v6 else 0)
        assert (vni, tos, ttl, ext, label) == (VNI, 0, 64, 0, 0)
        assert (local, flags) == (source.ljust(16, b"\0"), expected)
        assert size == (KEY_SIZE if self._local else KEY_SIZE_WITHOUT_LOCAL)
        packed = bytes(remote) if v6 else bytes(remote)[3::-1]  # type: ignore[call-overload]
        return str(ip_address(packed))

    def _counted(
        self, program: str, before: dict[tuple[str, str], tuple[int, int]], length: int
    ) -> dict[str, int]:
        """Reasons counted since `before`, after a check of point and bytes."""
        counted = {}
        for (point, reason), (packets, octets) in self.drops().items():
            packets_before, octets_before = before.get((point, reason), (0, 0))
            if packets != packets_before:
                assert point == program.upper()
                assert octets - octets_before == length * (packets - packets_before)
                counted[reason] = packets - packets_before
        return counted


def _host_order(ip4: str) -> bytes:
    return struct.pack("=I", int(ip_address(ip4)))
