# SPDX-License-Identifier: Apache-2.0
"""Hooks of a kernel with netkit (6.7): a program in a pod's own device, run when the pod sends.

A netkit pair stands in the place of a veth pair. Its host end takes the program for both: at
BPF_NETKIT_PEER, run in the pod's end with the interface number of the host's. Only from_container
goes there. BPF_NETKIT_PRIMARY would show to_container the interface number that the pod's end has
in the pod, so that one stays at the egress of the host end.

How a program is attached, and which are ours, says mprog.py. Source: drivers/net/netkit.c.
"""

from __future__ import annotations

import errno
from pathlib import Path

from . import libbpf, mprog
from .bpf import Program
from .hooks import Hook
from .places import INGRESS, PLACES

PROGRAM = next(place.program for place in PLACES if place.in_pod)
ATTACH_TYPE = 55  # BPF_NETKIT_PEER
KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
HEADROOM = b"\0IFLA_NETKIT_HEADROOM\0"


def probe() -> bool:
    """Whether the kernel has netkit. OSError says why not.

    Asks about the loopback interface, which is not a netkit; a kernel with netkit says so.
    """
    try:
        libbpf.query(mprog.LOOPBACK, ATTACH_TYPE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    return True


def probe_headroom() -> bool:
    """Whether a netkit can ask its pod to leave room for outer headers (6.14).

    Older kernels ignore the request, so its name is looked for among the kernel's types.
    """
    return probe() and HEADROOM in KERNEL_TYPES.read_bytes()


def available() -> bool:
    """Whether the kernel has netkit, and the caller may use it."""
    try:
        return probe()
    except OSError:
        return False


def takes(hook: Hook) -> bool:
    """Whether a program belongs to the netkit that an interface is the host end of."""
    if hook.program != PROGRAM:
        return False
    try:
        libbpf.query(hook.ifindex, ATTACH_TYPE)
    except OSError as error:
        if error.errno not in mprog.NOTHING_THERE:
            raise
        return False
    return True


def attach(hook: Hook, program: Program) -> None:
    """See mprog.attach."""
    mprog.attach(hook, ATTACH_TYPE, program)


def detach(hook: Hook) -> bool:
    """See mprog.detach. The pod's end then takes nothing from the pod (pods/link_kinds.py)."""
    return mprog.detach(hook, ATTACH_TYPE)


def programs(ifindex: int) -> list[int]:
    """Ids of all programs in an interface's pair, ours and others'; empty if it is no netkit."""
    return mprog.programs(ifindex, ATTACH_TYPE)


def attached(ifindex: int) -> dict[str, str]:
    """Our program in an interface's pair, with its fingerprint; empty if there is none."""
    return mprog.attached(ifindex, ATTACH_TYPE, INGRESS)
