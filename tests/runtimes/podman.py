# SPDX-License-Identifier: Apache-2.0
"""podman on a lab node with the CNI backend: own storage, networks, configuration, control group.

podman has no daemon; what lives between two calls is a conmon per container.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pycni.lab import processes, topology
from pycni.lab.layout import LabNode
from runtimes import images
from runtimes.recorder import Recorder
from support import leftovers

CAPABILITIES = {"portMappings": True, "ips": True}

CACHE = Path("/var/lib/containers")
"""podman keeps what it knows of image layers here, whatever its storage is."""

RUNC_STATE = Path("/run/runc")

CONFIG = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]

[network]
network_backend = "cni"
cni_plugin_dirs = ["{directory}/bin"]
network_config_dir = "{directory}/net.d"
default_network = "{network}"

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{directory}/tmp"
static_dir = "{directory}/static"
volume_path = "{directory}/volumes"
"""


WITHOUT_CNI = b"cni support is not enabled in this build"
"""What podman says to `network_backend = "cni"` if it was built without, as Debian 13's is."""


@cache
def speaks_cni() -> bool:
    """Whether this machine's podman can use CNI plugins at all; True if there is no podman."""
    program = shutil.which("podman")
    return program is None or WITHOUT_CNI not in Path(program).read_bytes()


class Failed(Exception):
    """podman exited with another status than 0; the message is what it said."""


@dataclass(frozen=True)
class Attached:
    """A container's interface in one network, as podman tells it."""

    addresses: tuple[str, ...]
    """IPv4 first."""
    mac: str


class Podman:
    """podman with two networks of our plugin; `recorder` knows the plugin's calls."""

    def __init__(self, node: LabNode, *, network: str, session: str) -> None:
        self.node = node
        self.network = network
        self.other_network = f"{network}-other"
        self.directory = node.directory / "podman"
        self.cgroup = f"{session}-podman-{node.name}"
        for name in ("bin", "net.d", "tmp"):
            (self.directory / name).mkdir(parents=True)
        self.recorder = Recorder(
            node.bin_dir / "pycni",
            bin_dir=self.directory / "bin",
            directory=self.directory / "recorder",
        )
        self._had_cache = CACHE.exists()
        (self.directory / "containers.conf").write_text(
            CONFIG.format(directory=self.directory, network=network)
        )
        self._configure(self.network)
        self._configure(self.other_network)

    def __call__(self, *words: str | Path) -> str:
        """What podman prints. Raises Failed."""
        storage = ("--root", self.directory / "root", "--runroot", self.directory / "run")
        done = processes.run(
            self.node.netns,
            ["podman", *storage, "--storage-driver", "vfs", *words],
            env=os.environ
            | {
                "CONTAINERS_CONF": str(self.directory / "containers.conf"),
                "TMPDIR": str(self.directory / "tmp"),
            },
        )
        if done.returncode != 0:
            raise Failed(done.stderr.decode(errors="replace"))
        return done.stdout.decode().strip()

    def run(self, *options: str, image: str = images.PAUSE) -> str:
        """A container in the background; its ID."""
        parent = ("--cgroup-parent", f"/{self.cgroup}")
        return self("run", "--detach", "--stop-timeout", "0", *parent, *options, image)

    def remove(self, *containers: str) -> None:
        """Remove containers, running or not."""
        self("rm", "--force", "--time", "0", *containers)

    def attached(self, container: str, network: str = "") -> Attached:
        """A container's interface in a network, or in the one it is in by default."""
        networks = self._inspect(container)["NetworkSettings"]["Networks"]
        found = networks[network or self.network]
        addresses = (found["IPAddress"], found["GlobalIPv6Address"])
        return Attached(tuple(one for one in addresses if one), found["MacAddress"])

    def netns(self, container: str) -> Path:
        """Where a container's network namespace is mounted."""
        return Path(self._inspect(container)["NetworkSettings"]["SandboxKey"])

    def pids(self, container: str) -> tuple[int, int]:
        """Of the container's process and of its conmon."""
        inspected = self._inspect(container)
        return inspected["State"]["Pid"], inspected["State"]["ConmonPid"]

    def end(self) -> None:
        """Take everything away, however much of it there is."""
        with suppress(Failed):
            self("rm", "--force", "--time", "0", "--all")
        leftovers.end_processes(self.directory, self.cgroup)
        leftovers.forget_results(self.network)
        leftovers.remove_cgroups(self.cgroup)
        for container_id, netns in self.recorder.attachments():
            if netns:
                topology.remove_netns(Path(netns).name)
            shutil.rmtree(RUNC_STATE / container_id, ignore_errors=True)
        leftovers.remove_directory(self.directory)
        if not self._had_cache:
            shutil.rmtree(CACHE / "cache", ignore_errors=True)
        leftovers.remove_if_empty(CACHE, RUNC_STATE)

    def _inspect(self, container: str) -> Any:
        (document,) = json.loads(self("inspect", "--type", "container", container))
        return document

    def _configure(self, network: str) -> None:
        (source,) = self.node.conf_dir.glob("*.conflist")
        document = json.loads(source.read_bytes())
        document["name"] = network
        document["plugins"][0]["capabilities"] = CAPABILITIES
        (self.directory / "net.d" / f"{network}.conflist").write_text(json.dumps(document))


@contextmanager
def ready(node: LabNode, *, network: str, session: str, archives: Path) -> Iterator[Podman]:
    """podman on a node with both images; everything of it gone at the end."""
    podman = Podman(node, network=network, session=session)
    try:
        for archive in archives.glob("*.tar"):
            podman("load", "--quiet", "--input", archive)
        yield podman
    finally:
        podman.end()
