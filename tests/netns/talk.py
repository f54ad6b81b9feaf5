"""A program that tests run inside namespaces: datagrams and raw frames.

Standard library only, run as `python -IS talk.py VERB ...`.

    answer ADDRESS [PORT]   print the port, then for each datagram its source and size; answer it
    ask ADDRESS PORT        send one datagram; print who the answer says we are, or null
    hold ADDRESS PORT       keep a UDP port taken until killed
    datagrams ADDRESS PORT  send each line of stdin (hex) as a datagram
    frames IFNAME           send each line of stdin (hex) as an Ethernet frame
"""

import argparse
import json
import signal
import socket
import sys
from typing import Any

IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0
ANSWER_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("answer", "ask", "hold", "datagrams"):
        one = verbs.add_parser(verb)
        one.add_argument("address")
        one.add_argument("port", type=int, nargs="?" if verb == "answer" else None, default=0)
        one.add_argument("--size", type=int, default=8)
    verbs.add_parser("frames").add_argument("ifname")
    options = parser.parse_args()
    globals()[options.verb](options)


def answer(options: argparse.Namespace) -> None:
    with _udp(options.address) as server:
        server.bind((options.address, options.port))
        _say(server.getsockname()[1])
        while True:
            data, peer = server.recvfrom(1 << 16)
            _say({"source": peer[0], "size": len(data)})
            try:
                server.sendto(peer[0].encode(), peer)
            except OSError:  # no way back: the test only wants to know who it was
                pass


def ask(options: argparse.Namespace) -> None:
    """The datagram has DF clear: routers may fragment it."""
    with _udp(options.address) as client:
        if client.family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        client.settimeout(ANSWER_SECONDS)
        client.sendto(bytes(options.size), (options.address, options.port))
        try:
            _say(client.recv(100).decode())
        except OSError:
            _say(None)


def hold(options: argparse.Namespace) -> None:
    with _udp(options.address) as holder:
        holder.bind((options.address, options.port))
        _say(options.port)
        signal.pause()


def datagrams(options: argparse.Namespace) -> None:
    with _udp(options.address) as client:
        for line in sys.stdin:
            client.sendto(bytes.fromhex(line), (options.address, options.port))


def frames(options: argparse.Namespace) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((options.ifname, 0))
        for line in sys.stdin:
            wire.send(bytes.fromhex(line))


def _udp(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
