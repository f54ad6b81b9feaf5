# SPDX-License-Identifier: Apache-2.0
"""What a command may do: the capabilities it needs, by name, before it begins.

capabilities(7). CAP_BPF is a part of CAP_SYS_ADMIN that Linux 5.8 split off: either will do.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from pycni.errors import NotPermitted

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF = "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"

NUMBERS = {CAP_NET_ADMIN: 12, CAP_SYS_ADMIN: 21, CAP_BPF: 39}
"""include/uapi/linux/capability.h"""

STATUS = Path("/proc/self/status")
UID_MAP = Path("/proc/self/uid_map")
WHOLE_MAP = ["0", "0", str(2**32 - 1)]
"""user_namespaces(7): the map of the host's own user namespace."""


def require(*needed: str) -> None:
    """Raise NotPermitted that names those of the capabilities which this process lacks."""
    lacking = missing(_effective(), *needed)
    if not lacking:
        return
    context = click.get_current_context(silent=True)
    command = f"`{context.command_path}`" if context else "this command"
    if os.geteuid() != 0:
        raise NotPermitted(
            f"{command} needs root",
            details=f"user {os.geteuid()}, without {', '.join(lacking)}",
            hint="run it as root",
        )
    raise NotPermitted(
        f"{command} needs {' and '.join(lacking)}, which root does not have here", hint=_grant()
    )


def missing(effective: int, *needed: str) -> list[str]:
    """Those of the capabilities that a set lacks; `effective` has bit n for capability n."""
    have = {name for name, number in NUMBERS.items() if effective >> number & 1}
    if CAP_SYS_ADMIN in have:
        have.add(CAP_BPF)
    return [name for name in needed if name not in have]


def advice() -> str:
    """What to do about EPERM or EACCES."""
    if os.geteuid() != 0:
        return "run it as root"
    lacking = missing(_effective(), *NUMBERS)
    if not lacking and not _in_user_namespace():
        return ""
    return f"root lacks {', '.join(lacking)}: {_grant()}" if lacking else _grant()


def _grant() -> str:
    if _in_user_namespace():
        return "run it as root of the host: this is root of a user namespace"
    return (
        "a container or unit took it away: run on the host, or grant the capability "
        "(CapabilityBoundingSet= of a unit, securityContext.capabilities of a pod)"
    )


def _effective() -> int:
    """CapEff of proc(5)."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def _in_user_namespace() -> bool:
    try:
        return UID_MAP.read_text(encoding="ascii").split() != WHOLE_MAP
    except OSError:
        return False
