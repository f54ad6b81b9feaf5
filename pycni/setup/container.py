# SPDX-License-Identifier: Apache-2.0
"""pycni in a container: what it needs of its host, refused by name where it is missing.

A container has mounts of its own. What it shares with the host are the directories that its pod
names (hostPath). Each of them must be the host's, for pods outlive the container.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from loader import pins
from pycni import locks
from pycni.errors import FileError, SetupError, TryAgain
from pycni.kernel import mounts, sysctl
from pycni.logfmt import quoted
from pycni.settings import NODE_NAME, Settings

SYS = Path("/sys")
PARAMETERS = "net/ipv4"
"""Below PROC_SYS: a directory that must be writable."""
LOOPBACK = "loopback"

log = logging.getLogger(__name__)


def is_pod(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process serves a host from a pod, as the DaemonSet's environment says.

    Not whether it is in a pod at all: labs can be in one, too, with file systems of their own.
    """
    return bool(environment.get(NODE_NAME))


def prepare(settings: Settings, *, bin_dir: Path, conf_dir: Path) -> bool:
    """Make the host ready, or refuse it; True if a BPF file system was mounted.

    Needs a privileged container whose mount of the BPF file system goes to the host
    (mountPropagation: Bidirectional). Raises SetupError, FileError or BpffsError.
    """
    for directory in (bin_dir, conf_dir, settings.state_dir, settings.run_dir):
        refuse_read_only(directory)
    refuse_no_execution(bin_dir)
    warn_without_loopback(bin_dir)
    refuse_another_agent(settings)
    refuse_other_directory(settings.bpffs)
    mounted = pins.ensure_bpffs(settings.bpffs)
    refuse_private_bpffs(settings.bpffs)
    return mounted


def check(settings: Settings) -> None:
    """What setup and agent need of the host, if they are in a pod. Raises as `prepare`."""
    if not is_pod():
        return
    refuse_private_bpffs(settings.bpffs)
    refuse_read_only_parameters()


def refuse_another_agent(settings: Settings) -> None:
    """SetupError if an agent runs on the host: two installations would fight for one node."""
    try:
        with locks.agent_lock(settings.run_dir):
            pass
    except TryAgain as error:
        raise SetupError(
            "another agent of pycni runs on this host",
            details=f"the lock of the agent in {settings.run_dir} is held",
            hint="a node has one installation. If it is that of the systemd units, remove it: "
            "systemctl disable --now pycni-agent pycni-setup; pycni uninstall. If it is a pod that "
            "is about to end, this is tried again",
        ) from error


def refuse_read_only(directory: Path) -> None:
    """FileError if a directory of the host is missing, or mounted read-only."""
    try:
        flags = os.statvfs(directory).f_flag
    except OSError as error:
        raise FileError(
            f"the host's directory {directory} cannot be used: {error.strerror}",
            hint="the pod must mount it, by hostPath at the same path",
        ) from error
    if flags & os.ST_RDONLY:
        raise FileError(
            f"the host's directory {directory} is read-only",
            hint="mount it writable, or name a directory that is: the runtime's configuration says "
            "where it looks, and the pod's hostPath must be the same",
        )


def refuse_no_execution(bin_dir: Path) -> None:
    """FileError if the runtime could not execute a plugin there."""
    if os.statvfs(bin_dir).f_flag & os.ST_NOEXEC:
        raise FileError(
            f"the host's directory {bin_dir} is mounted noexec: no plugin can run there",
            hint="mount it without noexec, or have the runtime look for plugins elsewhere",
        )


def warn_without_loopback(bin_dir: Path) -> None:
    """Say that containerd makes no pod without the plugin `loopback`; other runtimes need none."""
    if not (bin_dir / LOOPBACK).exists():
        log.warning("the plugin loopback is missing directory=%s to_do=%s", quoted(bin_dir),
                    quoted("containerd needs it: install the CNI plugins, such as Debian's package "
                           "containernetworking-plugins, where containerd looks"))  # fmt: skip


def refuse_other_directory(bpffs: Path) -> None:
    """SetupError if a directory below /sys that has no BPF file system is no part of a sysfs.

    Then it is a volume that is not the host's /sys: what is mounted there, the host has elsewhere.
    """
    mount = mounts.covering(bpffs)
    if mount is None or not bpffs.is_relative_to(SYS) or mount.kind in ("bpf", "sysfs"):
        return
    raise SetupError(
        f"the BPF file system at {bpffs} is not the host's: another directory is mounted there",
        details=f"{mount.point} is of type {mount.kind}",
        hint=_BPFFS_HINT.format(bpffs=bpffs),
    )


def refuse_private_bpffs(bpffs: Path) -> None:
    """SetupError if the BPF file system is the container's own.

    The host's comes by propagation (mount_namespaces(7)): in this mount namespace it is a peer of
    the host's mount, or follows it. Pins in another one end with the container.
    """
    mount = mounts.covering(bpffs)
    if mount is not None and mount.kind == "bpf" and (mount.shared or mount.follows):
        return
    found = f"{mount.point} is of type {mount.kind}" if mount else "nothing is mounted"
    if mount is not None and mount.kind == "bpf":
        found = f"the mount at {mount.point} is private to this container"
    raise SetupError(
        f"the BPF file system at {bpffs} is not the host's: the node would lose its pins with "
        "this container",
        details=found,
        hint=_BPFFS_HINT.format(bpffs=bpffs),
    )


def refuse_read_only_parameters() -> None:
    """FileError if the host's kernel parameters cannot be written."""
    directory = sysctl.PROC_SYS / PARAMETERS
    try:
        read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise FileError(
            f"there are no kernel parameters at {directory}: {error.strerror}",
            hint=_PARAMETERS_HINT,
        ) from error
    if read_only:
        raise FileError(
            f"the kernel parameters at {directory} are read-only", hint=_PARAMETERS_HINT
        )


_BPFFS_HINT = (
    "mount {bpffs} by hostPath, with mountPropagation Bidirectional for `pycni prepare` and "
    "HostToContainer for the others; on the host it must be a shared mount: "
    "mount --make-shared {bpffs}"
)
_PARAMETERS_HINT = (
    "mount the host's /proc/sys/net by hostPath at /host/proc/sys/net, and set "
    f"{sysctl.PLACE}=/host/proc/sys"
)
