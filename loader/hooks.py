"""Where programs go: an interface and, by the program's name, a direction."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import AttachError, GoneError

INGRESS = 0xFFFFFFF2  # TC_H_CLSACT with TC_H_MIN_INGRESS, include/uapi/linux/pkt_sched.h
EGRESS = 0xFFFFFFF3
DIRECTION = {
    "from_container": INGRESS,
    "to_container": EGRESS,
    "from_underlay": INGRESS,
    "from_overlay": INGRESS,
    "to_overlay": EGRESS,
}
ENDPOINT_PROGRAMS = ("from_container", "to_container")
"""At the host end of each pod's veth; the others are at the node's own interfaces."""
PREFIX = "pycni"
"""Before the fingerprint: in a filter's name, and in a program's constant `identity`."""


@dataclass(frozen=True)
class Hook:
    """A place for one of the programs: an interface; the program says the direction."""

    ifindex: int
    program: str


def refused(hook: Hook, code: int, why: str, *, hints: Mapping[int, str]) -> AttachError:
    """What the kernel's `code` (errno) means at a hook; `hints` say what to do about some."""
    what = f"{hook.program} at interface {hook.ifindex}"
    if code == errno.ENODEV:
        return GoneError(f"cannot attach {what}: no such interface")
    hint = "run as root" if code == errno.EPERM else hints.get(code, "")
    return AttachError(f"cannot attach {what}: {why}", hint=hint)
