# SPDX-License-Identifier: Apache-2.0
"""Work in another network namespace, while the caller stays in its own.

A thread that lives for a few system calls enters the namespace. Sockets that it opens belong to
that namespace for good (network_namespaces(7)). pyroute2 would fork instead, and the child would
inherit threads' locks, signal handlers and undo steps.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from fcntl import ioctl
from pathlib import Path
from typing import TypeVar

from pycni.errors import InvalidNetns
from pycni.kernel import sysctl
from pycni.kernel.rtnl import Rtnl

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 0x2
SIOCGSKNS = 0x894C
"""ioctl of sockets: a descriptor of the namespace they are in (linux/sockios.h)."""

SO_NETNS_COOKIE = 71
"""asm-generic/socket.h, since Linux 5.14."""

T = TypeVar("T")


def inside(netns_fd: int, work: Callable[[], T]) -> T:
    """Run `work` in the namespace of a descriptor, in a thread of its own; returns its result.

    Raises InvalidNetns if the namespace cannot be entered, and what `work` raises.
    """

    def enter_and_work() -> T:
        if _libc().setns(netns_fd, CLONE_NEWNET) != 0:
            raise InvalidNetns(
                f"the pod's network namespace cannot be entered: {_strerror()}",
                hint="run as root in the node's own user namespace",
            )
        return work()

    return _in_thread(enter_and_work)


def open_rtnl(netns_fd: int) -> Rtnl:
    """An Rtnl in the namespace of a descriptor. Raises InvalidNetns if it cannot be entered."""
    return Rtnl(_open_netlink(netns_fd))


def cookie() -> int:
    """What the kernel calls the calling thread's network namespace, never used again for another.

    OSError ENOPROTOOPT before Linux 5.14.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        raw = made.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, sys.byteorder)


def is_first() -> bool:
    """Whether the calling thread is in the network namespace that the kernel began with: no other
    has all parameters (net/core/sysctl_net_core.c)."""
    return sysctl.read("net/core/netdev_max_backlog") is not None


def enable_ipv6(netns_fd: int, ifname: str) -> None:
    """Allow IPv6 addresses on an interface of the pod. Raises OSError if the kernel refuses."""
    write_parameters(netns_fd, {f"net/ipv6/conf/{ifname}/disable_ipv6": "0"})


def write_parameters(netns_fd: int, values: Mapping[str, str]) -> dict[str, str]:
    """Set kernel parameters in the namespace of a descriptor, in their order.

    Returns those that had another value, with that value. Raises OSError if the kernel refuses.
    """

    def write() -> dict[str, str]:
        before = {name: sysctl.write(name, value) for name, value in values.items()}
        return {name: value for name, value in before.items() if value is not None}

    return inside(netns_fd, write)


def create(path: Path) -> None:
    """Make a network namespace and mount it at `path`, as ip-netns(8) does.

    Raises FileExistsError if something has that name, OSError if the kernel refuses.
    """
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o444, exist_ok=False)
    try:
        _in_thread(lambda: _mount_new(path))
    except BaseException:
        path.unlink()
        raise


def remove(path: Path) -> None:
    """Undo of `create`; no error if the namespace is gone. Raises OSError if the kernel refuses."""
    if _libc().umount2(os.fsencode(path), MNT_DETACH) != 0:
        number = ctypes.get_errno()
        if number not in (errno.ENOENT, errno.EINVAL):
            raise OSError(number, os.strerror(number), str(path))
    path.unlink(missing_ok=True)


def _open_netlink(netns_fd: int) -> socket.socket:
    """A socket of rtnetlink; the kernel confirms its namespace before anything is written to it."""
    made = inside(netns_fd, _netlink_socket)
    try:
        namespace = ioctl(made, SIOCGSKNS)
        try:
            if not os.path.samestat(os.fstat(namespace), os.fstat(netns_fd)):
                raise InvalidNetns(
                    "the netlink socket is in another namespace than the pod's",
                    hint="the namespace went meanwhile; if it did not, please report it",
                )
        finally:
            os.close(namespace)
    except BaseException:
        made.close()
        raise
    return made


def _netlink_socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)


def _mount_new(path: Path) -> None:
    libc = _libc()
    source = b"/proc/thread-self/ns/net"
    if (
        libc.unshare(CLONE_NEWNET) != 0
        or libc.mount(source, os.fsencode(path), b"none", ctypes.c_ulong(MS_BIND), None) != 0
    ):
        raise OSError(ctypes.get_errno(), f"cannot make a network namespace: {_strerror()}")


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that is used once: afterwards it may be in another namespace."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _strerror() -> str:
    return os.strerror(ctypes.get_errno())
