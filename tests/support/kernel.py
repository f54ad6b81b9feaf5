# SPDX-License-Identifier: Apache-2.0
"""Kernel things for tests, each made for one test and gone after it.

A network namespace lives as long as a child process that holds it; it has no name and no mount,
so nothing stays even if the tests are killed. Nothing here touches the namespace the tests run in.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from loader import libbpf
from pycni.cluster import IPAddress
from pycni.kernel import namespaces
from pycni.kernel.addresses import IFA_F_NODAD
from pycni.kernel.rtnl import Rtnl
from pycni.lab.topology import NETNS_DIR

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
]


@contextmanager
def netns() -> Iterator[str]:
    """A new network namespace; yields its path, /proc/<pid>/ns/net."""
    command = ["unshare", "--net", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write(b"ready\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == b"ready\n"
            path = f"/proc/{holder.pid}/ns/net"
            assert not Path(path).samefile("/proc/self/ns/net")
            yield path
        finally:
            holder.stdin.close()  # cat ends, and with it the namespace
            holder.wait()


def open_iproute(name: str | Path) -> IPRoute:
    """pyroute2 in a namespace of a lab, or in that of a path."""

    def netlink_socket() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)

    with (NETNS_DIR / name).open() as namespace:
        made = namespaces.inside(namespace.fileno(), netlink_socket)
    return IPRoute(fileno=made.detach())


@contextmanager
def iproute(netns_path: str) -> Iterator[IPRoute]:
    """pyroute2 in a namespace of `netns()`."""
    with open_iproute(netns_path) as ipr:
        yield ipr


@contextmanager
def rtnl(netns_path: str) -> Iterator[Rtnl]:
    """pycni's rtnetlink in a namespace of `netns()`."""
    with Path(netns_path).open() as namespace, namespaces.open_rtnl(namespace.fileno()) as opened:
        yield opened


def add_address(ipr: IPRoute, index: int, address: IPAddress, *, prefixlen: int = 0) -> None:
    """Give a link an address, of IPv6 without looking for duplicates."""
    flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    length = prefixlen or address.max_prefixlen
    ipr.addr("add", index=index, address=str(address), prefixlen=length, **flags)


@contextmanager
def entered(netns_path: str) -> Iterator[None]:
    """This thread in a namespace: what has no descriptor to say where it works."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, Path(netns_path).open() as there:
        assert libc.setns(there.fileno(), namespaces.CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), namespaces.CLONE_NEWNET) == 0


@contextmanager
def bpffs(directory: Path) -> Iterator[Path]:
    """A BPF file system of its own, mounted at `directory`/bpf."""
    path = directory / "bpf"
    path.mkdir()
    libbpf.mount_bpffs(path)
    try:
        yield path
    finally:
        libbpf.unmount(path)
        path.rmdir()


def veth(ipr: IPRoute, name: str, peer: str) -> tuple[int, int]:
    """A veth pair, both ends up in the namespace of `ipr`; returns the interface indexes."""
    ipr.link("add", ifname=name, kind="veth", peer={"ifname": peer})
    ends = (ipr.link_lookup(ifname=name)[0], ipr.link_lookup(ifname=peer)[0])
    for index in ends:
        ipr.link("set", index=index, state="up")
    return ends


def send(netns_path: str, ifname: str, frame: bytes) -> None:
    """Send a frame, from the Ethernet header on, out of an interface of a namespace."""

    def packet_socket() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)

    with (
        Path(netns_path).open() as namespace,
        namespaces.inside(namespace.fileno(), packet_socket) as sender,
    ):
        sender.bind((ifname, 0))
        sender.send(frame)
