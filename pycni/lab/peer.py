# SPDX-License-Identifier: Apache-2.0
"""The program that runs inside a pod of the lab: pings and transfers, exactly counted.

Standard library only, run as `python -IS peer.py VERB ...`; prints one JSON document. A ping
program resends until its count is answered, which hides loss: here every request is sent once.
"""

import argparse
import errno
import json
import os
import select
import selectors
import socket
import struct
import sys
import time
from hashlib import sha256
from typing import Any

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
GRACE = 1.0
"""Seconds to wait for the last replies, if --grace says nothing else."""
ROOM = 1 << 24
"""Bytes of the receive buffer. The kernel counts up to 2 KB for a small packet."""
SO_RCVBUFFORCE, SO_MEMINFO = 33, 55
SK_MEMINFO_WMEM_ALLOC, SK_MEMINFO_SNDBUF, SK_MEMINFO_DROPS, SK_MEMINFO_VARS = 2, 3, 8, 9
"""From linux/sock_diag.h and asm-generic/socket.h."""
PAUSE = 0.002
"""Seconds until a full send buffer is tried again."""
CHUNK = 65536
SEQUENCES = 65536
"""Echo requests that can be told apart."""


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    echo_parser = verbs.add_parser("echo")
    echo_parser.add_argument("addresses", nargs="+")
    echo_parser.add_argument("--count", type=int, default=3)
    echo_parser.add_argument("--until-eof", action="store_true", help="then go on until stdin ends")
    echo_parser.add_argument("--interval", type=float, default=0.01)
    echo_parser.add_argument("--size", type=int, default=56, help="bytes after the ICMP header")
    echo_parser.add_argument("--grace", type=float, default=GRACE, help="for the last replies")
    echo_parser.add_argument("--dont-fragment", action="store_true")
    receive_parser = verbs.add_parser("receive")
    receive_parser.add_argument("address")
    receive_parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    send_parser = verbs.add_parser("send")
    send_parser.add_argument("address")
    send_parser.add_argument("port", type=int)
    send_parser.add_argument("size", type=int)
    options = parser.parse_args()
    answer: Any
    if options.verb == "echo":
        answer = [echo(address, options) for address in options.addresses]
    elif options.verb == "receive":
        answer = receive(options.address, options.port)
    else:
        answer = send(options.address, options.port, options.size)
    print(json.dumps(answer))


def echo(address: str, options: argparse.Namespace) -> dict[str, Any]:
    """Send `count` echo requests or more, each once; who answered which (RFC 792, RFC 4443)."""
    family = 6 if ":" in address else 4
    identifier = os.getpid() & 0xFFFF
    protocol = socket.IPPROTO_ICMPV6 if family == 6 else socket.IPPROTO_ICMP
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    answered: set[int] = set()
    errors = 0
    with (
        socket.socket(kind, socket.SOCK_RAW, protocol) as raw,
        selectors.DefaultSelector() as ready,
    ):
        give_room(raw)
        if options.dont_fragment:
            forbid_fragments(raw, family)
        raw.connect((address, 0))
        raw.setblocking(False)
        ready.register(raw, selectors.EVENT_READ)
        begin = time.monotonic()
        sent = 0
        while sent < options.count or (options.until_eof and sent < SEQUENCES and not at_eof()):
            message = request(family, identifier, sent, options.size)
            try:
                while not has_left(raw, message):  # a full send buffer is no loss
                    wait_until(ready, raw, family, identifier, answered, time.monotonic() + PAUSE)
            except OSError:
                errors += 1
            sent += 1
            wait_until(ready, raw, family, identifier, answered, begin + sent * options.interval)
        end = time.monotonic() + options.grace
        while len(answered) < sent - errors and time.monotonic() < end:
            wait_until(ready, raw, family, identifier, answered, time.monotonic() + 0.02)
        unread = overflows(raw)
    return {
        "address": address,
        "sent": sent,
        "received": len(answered),
        "errors": errors,
        "unread": unread,
        "missing": runs(set(range(sent)) - answered),
    }


def give_room(raw: socket.socket) -> None:
    """Room for the replies of a minute; without CAP_NET_ADMIN what net.core.rmem_max leaves."""
    try:
        raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    except PermissionError:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)


def overflows(raw: socket.socket) -> int:
    """How many packets found the receive buffer full: this program was late. They had arrived."""
    return memory(raw)[SK_MEMINFO_DROPS]


def memory(raw: socket.socket) -> tuple[int, ...]:
    """The socket's SK_MEMINFO_* (linux/sock_diag.h)."""
    told = raw.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * SK_MEMINFO_VARS)
    return struct.unpack(f"={len(told) // 4}I", told)


def has_left(raw: socket.socket, message: bytes) -> bool:
    """Send it; False if the send buffer is full. Raises OSError.

    ENOBUFS says that the buffer is full (ip(7)), or that the device's queue or filter has dropped
    the packet. A drop is an error, and is not tried again.
    """
    try:
        raw.send(message)
    except OSError as error:
        found = memory(raw)
        is_full = found[SK_MEMINFO_WMEM_ALLOC] > found[SK_MEMINFO_SNDBUF] // 2
        if is_full and error.errno in (errno.EAGAIN, errno.ENOBUFS):
            return False
        raise
    return True


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers, ascending."""
    firsts = sorted(one for one in numbers if one - 1 not in numbers)
    lasts = sorted(one for one in numbers if one + 1 not in numbers)
    return list(zip(firsts, lasts, strict=True))


def at_eof() -> bool:
    """Whether stdin has ended; nothing is written to it before."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def wait_until(
    ready: selectors.BaseSelector,
    raw: socket.socket,
    family: int,
    identifier: int,
    answered: set[int],
    deadline: float,
) -> None:
    """Collect replies until `deadline` (CLOCK_MONOTONIC); late or not, all that have come. A sender
    that is late and only sends finds its receive buffer full, and calls lost what was answered."""
    while ready.select(max(deadline - time.monotonic(), 0)):
        try:
            packet = raw.recv(CHUNK)
        except OSError:  # an ICMP error about an earlier request
            continue
        message = packet[(packet[0] & 0xF) * 4 :] if family == 4 else packet
        if len(message) >= 8 and message[0] == ECHO_REPLY[family]:
            their_identifier, sequence = struct.unpack_from("!HH", message, 4)
            if their_identifier == identifier:
                answered.add(sequence)


def request(family: int, identifier: int, sequence: int, size: int) -> bytes:
    """An echo request; the kernel fills in the checksum of ICMPv6."""
    body = bytes(index & 0xFF for index in range(size))
    head = struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, identifier, sequence)
    if family == 6:
        return head + body
    check = checksum(head + body)
    return struct.pack("!BBHHH", ECHO_REQUEST[family], 0, check, identifier, sequence) + body


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def forbid_fragments(raw: socket.socket, family: int) -> None:
    """Set DF, and refuse to fragment locally (ip(7), ipv6(7): IP_PMTUDISC_DO is 2)."""
    if family == 4:
        raw.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER
    else:
        raw.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER


def receive(address: str, port: int) -> dict[str, Any]:
    """Accept one connection and read it to its end. Announces the port on the first line."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, port))
        listener.listen(1)
        listener.settimeout(20)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        connection, _ = listener.accept()
        total, digest = 0, sha256()
        with connection:
            connection.settimeout(20)
            while data := connection.recv(CHUNK):
                total += len(data)
                digest.update(data)
    return {"bytes": total, "sha256": digest.hexdigest()}


def send(address: str, port: int, size: int) -> dict[str, Any]:
    """Send `size` bytes that are not all alike."""
    block = b"".join(sha256(index.to_bytes(4, "big")).digest() for index in range(2048))
    digest, left, begin = sha256(), size, time.monotonic()
    with socket.create_connection((address, port), timeout=20) as connection:
        while left:
            part = block[:left]
            connection.sendall(part)
            digest.update(part)
            left -= len(part)
    return {"bytes": size, "sha256": digest.hexdigest(), "seconds": time.monotonic() - begin}


if __name__ == "__main__":
    main()
