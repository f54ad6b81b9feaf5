# SPDX-License-Identifier: Apache-2.0
"""A place at one interface for one of the programs, and what the kernel says against it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import AttachError, GoneError

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
        return GoneError(
            f"cannot attach {what}: no such interface",
            hint="it went meanwhile: try again, pycni looks for the interfaces there are",
        )
    hint = "run as root" if code == errno.EPERM else hints.get(code, "")
    return AttachError(f"cannot attach {what}: {why}", hint=hint)
