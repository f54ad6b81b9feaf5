# SPDX-License-Identifier: Apache-2.0
"""A lab in which processes of the nodes reach Services, and how they call one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pycni.lab.cluster import Lab
from pycni.lab.layout import Pod
from support import control_group
from support.lab_services import (
    AF,
    PORT,
    SOCKETS,
    TARGET,
    VIPS,
    File,
    answering,
    ends_of,
    port,
    service,
    services_lab,
    slices,
)
from support.labs import within

PROTOCOLS = ("TCP", "UDP")
SERVICE_PORTS = [port(protocol) for protocol in PROTOCOLS]
TARGET_PORTS = [port(protocol, TARGET) for protocol in PROTOCOLS]
TIMEOUT = 5.0
MAPPED = 46
"""A way to ask: IPv4 by a socket of IPv6."""


@contextmanager
def host_lab() -> Iterator[File]:
    """Two nodes with two pods each, whose Services are in a file; both nodes' programs are at one
    control group."""
    with control_group.own(), services_lab("pods+host") as file:
        yield file


def web(lab: Lab, *ends: Pod, **spec: Any) -> list[dict[str, Any]]:
    """The Service `web` with pods as endpoints."""
    made = slices("web", ends_of(lab, *ends), ports=TARGET_PORTS)
    return [service(ports=SERVICE_PORTS, **spec), *made]


@contextmanager
def served(lab: Lab, *ends: Pod) -> Iterator[None]:
    """Servers of both protocols and families in pods, that tell their own addresses."""
    with ExitStack() as stack:
        for pod in ends:
            stack.enter_context(answering(pod.netns, lab.addresses(pod), own=True))
        yield


def spelled(way: int, address: str) -> str:
    return f"::ffff:{address}" if way == MAPPED else address


def vip(way: int) -> str:
    return spelled(way, VIPS[4 if way == MAPPED else way])


def a_socket(way: int, protocol: str) -> socket.socket:
    made = socket.socket(AF[6 if way == MAPPED else way], SOCKETS[protocol])
    made.settimeout(TIMEOUT)
    return made


def ask(netns: str, way: int, protocol: str, number: int = PORT) -> str | int:
    """The endpoint that answers a process in a namespace, or the error that its socket has; 0:
    silence."""

    def talk() -> str | int:
        with a_socket(way, protocol) as client:
            try:
                client.connect((vip(way), number))
                if protocol == "UDP":
                    client.send(b"hello")
                return client.recv(100).decode()
            except TimeoutError:
                return 0
            except OSError as error:
                return error.errno or 0

    return within(netns, talk)


def family(way: int) -> int:
    return 4 if way == MAPPED else way
