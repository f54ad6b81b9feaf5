# SPDX-License-Identifier: Apache-2.0
"""Tells systemd that a service is ready: sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket


def ready() -> None:
    """Send READY=1 if a service manager waits for it; raises OSError if that cannot be sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A name that begins with "@" is in the abstract namespace, unix(7).
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.connect(name)
        manager.send(b"READY=1")
