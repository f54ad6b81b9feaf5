# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel what it can do, by trying; never by its version.

Small programs are loaded, and run on a packet where only running tells; nothing stays. Needs
CAP_BPF and CAP_NET_ADMIN, else everything is unavailable for that reason.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from . import bpf, libbpf, netkit, tcx
from .errors import KernelError

# enum bpf_map_type, bpf_func_id: include/uapi/linux/bpf.h
MAP_RINGBUF = 27
HELPER_SET_TUNNEL_KEY, HELPER_REDIRECT_PEER = 21, 155
HELPER_ADJUST_ROOM, HELPER_KTIME_COARSE = 50, 160
HELPER_SET_RETVAL = 187
PACKET = bytes(64)
IPV4_PACKET = bytes(12) + b"\x08\x00" + bytes(114)

# bpf_skb_adjust_room: fixed GSO, IPv4 and UDP outside, an Ethernet header of 14 bytes inside
ENCAP_FLAGS = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 6 | 14 << 56
ENCAP_LENGTH = 50
DECAP_L3_IPV6 = 1 << 8

RETURN_ZERO = ((0xB7, 0, 0, 0), (0x95, 0, 0, 0))


@dataclass(frozen=True)
class Feature:
    """One ability of the kernel: `reason` why it is missing, `fallback` what is done without it.

    `needed_by` says what cannot work without it; empty for features that have a fallback.
    """

    name: str
    available: bool
    reason: str
    fallback: str
    needed_by: str = ""


def probe() -> list[Feature]:
    """Try every feature that pycni uses or tells about. KernelError without the BPF library."""
    return [
        _try("redirect_peer", partial(_has_helper, HELPER_REDIRECT_PEER),
             needed_by="delivery to pods (bpf_redirect_peer, 5.10)"),
        _try("set_tunnel_key", partial(_has_helper, HELPER_SET_TUNNEL_KEY),
             needed_by="traffic between nodes (bpf_skb_set_tunnel_key)"),
        _try("ringbuf", partial(_has_map_type, MAP_RINGBUF),
             needed_by="drop events (BPF_MAP_TYPE_RINGBUF, 5.8)"),
        _try("btf", _has_btf, needed_by="the layout check of pinned maps (BPF_BTF_LOAD, 4.18)"),
        _try("prog_test_run", _can_test_run,
             fallback="no program is tried on a packet: tunnel_key_local, own_encap and decap_l3, "
             "which only that shows, count as missing"),
        _try("tunnel_key_local", _sets_local_address,
             fallback="the kernel's routes choose the outer source address"),
        _try("own_encap", _encapsulates,
             fallback="the metadata device carries all traffic between nodes"),
        _try("decap_l3", _decapsulates_other_family,
             fallback="the metadata device receives IPv4 in IPv6 and IPv6 in IPv4"),
        _try("tcx", tcx.probe,
             fallback="clsact filters; a chained bandwidth plugin cannot limit what a pod sends: "
             "use the capability `bandwidth`"),
        _try("netkit", netkit.probe,
             fallback='pods have veth pairs; in a network with "device": "netkit" each ADD fails'),
        _try("netkit_headroom", netkit.probe_headroom,
             fallback="packets of pods with netkit come without room for VXLAN's headers: each to "
             "another node is copied in part, which is slower"),
        _try("set_retval", partial(_has_helper, HELPER_SET_RETVAL, libbpf.CGROUP_SOCK_ADDR),
             fallback="processes of the node get EPERM, not ECONNREFUSED, from Services without "
             "endpoints"),
        _try("jit", _is_jited, fallback="programs are interpreted, many times slower"),
    ]  # fmt: skip


def require(features: Iterable[Feature]) -> None:
    """Raise KernelError naming every feature that is missing and has no fallback."""
    missing = [item for item in features if item.needed_by and not item.available]
    if missing:
        raise KernelError(
            f"this kernel ({os.uname().release}) lacks {', '.join(f.name for f in missing)}",
            details="\n".join(f"{f.name}: {f.reason}; needed by {f.needed_by}" for f in missing),
            hint="run as root, on Linux 5.10 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF",
        )


def _try(
    name: str, attempt: Callable[[], bool], *, fallback: str = "", needed_by: str = ""
) -> Feature:
    reason = ""
    try:
        available = attempt()
        reason = "" if available else "the kernel refuses it"
    except OSError as error:
        available = False
        denied = error.errno in (errno.EPERM, errno.EACCES)
        reason = "not permitted: run as root" if denied else error.strerror or str(error)
    return Feature(name, available, reason, fallback, needed_by)


def _has_helper(helper: int, kind: int = libbpf.SCHED_CLS) -> bool:
    return _can_load() and libbpf.probe_helper(helper, kind)


def _has_map_type(map_type: int) -> bool:
    return _can_load() and libbpf.probe_map_type(map_type)


def _can_load() -> bool:
    """Whether this process may load a program. libbpf's probes do not tell: they take a missing
    privilege for a yes."""
    with bpf.load_instructions("probe_load", assemble(RETURN_ZERO)):
        return True


def _has_btf() -> bool:
    libbpf.load_btf()
    return True


def _can_test_run() -> bool:
    with bpf.load_instructions("probe_run", assemble(RETURN_ZERO)) as program:
        return program.test_run(PACKET).action == 0


def _is_jited() -> bool:
    with bpf.load_instructions("probe_jit", assemble(RETURN_ZERO)) as program:
        return program.info.jited


def _sets_local_address() -> bool:
    """bpf_skb_set_tunnel_key takes the local address (44 of 44 bytes) or says EINVAL (6.0)."""
    size = 44  # sizeof(struct bpf_tunnel_key) with local_ipv6
    zero_key = [(0x7A, 10, -offset, 0) for offset in range(8, 56, 8)]  # *(u64 *)(r10 - n) = 0
    call = (
        (0xBF, 10 << 4 | 2, 0, 0),  # r2 = r10
        (0x07, 2, 0, -48),  # r2 -= 48; r1 is the context
        (0xB7, 3, 0, size),
        (0xB7, 4, 0, 0),  # no flags
        (0x85, 0, 0, HELPER_SET_TUNNEL_KEY),
        (0x95, 0, 0, 0),
    )
    with bpf.load_instructions("probe_key", assemble((*zero_key, *call))) as program:
        return program.test_run(PACKET).action == 0


def _encapsulates() -> bool:
    """bpf_skb_adjust_room makes room for VXLAN (ENCAP_L2_ETH, 5.13); there is a coarse clock."""
    return _has_helper(HELPER_KTIME_COARSE) and _adjusts_room(ENCAP_LENGTH, ENCAP_FLAGS)


def _decapsulates_other_family() -> bool:
    """bpf_skb_adjust_room sets the protocol of what was inside (DECAP_L3_IPV6, 6.3)."""
    return _adjusts_room(-ENCAP_LENGTH, DECAP_L3_IPV6)


def _adjusts_room(length: int, flags: int) -> bool:
    low = flags & 0xFFFFFFFF
    call = (
        (0xB7, 2, 0, length),  # r1 is the context
        (0xB7, 3, 0, 1),  # BPF_ADJ_ROOM_MAC
        (0x18, 4, 0, low - (1 << 32) if low >> 31 else low),  # r4 = flags, in two halves
        (0x00, 0, 0, flags >> 32),
        (0x85, 0, 0, HELPER_ADJUST_ROOM),
        (0x95, 0, 0, 0),
    )
    with bpf.load_instructions("probe_room", assemble(call)) as program:
        return program.test_run(IPV4_PACKET).action == 0


def assemble(instructions: Iterable[tuple[int, int, int, int]]) -> bytes:
    """(opcode, source << 4 | destination, offset, immediate): struct bpf_insn."""
    return b"".join(struct.pack("=BBhi", *instruction) for instruction in instructions)
