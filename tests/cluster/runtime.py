# SPDX-License-Identifier: Apache-2.0
"""containerd of a cluster's nodes, Debian's or one that was built: programs and configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster import build, containerd
from cluster.commands import CNI_BIN, CNI_CONF, CONTAINERD_SOCKET, Command
from cluster.containerd import Containerd
from cluster.images import PAUSE
from cluster.layout import Cluster, address
from pycni.lab.layout import LabNode

PACKAGES = {"containerd": "containerd", "ctr": "containerd", "runc": "runc"}
"""Debian's programs, each with its package."""
NAMESPACE = "k8s.io"
"""Of containerd, where Kubernetes' containers and images are."""
UNUSED_PLUGINS = (
    "io.containerd.internal.v1.opt",
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")),
)
"""Of containerd: those that need something of the computer."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Runtime:
    """What runs a node's containers."""

    version: str
    """Empty: Debian's."""
    programs: Path
    """The directory of those that were built."""

    @property
    def is_built(self) -> bool:
        """One that was built asks the plugin for its STATUS, and knows pods with users of their
        own; Debian 12's and 13's do not."""
        return bool(self.version)

    @property
    def wanted(self) -> dict[str, str]:
        """Programs of the computer that it needs, each with its Debian package."""
        return {} if self.is_built else PACKAGES

    def daemon(self, config: Path) -> Command:
        """The command line."""
        return [self._program("containerd"), "--config", config]

    def ctr(self, *arguments: str | Path) -> Command:
        """The command line of its client."""
        return [self._program("ctr"), "--address", CONTAINERD_SOCKET, "--namespace", NAMESPACE,
                *arguments]  # fmt: skip

    def configuration(self, node: LabNode) -> str:
        """config.toml of a node."""
        return _third(node, self.programs) if self.is_built else _second(node)

    def _program(self, name: str) -> str | Path:
        return self.programs / name if self.is_built else name


def of(cluster: Cluster) -> Runtime:
    """The runtime of a cluster's nodes. Raises PycniError if its version cannot be."""
    if not cluster.containerd:
        return Runtime(version="", programs=Path())
    wanted = Containerd(cluster.containerd)
    return Runtime(wanted.version, build.directory(wanted) / "bin")


def provide(version: str, tell: Tell) -> None:
    """Build containerd of a version, if that is not Debian's, and the runc that it is tested with.

    Debian's runc (1.1) would be too old: it knows no user namespaces of pods, and each containerd
    wants the runc that it is tested with, or a newer one. Raises PycniError.
    """
    if not version:
        return
    programs = build.provide(Containerd(version), containerd.CONTAINERD, tell=tell)
    runc = build.provide(containerd.runc_of(programs), containerd.RUNC, tell=tell) / "runc"
    link = programs / "runc"
    if not (link.is_symlink() and link.readlink() == runc):
        link.unlink(missing_ok=True)
        link.symlink_to(runc)


def _second(node: LabNode) -> str:
    """Version 2 of the configuration, which containerd 1.6 reads."""
    return f"""version = 2
disabled_plugins = {json.dumps(UNUSED_PLUGINS)}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
stream_server_address = "{address(node)}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_BIN}"
conf_dir = "{CNI_CONF}"
"""


def _third(node: LabNode, programs: Path) -> str:
    """Version 3, which containerd 2 reads. It would take the shim and runc that are in PATH first,
    Debian's."""
    return f"""version = 3
disabled_plugins = {json.dumps(UNUSED_PLUGINS)}

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{programs}/containerd-shim-runc-v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{programs}/runc"
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{CNI_BIN}"]
conf_dir = "{CNI_CONF}"

[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "{address(node)}"
"""
