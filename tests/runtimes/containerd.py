# SPDX-License-Identifier: Apache-2.0
"""A private containerd on a lab node: own root, state, socket, control group and CNI directories.

It runs in the node's network namespace and in nothing else of its own, so that the plugin it
executes works on that node. `ended` takes away everything it made, whatever state it is in.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pycni.cni.requests import ANNOTATIONS
from pycni.lab import processes
from pycni.lab.layout import POD_IFNAME, LabNode
from runtimes import images
from runtimes.cri import Cri, Refused
from runtimes.recorder import Recorder
from support import leftovers
from support.kernel import open_iproute
from support.waiting import wait_until

LOOPBACK = Path("/usr/lib/cni/loopback")
"""containerd wants this plugin beside ours; of Debian's containernetworking-plugins."""

NAMESPACE = "k8s.io"
"""Of containerd, where the runtime interface has its containers and images."""

REMOVAL_SECONDS = 20.0

CAPABILITIES = {"portMappings": True, "bandwidth": True, ANNOTATIONS: True}

UNUSED = (
    *("internal.v1.opt", "internal.v1.restart", "internal.v1.tracing", "nri.v1.nri"),
    *(f"snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "overlayfs", "zfs")),
)
"""Plugins of containerd that have directories of their own, or need something of the machine."""

CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = {unused}

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{directory}/runc"
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{directory}/bin"
conf_dir = "{directory}/net.d"
"""


class Containerd:
    """One instance; `cri` is the connection to it, `recorder` knows the plugin's calls."""

    def __init__(self, node: LabNode, *, session: str) -> None:
        self.node = node
        self.directory = node.directory / "containerd"
        self.socket = self.directory / "containerd.sock"
        self.cgroup = f"{session}-{node.name}"
        self.conf_dir = self.directory / "net.d"
        for path in (self.directory / "bin", self.conf_dir):
            path.mkdir(parents=True)
        (self.directory / "bin" / LOOPBACK.name).symlink_to(LOOPBACK)
        self.recorder = Recorder(
            node.bin_dir / "pycni",
            bin_dir=self.directory / "bin",
            directory=self.directory / "recorder",
        )
        self._configurations = itertools.count(1)
        self._config = self.directory / "config.toml"
        self._config.write_text(
            CONFIG.format(
                directory=self.directory,
                socket=self.socket,
                pause=images.PAUSE,
                unused=json.dumps([f"io.containerd.{name}" for name in UNUSED]),
            )
        )
        self._process: processes.Kept | None = None
        self.cri = Cri(self.socket, cgroup_parent=f"/{self.cgroup}")
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the network configuration list, the node's own with keys of its plugin changed,
        and wait until it is used.

        containerd sees a file appear only when it is renamed within the directory.
        """
        self._is_changed = bool(changes)
        (source,) = self.node.conf_dir.glob("*.conflist")
        document = json.loads(source.read_bytes())
        mark = f"configuration {next(self._configurations)}"
        document["plugins"][0] |= {"capabilities": CAPABILITIES, "mark": mark} | changes
        staged = self.conf_dir / f"{source.name}.new"
        staged.write_text(json.dumps(document))
        staged.rename(self.conf_dir / source.name)
        if self._process is not None:
            wait_until(lambda: mark in self.cri.network(), "the new configuration is used")

    def unconfigure(self) -> None:
        """Remove the network configuration list, and wait until there is no network."""
        self._is_changed = True
        for path in self.conf_dir.glob("*.conflist"):
            path.unlink()
        wait_until(lambda: "NetworkReady" in self.cri.conditions(), "there is no network")

    def start(self) -> None:
        """Start, and wait until it serves."""
        self._process = processes.start(
            self.node.netns,
            ["containerd", "--config", self._config],
            log=self.directory / "containerd.log",
        )
        self.cri.reconnect()
        self.cri.version()

    def stop(self, *, kill: bool = False) -> None:
        """End the daemon alone: its shims and pods run on."""
        if self._process is not None:
            processes.stop(self._process, kill=kill)
            self._process = None

    def load(self, archive: Path) -> None:
        """Import an image where the runtime interface finds it."""
        command: list[str | Path] = ["ctr", "--address", self.socket, "--namespace", NAMESPACE]
        done = processes.run(
            self.node.netns, [*command, "images", "import", "--snapshotter", "native", archive]
        )
        assert done.returncode == 0, done.stderr.decode()

    def mtu(self, sandbox: str) -> int:
        """Bytes, of a pod's interface."""
        with open_iproute(str(self.cri.netns(sandbox))) as ipr:
            (link,) = ipr.get_links(ipr.link_lookup(ifname=POD_IFNAME)[0])
            return int(link.get("IFLA_MTU"))

    def mac(self, sandbox: str) -> str:
        """Of a pod's interface."""
        with open_iproute(str(self.cri.netns(sandbox))) as ipr:
            (link,) = ipr.get_links(ipr.link_lookup(ifname=POD_IFNAME)[0])
            return str(link.get("IFLA_ADDRESS"))

    def mend(self) -> None:
        """Undo what a failed test may have left: no daemon, a wrong network, pods."""
        if self._process is None or not self._process.alive:
            self.start()
        if self._is_changed:
            self.configure()
        self._remove_sandboxes()

    def end(self) -> None:
        """Take everything away, however much of it there is."""
        if self._process is not None and self._process.alive:
            self._remove_sandboxes()
        self.cri.close()
        self.stop()
        containers = {container_id for container_id, _ in self.recorder.attachments()}
        leftovers.end_processes(self.directory, self.cgroup)
        leftovers.remove_shim_sockets(self.socket, NAMESPACE, *containers)
        leftovers.forget_results(*containers)
        leftovers.remove_cgroups(self.cgroup)
        leftovers.remove_directory(self.directory)

    def _remove_sandboxes(self) -> None:
        """As far as they can be; what is left is killed at the end."""
        deadline = time.monotonic() + REMOVAL_SECONDS
        with suppress(Refused):
            for sandbox in self.cri.sandboxes():
                with suppress(Refused):
                    self.cri.remove(sandbox, timeout=max(0.1, deadline - time.monotonic()))


@contextmanager
def running(node: LabNode, *, session: str, archives: Path) -> Iterator[Containerd]:
    """containerd on a node with both images, ready; gone at the end."""
    containerd = Containerd(node, session=session)
    try:
        containerd.start()
        for archive in archives.glob("*.tar"):
            containerd.load(archive)
        yield containerd
    finally:
        containerd.end()


@contextmanager
def sandbox(node: Containerd, config: Any = None) -> Iterator[str]:
    """A pod; stopped and removed at the end."""
    made = node.cri.run(config or node.cri.pod())
    try:
        yield made
    finally:
        node.cri.stop(made)
        node.cri.remove(made)
