"""A program that tests run inside namespaces: servers on ports, and streams to be measured.

Standard library only, run as `python -IS traffic.py VERB ...`; prints JSON, a document per line.

    serve PROTOCOL ADDRESS PORT   tell every client the address it is seen by
    ask PROTOCOL ADDRESS PORT     what the server there says; null if nobody answers
    keep ADDRESS PORT             UDP: for each line of stdin, ask once more from the same socket
    count PROTOCOL ADDRESS        print the port, then bytes and seconds of what one client sends
    stream PROTOCOL ADDRESS PORT  send as fast as may be for --seconds

SCTP is spoken over raw sockets, one INIT and one INIT ACK (RFC 9260): kernels come without it.
"""

import argparse
import json
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

SCTP = 132
INIT, INIT_ACK = 1, 2
SCTP_SOURCE_PORT = 40132
ANSWER_SECONDS = 2.0
DATAGRAM = bytes(1200)
BLOCK = bytes(1 << 16)


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("serve", "ask", "keep", "count", "stream"):
        one = verbs.add_parser(verb)
        if verb != "keep":
            one.add_argument("protocol", choices=("tcp", "udp", "sctp"))
        one.add_argument("address")
        if verb != "count":
            one.add_argument("port", type=int)
        one.add_argument("--source")
        one.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    globals()[options.verb](options)


def serve(options: argparse.Namespace) -> None:
    if options.protocol == "sctp":
        return serve_sctp(options)
    with open_socket(options) as server:
        server.bind((options.address, options.port))
        if options.protocol == "tcp":
            server.listen()
        say("ready")
        while True:
            if options.protocol == "tcp":
                connection, client = server.accept()
                with connection, suppress(OSError):
                    connection.sendall(client[0].encode())
            else:
                _, client = server.recvfrom(100)
                with suppress(OSError):
                    server.sendto(client[0].encode(), client)


def ask(options: argparse.Namespace) -> None:
    if options.protocol == "sctp":
        return ask_sctp(options)
    with open_socket(options) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect((options.address, options.port))
            if options.protocol == "udp":
                client.send(b"who am I?")
            say(client.recv(100).decode())
        except OSError:
            say(None)


def keep(options: argparse.Namespace) -> None:
    options.protocol = "udp"
    with open_socket(options) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((options.address, options.port))
        say("ready")
        for _ in sys.stdin:
            try:
                client.send(b"who am I?")
                say(client.recv(100).decode())
            except OSError:
                say(None)


def count(options: argparse.Namespace) -> None:
    """From the first bytes to the last: how long a client took to connect does not count."""
    with open_socket(options) as server:
        server.bind((options.address, 0))
        if options.protocol == "tcp":
            server.listen()
        say(server.getsockname()[1])
        source = server.accept()[0] if options.protocol == "tcp" else server
        source.settimeout(None if options.protocol == "tcp" else ANSWER_SECONDS)
        source.recv(1 << 16)
        total, begin = 0, time.monotonic()
        end = begin
        with suppress(TimeoutError):
            while data := source.recv(1 << 16):
                total, end = total + len(data), time.monotonic()
        say({"bytes": total, "seconds": end - begin})


def stream(options: argparse.Namespace) -> None:
    with open_socket(options) as client:
        client.connect((options.address, options.port))
        end = time.monotonic() + options.seconds
        data = BLOCK if options.protocol == "tcp" else DATAGRAM
        while time.monotonic() < end:
            with suppress(BlockingIOError, ConnectionRefusedError):
                client.send(data)
    say("done")


def serve_sctp(options: argparse.Namespace) -> None:
    with open_socket(options) as server:
        server.bind((options.address, 0))
        say("ready")
        while True:
            data, client = server.recvfrom(2048)
            packet = without_ip_header(data, client[0])
            their_port, port, _, _, kind = struct.unpack_from("!HHIIB", packet)
            if port == options.port and kind == INIT:
                answer = sctp(port, their_port, INIT_ACK, client[0].encode())
                with suppress(OSError):
                    server.sendto(answer, (client[0], 0))


def ask_sctp(options: argparse.Namespace) -> None:
    """The answer counts only if it comes from whom was asked."""
    with open_socket(options) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((options.address, 0))
        client.send(sctp(SCTP_SOURCE_PORT, options.port, INIT, b""))
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            try:
                data, server = client.recvfrom(2048)
            except OSError:
                break
            packet = without_ip_header(data, server[0])
            if packet[:4] == struct.pack("!HH", options.port, SCTP_SOURCE_PORT):
                return say(packet[32:].rstrip(b"\0").decode())
        say(None)


def sctp(source: int, target: int, kind: int, text: bytes) -> bytes:
    """A packet with one INIT or INIT ACK chunk, `text` after its fixed part (RFC 9260, 3.3.2)."""
    text += bytes(-len(text) % 4)
    tag = 0 if kind == INIT else 0x1234
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20 + len(text), 0x1234, 65536, 1, 1, 1) + text
    check = crc32c(struct.pack("!HHII", source, target, tag, 0) + chunk)
    return struct.pack("!HHI", source, target, tag) + struct.pack("<I", check) + chunk


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def without_ip_header(data: bytes, source: str) -> bytes:
    """raw(7): IPv4 packets come with their header, IPv6 ones without."""
    return data if ":" in source else data[(data[0] & 0xF) * 4 :]


def open_socket(options: argparse.Namespace) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_RAW}
    opened = socket.socket(
        family, kind[options.protocol], SCTP if options.protocol == "sctp" else 0
    )
    if options.protocol == "tcp":
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.source:
        opened.bind((options.source, 0))
    return opened


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
