"""Is a descriptor a pod's network namespace? Reads only; never enters a namespace.

A path is used once, to open it; after that only the descriptor counts, because the path may come to
lead to another namespace (a reused process id, a removed mount point).
"""

from __future__ import annotations

import os
import stat
from fcntl import ioctl
from pathlib import Path

from pycni.errors import InvalidNetns

NS_GET_NSTYPE = 0xB703
"""ioctl of an nsfs descriptor: returns the CLONE_NEW* flag of the namespace (ioctl_ns(2))."""

CLONE_NEWNET = 0x40000000

OWN = Path("/proc/self/ns/net")

HINT = "CNI_NETNS must be the path of a network namespace made for the pod"


def check(descriptor: int, *, allow_own: bool = False) -> None:
    """Raise InvalidNetns unless `descriptor` is a network namespace, and not our own.

    `allow_own` is the runtime's CNI_NETNS_OVERRIDE: the pod shall be in the node's own namespace.
    """
    kind = _namespace_kind(descriptor)
    if kind is None:
        raise InvalidNetns("CNI_NETNS is no namespace", details=found(descriptor), hint=HINT)
    if kind != CLONE_NEWNET:
        raise InvalidNetns(
            "CNI_NETNS is a namespace, but no network namespace",
            details=f"its type is {kind:#x} (clone(2)), not {CLONE_NEWNET:#x}",
            hint=HINT,
        )
    if not allow_own and os.path.samestat(os.fstat(descriptor), OWN.stat()):
        raise InvalidNetns("CNI_NETNS is the network namespace of the node itself", hint=HINT)


def found(target: int | str) -> str:
    """What is at a descriptor or path, in words, for the details of an error."""
    try:
        mode = (os.fstat(target) if isinstance(target, int) else Path(target).stat()).st_mode
    except OSError as error:
        return f"found nothing at {target}: {error.strerror}"
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    where = f" at {target}" if isinstance(target, str) else ""
    return f"found {kinds.get(stat.S_IFMT(mode), 'something unknown')}{where}"


def _namespace_kind(descriptor: int) -> int | None:
    """The CLONE_NEW* flag; None if the descriptor is not of nsfs (ENOTTY and others)."""
    try:
        return ioctl(descriptor, NS_GET_NSTYPE)
    except OSError:
        return None
