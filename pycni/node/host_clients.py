# SPDX-License-Identifier: Apache-2.0
"""Processes of the node as clients of Services: which sockets are theirs, and where their programs
are attached. Looks only."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from pycni.errors import SetupError
from pycni.kernel import cgroups, namespaces
from pycni.settings import Settings

MODE = "pods+host"
"""The value of `services` that serves them."""


@dataclass(frozen=True)
class Place:
    """What tells the node's sockets from others."""

    cgroup: Path
    """The directory of a control group above all of them."""
    netns: int
    """The cookie of the node's network namespace; 0: the kernel's first one."""


def are_served(settings: Settings) -> bool:
    """Whether the settings say so."""
    return settings.services == MODE


def look(settings: Settings) -> Place | None:
    """Of the calling thread's network namespace; None if they are not served. SetupError if they
    cannot be."""
    if not are_served(settings):
        return None
    root = cgroups.root()
    if root is None:
        raise SetupError(
            f'services = "{MODE}": no control groups v2 are mounted here',
            hint='mkdir /run/cgroup2; mount -t cgroup2 cgroup2 /run/cgroup2; or services = "pods"',
        )
    return Place(root.path, _cookie())


def _cookie() -> int:
    try:
        return namespaces.cookie()
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT or not namespaces.is_first():
            raise SetupError(
                f'services = "{MODE}": this network namespace cannot be told from others: '
                f"{error.strerror}",
                hint="it takes Linux 5.14, or the machine's own network namespace; or "
                'services = "pods"',
            ) from error
        return 0
