# SPDX-License-Identifier: Apache-2.0
"""Sockets by the name of a protocol, and answers as JSON."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

ANSWER_SECONDS = 2.0

IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
"""ip(7)."""

TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_RAW}
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


def opened(protocol: str, address: str) -> socket.socket:
    """Of the address's family. SCTP's is raw: kernels come without the protocol.

    IPv4 datagrams have DF clear, so that routers may fragment them.
    """
    made = socket.socket(family_of(address), TYPES[protocol], PROTOCOLS[protocol])
    if protocol == "tcp":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if protocol == "udp" and made.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    return made


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def say(value: Any) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
