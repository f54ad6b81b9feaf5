"""Which machine this is: so that two machines with one node name are noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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
        machine = BOOT_ID.read_text(encoding="ascii").strip()
    return hashlib.sha256(f"pycni:{machine}".encode()).hexdigest()[:32]
