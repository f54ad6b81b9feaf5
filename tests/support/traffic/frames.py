# SPDX-License-Identifier: Apache-2.0
"""Datagrams and frames as they are given, and frames as they come in."""

from __future__ import annotations

import selectors
import socket
import sys
import time

from support.traffic.sockets import opened, say

ETH_P_ALL, PACKET_HOST = 3, 0
"""linux/if_ether.h, linux/if_packet.h."""
SO_RCVBUFFORCE = 33
BUFFER = 1 << 24
QUIET = 0.4
"""Seconds without a packet after which no more is expected."""
ICMPV6, ADVERTISEMENT = 58, b"\x88"
"""RFC 4443, 2.1, and RFC 4861, 4.4."""


def send_datagrams(address: str, port: int) -> None:
    """Each line of stdin, in hex."""
    with opened("udp", address) as client:
        for line in sys.stdin:
            client.sendto(bytes.fromhex(line), (address, port))


def send(ifname: str) -> None:
    """Each line of stdin, in hex, from the Ethernet header on."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((ifname, 0))
        for line in sys.stdin:
            wire.send(bytes.fromhex(line))


def capture(ifname: str) -> None:
    """Those to this pod, as far as the programs hand them on, in hex, sorted.

    Without answers to questions of the pod's own kernel, which may ask for its gateway at any time.
    Prints "ready" first.
    """
    frames = []
    with sniffer(ifname) as wire, selectors.DefaultSelector() as ready:
        ready.register(wire, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        say("ready")
        end = None
        while end is None or time.monotonic() < end:
            for key, _ in ready.select(0.05):
                if key.fileobj is sys.stdin:
                    ready.unregister(sys.stdin)
                else:
                    frame, address = wire.recvfrom(1 << 17)
                    if address[2] == PACKET_HOST and not is_answer(frame):
                        frames.append(frame.hex())
                    if end is None:
                        continue
                end = time.monotonic() + QUIET
    say(sorted(frames))


def is_answer(frame: bytes) -> bool:
    """Whether a frame is an ARP reply or a neighbour advertisement."""
    kind, body = frame[12:14], frame[14:]
    arp_reply = kind == b"\x08\x06" and body[6:8] == b"\x00\x02"
    return arp_reply or (kind == b"\x86\xdd" and body[6] == ICMPV6 and body[40:41] == ADVERTISEMENT)


def sniffer(ifname: str) -> socket.socket:
    """A socket that gets every frame of an interface."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind((ifname, 0))
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    return made
