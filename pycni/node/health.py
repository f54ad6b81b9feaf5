"""Whether a node's dataplane is there, found out cheaply: runtimes ask every few seconds.

Looks only, takes no lock, and runs in the node's network namespace.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fcntl import ioctl

from loader import pins
from pycni.kernel.links import IFF_UP
from pycni.node import overlay
from pycni.settings import Settings

SIOCGIFFLAGS = 0x8913
IFREQ_FLAGS = struct.Struct("=16sH22x")
"""struct ifreq of linux/if.h, with the member ifr_flags."""

SETUP = "run: pycni setup"


@dataclass(frozen=True)
class Check:
    """One thing a node needs: whether it is so, what was found, and what to do if it is not."""

    name: str
    ok: bool
    state: str
    hint: str = ""
    optional: bool = False
    """Packets of the pods that are there flow without it."""

    @classmethod
    def passed(cls, name: str, state: str, *, optional: bool = False) -> Check:
        return cls(name, ok=True, state=state, optional=optional)

    @classmethod
    def failed(cls, name: str, state: str, hint: str, *, optional: bool = False) -> Check:
        return cls(name, ok=False, state=state, hint=hint, optional=optional)


def checks(settings: Settings) -> Iterator[Check]:
    """Whether programs are loaded, and whether the overlay device is up."""
    yield _programs(settings)
    yield _device()


def _programs(settings: Settings) -> Check:
    root = settings.pin_root
    current = pins.current(root)
    if current is None or not pins.map_path(root, "endpoints").exists():
        state = f"the dataplane of this node is not loaded: nothing is pinned in {root}"
        return Check.failed("programs", state, SETUP)
    return Check.passed("programs", pins.fingerprint(current))


def _device() -> Check:
    name = f"device {overlay.DEVICE}"
    try:
        up = _flags(overlay.DEVICE) & IFF_UP
    except OSError:
        return Check.failed(name, f"the overlay device {overlay.DEVICE} is gone", SETUP)
    if not up:
        return Check.failed(name, f"the overlay device {overlay.DEVICE} is down", SETUP)
    return Check.passed(name, "up")


def _flags(ifname: str) -> int:
    """Flags of an interface (netdevice(7)). Raises OSError if there is none of that name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        answer = ioctl(asker, SIOCGIFFLAGS, IFREQ_FLAGS.pack(ifname.encode(), 0))
    return int(IFREQ_FLAGS.unpack(answer)[1])
