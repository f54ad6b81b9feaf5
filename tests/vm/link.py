# SPDX-License-Identifier: Apache-2.0
"""Two guests and the virtual link between them: virtio-net at both ends, no host network.

Frames go through a pair of sockets that have no name, so nothing of the link outlives the guests.
The devices offer no offloads: what a guest sends in large packets, its kernel cuts to the link's
MTU and checksums itself, as real hardware without tunnel offloads makes it do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vm.kernels import Kernel
from vm.qemu import Disks, Guest

NAMES = ("node-a", "node-b")
MACS = ("52:54:00:00:00:0a", "52:54:00:00:00:0b")


@contextmanager
def pair(
    kernel: Kernel, disks: Disks, directory: Path, *, capture: Path | None = None
) -> Iterator[tuple[Guest, Guest]]:
    """Two guests, booted. `capture` gets what the first one sends and receives, as pcap."""
    with ExitStack() as stack:
        ends = [stack.enter_context(end) for end in socket.socketpair()]
        guests: list[Guest] = []
        for name, mac, end in zip(NAMES, MACS, ends, strict=True):
            devices = [
                "-netdev", f"stream,id=link,server=off,addr.type=fd,addr.str={end.fileno()}",
                "-device", f"virtio-net-pci,netdev=link,romfile=,mac={mac}",
            ]  # fmt: skip
            if capture is not None and not guests:
                devices += ["-object", f"filter-dump,id=dump,netdev=link,file={capture}"]
            guest = Guest(name, kernel, disks, directory, devices=devices, inherit=(end.fileno(),))
            guests.append(stack.enter_context(guest))
            end.close()
        for guest in guests:
            guest.wait_until_ready()
        yield guests[0], guests[1]
