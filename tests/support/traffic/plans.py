# SPDX-License-Identifier: Apache-2.0
"""Plans: one end sends what a plan says, the other tells what arrived.

A plan is a list of [kind, size, segment]. What was sent and what came is a list of [kind, length,
digest], sorted. Kinds: tcp, udp, segments (UDP_SEGMENT), sctp (raw packets, RFC 9260 3.1), icmp
(echoed by the kernel: the sender compares), fragments (UDP above the MTU, cut by the sending
kernel).
"""

from __future__ import annotations

import hashlib
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from support.traffic import sctp
from support.traffic.checksums import is_right, ones_sum
from support.traffic.frames import BUFFER, PACKET_HOST, QUIET, SO_RCVBUFFORCE, sniffer
from support.traffic.sockets import family_of, opened, say

SOL_UDP, UDP_SEGMENT = 17, 103
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_CSUMNOTREADY = 263, 8, 8
ECHO_SECONDS = 2.0

Seen = list[list[Any]]


def send(address: str, port: int, row: tuple[str, int, int]) -> Seen:
    """Send one row of a plan; what shall arrive of it."""
    kind, size, segment = row
    where = (address, port)
    data = hashlib.shake_128(f"{kind} {size} {segment}".encode()).digest(size)
    match kind:
        case "tcp":
            _send_stream(where, data)
        case "sctp":
            head = struct.pack("!HHII", 4000, port, 1, 0)
            with opened("sctp", address) as raw:
                raw.sendto(sctp.with_checksum(head + data), (address, 0))
        case "icmp":
            return [] if _echoed(address, data) else [[kind, size, "not echoed"]]
        case "segments":
            return [_described("udp", part) for part in _send_parts(where, data, segment)]
        case "udp":
            _send_datagram(socket.socket(family_of(address), socket.SOCK_DGRAM), where, data)
        case "fragments":
            _send_datagram(opened("udp", address), where, data)
            kind = "udp"
    return [_described(kind, data)]


def _send_datagram(udp: socket.socket, where: tuple[str, int], data: bytes) -> None:
    with udp:
        udp.connect(where)
        udp.send(data)


def _send_stream(where: tuple[str, int], data: bytes) -> None:
    with socket.create_connection(where) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the other end has read it all


def _send_parts(where: tuple[str, int], data: bytes, segment: int) -> list[bytes]:
    parts = [data[at : at + segment] for at in range(0, len(data), segment)]
    with socket.socket(family_of(where[0]), socket.SOCK_DGRAM) as udp:
        udp.connect(where)
        udp.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
        try:
            udp.send(data)
        except OSError:  # before 6.10 not without the device's checksums
            udp.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
            for part in parts:
                udp.send(part)
    return parts


def _echoed(address: str, data: bytes) -> bool:
    six = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 77, len(data) & 0xFFFF)
    if not six:
        check = ~ones_sum(head + data) & 0xFFFF
        head = head[:2] + struct.pack("!H", check) + head[4:]
    with socket.socket(family_of(address), socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(ECHO_SECONDS)
        raw.sendto(head + data, (address, 0))
        end = time.monotonic() + ECHO_SECONDS
        with suppress(TimeoutError):
            while time.monotonic() < end:
                answer = raw.recv(1 << 16)
                answer = answer if six else answer[(answer[0] & 15) * 4 :]
                if answer[0] == (129 if six else 0) and answer[4:] == head[4:] + data:
                    return True
    return False


def receive(address: str, ifname: str) -> None:
    """Prints the port; after a line of stdin what came, how many packets had right checksums, and
    which had not."""
    with (
        socket.socket(family_of(address), socket.SOCK_STREAM) as tcp,
        opened("udp", address) as udp,
        opened("sctp", address) as raw,
        sniffer(ifname) as wire,
        selectors.DefaultSelector() as ready,
    ):
        tcp.bind((address, 0))
        port = tcp.getsockname()[1]
        tcp.listen(64)
        udp.bind((address, port))
        raw.bind((address, 0))
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        for one in (udp, raw):
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        for source in (tcp, udp, raw, wire, sys.stdin):
            ready.register(source, selectors.EVENT_READ)
        say(port)
        seen: Seen = []
        checked, bad, end = 0, [], None
        while end is None or time.monotonic() < end:
            for key, _ in ready.select(0.05):
                if key.fileobj is sys.stdin:
                    ready.unregister(sys.stdin)
                    end = time.monotonic() + QUIET
                    continue
                if end is not None:
                    end = time.monotonic() + QUIET
                if key.fileobj is tcp:
                    seen.append(_described("tcp", _all_of(tcp.accept()[0])))
                elif key.fileobj is udp:
                    seen.append(_described("udp", udp.recv(1 << 16)))
                elif key.fileobj is raw:
                    packet = sctp.without_ip_header(raw.recv(1 << 16), address)
                    seen.append(_described("sctp", packet[12:]))
                else:
                    for frame in _finished(wire):
                        checked += 1
                        if not is_right(frame):
                            bad.append(frame.hex())
    say({"seen": sorted(seen), "checked": checked, "bad": bad[:5]})


def _all_of(connection: socket.socket) -> bytes:
    with connection:
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts)


def _finished(wire: socket.socket) -> Iterator[bytes]:
    """A frame to this pod, unless its checksum is still to be computed by a device."""
    frame, auxiliary, _, address = wire.recvmsg(1 << 17, 256)
    status = 0
    for level, kind, data in auxiliary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            (status,) = struct.unpack_from("=I", data)
    if address[2] == PACKET_HOST and not status & TP_STATUS_CSUMNOTREADY:
        yield frame


def _described(kind: str, data: bytes) -> list[Any]:
    return [kind, len(data), hashlib.sha256(data).hexdigest()[:16]]
