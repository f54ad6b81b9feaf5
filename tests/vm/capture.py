# SPDX-License-Identifier: Apache-2.0
"""What was on the link, as tshark reads it: is it VXLAN, are lengths and checksums right?

tshark is somebody else's reading of the formats; only its JSON is used, field by field.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vm.apt import run

VXLAN_PORT = 4789
VNI = 7
ETHERNET, UDP, VXLAN = 14, 8, 8
"""Bytes of the headers."""

IP4, IP6 = 20, 40
GOOD, NOT_PRESENT = 1, 3
"""Values of tshark's checksum.status; 0 is bad, 2 not verified."""

FIELDS = (
    "frame.number", "frame.len", "frame.protocols", "vxlan.vni", "vxlan.flags", "ip.len",
    "ip.checksum.status", "ipv6.plen", "udp.length", "udp.checksum", "udp.srcport", "tcp.stream",
    "tcp.len", "tcp.seq", "tcp.checksum.status", "icmp.checksum.status",
    "icmpv6.checksum.status", "_ws.malformed",
)  # fmt: skip

PAYLOAD_PORT = 5000
"""TCP port whose payload is not to be guessed at: tshark would find it malformed."""

VERIFY = ("ip", "tcp", "udp")
"""Protocols whose checksums tshark verifies only if told to."""


@dataclass(frozen=True)
class Frame:
    """One VXLAN frame; of a field that is there outside and inside, the outer value is first."""

    fields: dict[str, list[str]]

    def number(self, name: str, index: int = 0) -> int:
        return int(self.fields[name][index], 0)

    def numbers(self, name: str) -> list[int]:
        return [int(value, 0) for value in self.fields.get(name, ())]

    @property
    def protocols(self) -> list[str]:
        """Names from the Ethernet header in, such as eth ethertype ip udp vxlan eth ... tcp."""
        return self.fields["frame.protocols"][0].split(":")


def read(path: Path) -> list[Frame]:
    """The VXLAN frames of a capture (pcap). Raises ArchiveError if tshark cannot read it."""
    options = [word for one in VERIFY for word in ("-o", f"{one}.check_checksum:TRUE")]
    fields = [word for field in FIELDS for word in ("-e", field)]
    options += ["-d", f"tcp.port=={PAYLOAD_PORT},echo"]
    command: list[str | Path] = [
        "tshark",
        "-n",
        "-r",
        path,
        "-Y",
        f"udp.dstport == {VXLAN_PORT}",
        *options,
    ]
    done = run([*command, "-T", "json", *fields], cwd=path.parent)
    return [Frame(packet["_source"]["layers"]) for packet in json.loads(done.stdout)]


def faults(frames: list[Frame], *, mtu: int) -> Iterator[str]:
    """What is wrong with the frames on a link of that MTU, each with its number."""
    for frame in frames:
        for fault in _faults(frame, mtu):
            yield f"frame {frame.fields['frame.number'][0]}: {fault}"


def _faults(frame: Frame, mtu: int) -> Iterator[str]:
    if "_ws.malformed" in frame.fields:
        yield "malformed"
    if "vxlan" not in frame.protocols:
        yield f"no VXLAN in {frame.protocols}"
        return
    if (frame.number("vxlan.vni"), frame.number("vxlan.flags")) != (VNI, 0x0800):
        yield f"VNI {frame.fields['vxlan.vni']}, flags {frame.fields['vxlan.flags']}"
    yield from _length_faults(frame, mtu)
    if frame.number("udp.checksum") != 0:
        yield "an outer checksum, which own and kernel encapsulation leave out"
    for protocol in ("ip", "tcp", "icmp", "icmpv6"):
        for status in frame.numbers(f"{protocol}.checksum.status"):
            if status != GOOD:
                yield f"{protocol} checksum status {status}"


def _length_faults(frame: Frame, mtu: int) -> Iterator[str]:
    """Every length says the same: of the frame, the outer IP, the UDP and the inner IP header."""
    length = frame.number("frame.len")
    if length > ETHERNET + mtu:
        yield f"{length} bytes on a link with MTU {mtu}"
    outer, inner = _ip_lengths(frame)
    if outer != length - ETHERNET:
        yield f"outer IP length {outer} in a frame of {length}"
    udp = frame.number("udp.length")
    header = IP6 if frame.protocols[2] == "ipv6" else IP4
    if udp != outer - header:
        yield f"UDP length {udp} in an IP packet of {outer}"
    if inner is not None and inner != udp - UDP - VXLAN - ETHERNET:
        yield f"inner IP length {inner} in UDP of {udp}"


def _ip_lengths(frame: Frame) -> tuple[int, int | None]:
    """Bytes of the outer and the inner IP packet; None where there is no IP inside."""
    four = iter(frame.numbers("ip.len"))
    six = iter(frame.numbers("ipv6.plen"))
    found = [
        next(four) if name == "ip" else IP6 + next(six)
        for name in frame.protocols
        if name in ("ip", "ipv6")
    ]
    return found[0], found[1] if len(found) > 1 else None


def segments(frames: list[Frame]) -> dict[int, dict[int, int]]:
    """TCP payload by stream: sequence number, relative to the stream's, to bytes."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for frame in frames:
        for stream, sequence, size in zip(
            *(frame.numbers(name) for name in ("tcp.stream", "tcp.seq", "tcp.len")), strict=True
        ):
            if size:
                at = found[stream]
                at[sequence] = max(size, at.get(sequence, 0))
    return found


def gapless(payload: dict[int, int]) -> int:
    """Bytes from the first segment of one direction on, up to the first gap."""
    end = min(payload)
    begin = end
    for sequence in sorted(payload):
        if sequence > end:
            break
        end = max(end, sequence + payload[sequence])
    return end - begin
