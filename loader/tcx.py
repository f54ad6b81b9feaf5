# SPDX-License-Identifier: Apache-2.0
"""Hooks of a kernel with tcx (6.6): programs at an interface, run before the filters of any qdisc.

How they are attached, and which are ours, says mprog.py. Source: kernel/bpf/tcx.c.
"""

from __future__ import annotations

from . import libbpf, mprog
from .bpf import Program
from .hooks import Hook
from .places import DIRECTION, EGRESS, INGRESS

ATTACH_TYPES = {INGRESS: 46, EGRESS: 47}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS


def probe() -> bool:
    """Whether the kernel has tcx. OSError says why not."""
    return libbpf.query(mprog.LOOPBACK, ATTACH_TYPES[INGRESS]) is not None


def available() -> bool:
    """Whether the kernel has tcx, and the caller may use it."""
    try:
        return probe()
    except OSError:
        return False


def attach(hook: Hook, program: Program) -> None:
    """See mprog.attach."""
    mprog.attach(hook, ATTACH_TYPES[DIRECTION[hook.program]], program)


def detach(hook: Hook) -> bool:
    """See mprog.detach."""
    return mprog.detach(hook, ATTACH_TYPES[DIRECTION[hook.program]])


def attached(ifindex: int) -> dict[str, str]:
    """Our programs on an interface, each with its fingerprint; empty if there is no interface."""
    found: dict[str, str] = {}
    for direction, kind in ATTACH_TYPES.items():
        found |= mprog.attached(ifindex, kind, direction)
    return found


def programs(ifindex: int, direction: int) -> list[int]:
    """Ids of all programs, ours and others', at INGRESS or EGRESS, in the order they run."""
    return mprog.programs(ifindex, ATTACH_TYPES[direction])
