"""A program that tests run inside pods: one sends what a plan says, one tells what arrived.

Standard library only, run as `python -IS exchange.py VERB ...`; JSON on standard input and output.

    send ADDRESS PORT     read a plan, a list of [kind, size, segment]; send; print what was sent
    receive ADDRESS IFNAME  print the port; at the next line of input, print what came, how many
                            packets had right checksums, and which had not

    capture IFNAME        at the next line of input, print the frames that came in, sorted

What was sent and what came is a list of [kind, length, digest], sorted. Kinds: tcp, udp, segments
(UDP_SEGMENT), sctp (raw packets, RFC 9260 3.1), icmp (echoed by the kernel: the sender compares),
fragments (UDP above the MTU, cut by the sending kernel).
"""

import argparse
import hashlib
import json
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

SOL_UDP, UDP_SEGMENT = 17, 103
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
SO_RCVBUFFORCE = 33
SCTP, ICMPV6 = 132, 58
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_CSUMNOTREADY = 263, 8, 8
ETH_P_ALL, PACKET_HOST = 3, 0
IP6_FRAGMENT = 44
QUIET = 0.4
"""Seconds without a packet after which no more is expected."""
BUFFER = 1 << 24

Seen = list[list[Any]]


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    sender = verbs.add_parser("send")
    sender.add_argument("address")
    sender.add_argument("port", type=int)
    receiver = verbs.add_parser("receive")
    receiver.add_argument("address")
    receiver.add_argument("ifname")
    verbs.add_parser("capture").add_argument("ifname")
    options = parser.parse_args()
    if options.verb == "capture":
        capture(options.ifname)
    elif options.verb == "send":
        say(sorted(item for row in json.load(sys.stdin) for item in send(options, *row)))
    else:
        receive(options.address, options.ifname)


def send(options: argparse.Namespace, kind: str, size: int, segment: int) -> Seen:
    """Send one row of the plan; what shall arrive of it."""
    data = hashlib.shake_128(f"{kind} {size} {segment}".encode()).digest(size)
    where = (options.address, options.port)
    family = family_of(options.address)
    if kind == "tcp":
        with socket.create_connection(where) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # the other end has read it all
        return [described(kind, data)]
    if kind == "sctp":
        packet = struct.pack("!HHII", 4000, options.port, 1, 0) + data
        check = struct.pack("<I", crc32c(packet))
        with socket.socket(family, socket.SOCK_RAW, SCTP) as raw:
            raw.sendto(packet[:8] + check + packet[12:], (options.address, 0))
        return [described(kind, data)]
    if kind == "icmp":
        return [] if echoed(options.address, data) else [[kind, size, "not echoed"]]
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        if kind == "fragments" and family == socket.AF_INET:
            udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        udp.connect(where)
        if kind != "segments":
            udp.send(data)
            return [described("udp", data)]
        parts = [data[at : at + segment] for at in range(0, size, segment)]
        udp.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
        try:
            udp.send(data)
        except OSError:  # before 6.10 not without the device's checksums
            udp.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
            for part in parts:
                udp.send(part)
        return [described("udp", part) for part in parts]


def receive(address: str, ifname: str) -> None:
    family = family_of(address)
    with (
        socket.socket(family, socket.SOCK_STREAM) as tcp,
        socket.socket(family, socket.SOCK_DGRAM) as udp,
        socket.socket(family, socket.SOCK_RAW, SCTP) as sctp,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sniffer,
        selectors.DefaultSelector() as ready,
    ):
        tcp.bind((address, 0))
        port = tcp.getsockname()[1]
        tcp.listen(64)
        udp.bind((address, port))
        sctp.bind((address, 0))
        sniffer.bind((ifname, 0))
        sniffer.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        for one in (udp, sctp, sniffer):
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        for one in (tcp, udp, sctp, sniffer, sys.stdin):
            ready.register(one, selectors.EVENT_READ)
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
                    seen.append(described("tcp", all_of(tcp.accept()[0])))
                elif key.fileobj is udp:
                    seen.append(described("udp", udp.recv(1 << 16)))
                elif key.fileobj is sctp:
                    packet = sctp.recv(1 << 16)
                    packet = packet if family == socket.AF_INET6 else packet[(packet[0] & 15) * 4 :]
                    seen.append(described("sctp", packet[12:]))
                else:
                    for frame in finished(sniffer):
                        checked += 1
                        if not is_right(frame):
                            bad.append(frame.hex())
    say({"seen": sorted(seen), "checked": checked, "bad": bad[:5]})


def capture(ifname: str) -> None:
    """Those to this pod, as far as the programs hand them on; what its kernel then does is no
    concern."""
    frames = []
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sniffer,
        selectors.DefaultSelector() as ready,
    ):
        sniffer.bind((ifname, 0))
        sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        ready.register(sniffer, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        say("ready")
        end = None
        while end is None or time.monotonic() < end:
            for key, _ in ready.select(0.05):
                if key.fileobj is sys.stdin:
                    ready.unregister(sys.stdin)
                else:
                    frame, address = sniffer.recvfrom(1 << 17)
                    if address[2] == PACKET_HOST:
                        frames.append(frame.hex())
                    if end is None:
                        continue
                end = time.monotonic() + QUIET
    say(sorted(frames))


def all_of(connection: socket.socket) -> bytes:
    with connection:
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts)


def finished(sniffer: socket.socket) -> Iterator[bytes]:
    """A frame to this pod, unless its checksum is still to be computed by a device."""
    frame, auxiliary, _, address = sniffer.recvmsg(1 << 17, 256)
    status = 0
    for level, kind, data in auxiliary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            (status,) = struct.unpack_from("=I", data)
    if address[2] == PACKET_HOST and not status & TP_STATUS_CSUMNOTREADY:
        yield frame


def is_right(frame: bytes) -> bool:
    """Checksums of one packet; a fragment has only its IP header's (RFC 791, 768, 9293, 4443)."""
    packet = frame[14:]
    if frame[12:14] == b"\x08\x00":
        header = (packet[0] & 15) * 4
        total = int.from_bytes(packet[2:4], "big")
        if ones_sum(packet[:header]) != 0xFFFF or total > len(packet):
            return False
        if int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return True
        protocol, body = packet[9], packet[header:total]
        pseudo = packet[12:20] + struct.pack("!HH", protocol, len(body))
        if protocol == socket.IPPROTO_ICMP:
            return ones_sum(body) == 0xFFFF
    elif frame[12:14] == b"\x86\xdd":
        length = int.from_bytes(packet[4:6], "big")
        protocol, body = packet[6], packet[40 : 40 + length]
        if len(body) != length:
            return False
        if protocol == IP6_FRAGMENT:
            return True
        pseudo = packet[8:40] + struct.pack("!II", length, protocol)
    else:
        return True
    if protocol == SCTP:
        whole = body[:8] + bytes(4) + body[12:]
        return body[8:12] == struct.pack("<I", crc32c(whole))
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, ICMPV6):
        return True
    return ones_sum(pseudo + body) == 0xFFFF


def ones_sum(data: bytes) -> int:
    """RFC 1071: of 16-bit words, with their carries."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def echoed(address: str, data: bytes) -> bool:
    six = ":" in address
    protocol = ICMPV6 if six else socket.IPPROTO_ICMP
    head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 77, len(data) & 0xFFFF)
    if not six:
        check = ~ones_sum(head + data) & 0xFFFF
        head = head[:2] + struct.pack("!H", check) + head[4:]
    with socket.socket(family_of(address), socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(2)
        raw.sendto(head + data, (address, 0))
        end = time.monotonic() + 2
        with suppress(TimeoutError):
            while time.monotonic() < end:
                answer = raw.recv(1 << 16)
                answer = answer if six else answer[(answer[0] & 15) * 4 :]
                if answer[0] == (129 if six else 0) and answer[4:] == head[4:] + data:
                    return True
    return False


TABLE = []
for number in range(256):
    value = number
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    TABLE.append(value)


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def described(kind: str, data: bytes) -> list[Any]:
    return [kind, len(data), hashlib.sha256(data).hexdigest()[:16]]


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
