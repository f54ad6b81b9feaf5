# SPDX-License-Identifier: Apache-2.0
"""A host with a containerd of its own, where containers of the DaemonSet run as its pod says.

Its network is that of a lab's node, its directories are private, and its BPF file system is a
shared mount, as on a host. What the kubelet would do with a container's description, `run` does.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image import manifests
from pycni.files import make_private_directory
from pycni.lab import processes
from pycni.lab.layout import LabNode
from runtimes.containerd import UNUSED
from support import leftovers
from support.waiting import wait_until

NAMESPACE = "k8s.io"
CRI = "io.containerd.grpc.v1.cri"
PROPAGATION = {None: "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
GIVEN = frozenset(
    f"CAP_{name}"
    for name in ("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID",
                 "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL",
                 "AUDIT_WRITE")
)  # fmt: skip
"""Capabilities that containerd gives to a container that names none (oci/spec.go)."""

Done = subprocess.CompletedProcess[bytes]


@dataclass(frozen=True)
class Change:
    """How a container differs from its description."""

    args: Sequence[str] | None = None
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the mount of a volume, by the volume's name, after its own: of two, the last counts."""
    without: tuple[str, ...] = ()
    """Volumes that are not mounted."""


class Host:
    """The host; `settings` is the text of the ConfigMap, its paths those of this host."""

    def __init__(self, node: LabNode, image: str) -> None:
        self.node = node
        self.image = image
        self.directory = node.directory / "host"
        self.containerd = self.directory / "containerd"
        self.socket = self.containerd / "containerd.sock"
        self.places = {
            "settings": (self.directory / "etc", Path("/etc/pycni")),
            "bpffs": (self.directory / "bpf",) * 2,
            "run": (self.directory / "run",) * 2,
            "state": (self.directory / "state",) * 2,
            "cni-bin": (self.directory / "bin", Path("/opt/cni/bin")),
            "cni-results": (self.directory / "results", Path("/var/lib/cni")),
            "cni-conf": (self.directory / "net.d", Path("/etc/cni/net.d")),
            "bgp": (self.directory / "bgp", Path("/etc/pycni-bgp")),
            "proc-sys-net": (Path("/proc/sys/net"), Path("/host/proc/sys/net")),
            "cgroup": (Path("/sys/fs/cgroup"), Path("/host/sys/fs/cgroup")),
            "tmp": (self.directory / "tmp", Path("/tmp")),
        }
        """Of each volume of the pod: where it is on this host, and in a container."""
        found = manifests.pieces(["daemonset.yaml", "uninstall.yaml"])
        self.pods = [one["spec"]["template"]["spec"] for one in found]
        self.names: list[str] = []
        self._numbers = itertools.count(1)
        self._process: processes.Kept | None = None

    def path(self, volume: str) -> Path:
        """Where a volume is on this host."""
        return self.places[volume][0]

    def start(self, archive: Path) -> None:
        """Make the directories, and start containerd with the image."""
        make_private_directory(self.directory)
        for where, _ in self.places.values():
            where.mkdir(exist_ok=True)
        bpffs = self.path("bpffs")
        _mount("--bind", bpffs, bpffs)
        _mount("--make-shared", bpffs)
        (self.path("settings") / "pycni.toml").write_text(self.settings())
        self.containerd.mkdir()
        disabled = [CRI, *(f"io.containerd.{name}" for name in UNUSED)]
        config = self.containerd / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.containerd}/root"\nstate = "{self.containerd}/state"\n'
            f'disabled_plugins = {disabled}\n[grpc]\naddress = "{self.socket}"\n'
        )
        self._process = processes.start(
            self.node.netns, ["containerd", "--config", config], log=self.containerd / "log"
        )
        wait_until(lambda: self.ctr("version").returncode == 0, "containerd answers")
        done = self.ctr("images", "import", "--snapshotter", "native", archive)
        assert done.returncode == 0, done.stderr.decode()

    def settings(self) -> str:
        """The text of the ConfigMap, with this host's directories and a store of its own."""
        (found,) = (
            one["data"]["pycni.toml"]
            for one in manifests.pieces(["config.yaml"])
            if one["metadata"]["name"] == "pycni"
        )
        state = self.path("state")
        lines = [line for line in found.splitlines() if not line.startswith(("store", "cache_dir"))]
        return "\n".join([
            *lines,
            f'store = "sqlite:{state}/cluster.db"',
            f'cache_dir = "{state}/cache"',
            f'state_dir = "{state}"',
            f'run_dir = "{self.path("run")}"',
            f'bpffs = "{self.path("bpffs")}"',
            "",
        ])  # fmt: skip

    def described(self, name: str) -> dict[str, Any]:
        """A container of the DaemonSets, by its name."""
        groups = [pod[group] for pod in self.pods for group in ("initContainers", "containers")]
        return next(one for group in groups for one in group if one["name"] == name)

    def run(self, name: str, change: Change | None = None) -> Done:
        """Run a container of a DaemonSet to its end."""
        return self.ctr(*self._command(name, change or Change(), "--rm"))

    def start_container(self, name: str, *, log: Path) -> str:
        """Start a container of a DaemonSet; returns its ID."""
        command = self._command(name, Change(), f"--log-uri=file://{log}", "--detach")
        done = self.ctr(*command)
        assert done.returncode == 0, done.stderr.decode()
        return self.names[-1]

    def execute(self, container: str, command: Sequence[str]) -> Done:
        """Run a command in a container that runs."""
        number = next(self._numbers)
        return self.ctr("tasks", "exec", "--exec-id", f"exec{number}", container, *command)

    def stop(self, container: str) -> None:
        """End a container by SIGTERM, and remove it."""
        self.ctr("tasks", "kill", "--signal", "SIGTERM", container)
        wait_until(lambda: b"RUNNING" not in self._state(container), "the container ends")
        self.ctr("tasks", "delete", container)
        done = self.ctr("containers", "delete", container)
        assert done.returncode == 0, done.stderr.decode()

    def ctr(self, *arguments: str | Path) -> Done:
        """containerd's own client, on this host."""
        return processes.run(
            self.node.netns,
            ["ctr", "--address", self.socket, "--namespace", NAMESPACE, *arguments],
            timeout=120.0,
        )

    def end(self) -> None:
        """Take everything away, however much of it there is."""
        if self._process is not None:
            processes.stop(self._process)
        leftovers.end_processes(self.directory, self.node.netns)
        leftovers.remove_shim_sockets(self.socket, NAMESPACE, *self.names)
        leftovers.remove_cgroups(self.node.netns)
        leftovers.remove_directory(self.directory)

    def _state(self, container: str) -> bytes:
        rows = self.ctr("tasks", "list").stdout.splitlines()
        return next((row for row in rows if row.startswith(container.encode())), b"")

    def _command(self, name: str, change: Change, *options: str) -> list[str]:
        described = self.described(name)
        identity = f"{self.node.netns}-{name}{next(self._numbers)}"
        self.names.append(identity)
        arguments = described["args"] if change.args is None else change.args
        return [
            "run", *options, "--snapshotter=native", "--net-host", "--seccomp",
            f"--cgroup=/{self.node.netns}/{identity}", f"--runc-root={self.containerd}/runc",
            *_security(described["securityContext"]),
            *_environment(described["env"], self.node.name),
            *(f"--mount={one}" for one in self._mounts(described["volumeMounts"], change)),
            self.image, identity, "/usr/bin/pycni", *arguments,
        ]  # fmt: skip

    def _mounts(self, mounts: Sequence[dict[str, Any]], change: Change) -> Iterator[str]:
        for mount in mounts:
            volume = mount["name"]
            if volume in change.without:
                continue
            source, target = self.places[volume]
            options = [
                PROPAGATION[mount.get("mountPropagation")],
                "ro" if mount.get("readOnly") else "rw",
                *change.options.get(volume, ()),
            ]
            yield f"type=bind,src={source},dst={target},options=rbind:{':'.join(options)}"


@contextmanager
def running(node: LabNode, image: str, archive: Path) -> Iterator[Host]:
    """A host that has the image; gone at the end."""
    host = Host(node, image)
    try:
        host.start(archive)
        yield host
    finally:
        host.end()


def _security(context: dict[str, Any]) -> Iterator[str]:
    """Options for a container's securityContext."""
    if context["readOnlyRootFilesystem"]:
        yield "--read-only"
    if context.get("privileged"):
        yield from ("--privileged", "--rootfs-propagation=rshared")
        return
    yield "--rootfs-propagation=rslave"
    assert context["capabilities"]["drop"] == ["ALL"]
    wanted = {f"CAP_{name}" for name in context["capabilities"].get("add", ())}
    yield from (f"--cap-drop={name}" for name in sorted(GIVEN - wanted))
    yield from (f"--cap-add={name}" for name in sorted(wanted - GIVEN))


def _environment(variables: Sequence[dict[str, Any]], node: str) -> Iterator[str]:
    """Options for a container's environment."""
    for one in variables:
        if "value" not in one:
            assert one["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
        yield f"--env={one['name']}={one.get('value', node)}"


def _mount(*arguments: str | os.PathLike[str]) -> None:
    subprocess.run(["mount", *arguments], check=True)
