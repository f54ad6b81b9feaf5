# SPDX-License-Identifier: Apache-2.0
"""Which machine this is: so that two machines with one node name are noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

NETWORK_NAMESPACE = Path("/proc/self/ns/net")
"""Its inode tells nodes of one machine apart, as those of a lab are."""


def boot_id() -> str:
    """The kernel's random UUID of this boot (random(4)); the same in all containers."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def machine_instance() -> str:
    """A text that differs between any two machines that run, be they copies of each other, and
    changes with each boot."""
    namespace = NETWORK_NAMESPACE.stat().st_ino
    return hashlib.sha256(f"pycni:{boot_id()}:{namespace}".encode()).hexdigest()[:16]


def machine_identity() -> str:
    """A text that differs between machines and stays the same over reboots.

    Without a machine ID, it stays the same for this boot only. It is a hash, because machine-id(5)
    asks not to give the ID itself away.
    """
    try:
        machine = MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    if machine in ("", "uninitialized"):
        machine = boot_id()
    return hashlib.sha256(f"pycni:{machine}".encode()).hexdigest()[:32]
