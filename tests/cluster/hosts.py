# SPDX-License-Identifier: Apache-2.0
"""Machines as hosts, to compare before pycni with after it: the kernel's state, and files."""

from __future__ import annotations

import hashlib
import json
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cluster.layout import Cluster
from cluster.machine import Machine
from pycni.lab.layout import LabNode
from support import snapshot
from support.snapshot import Snapshot

PLACES = ("/etc/cni", "/opt/cni", "/etc/pycni", "/var/lib", "/run")
OTHERS = (
    "/run/containerd", "/run/kubernetes", "/run/runc", "/var/lib/containerd", "/var/lib/etcd",
    "/var/lib/kubelet",
)  # fmt: skip
"""Of the runtime and of Kubernetes, which change them all the time."""
SECTION = "host files"

Hosts = dict[str, Snapshot]
"""By the machine's name."""


def take(cluster: Cluster) -> Hosts:
    """Every machine as it is now. Raises PycniError."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(_look, cluster.machines)
        return {node.name: one for node, one in zip(cluster.machines, found, strict=True)}


def differences(before: Hosts, after: Hosts) -> list[str]:
    """What went (-) and what came (+), a line each; empty if every machine is as it was."""
    return [
        f"{name}: {line}"
        for name, had in before.items()
        for line in snapshot.differences(had, after[name])
    ]


def _look(node: LabNode) -> Snapshot:
    machine = Machine(node)
    # -P: the names of the modules beside it are not for it
    said = machine.run([sys.executable, "-P", Path(snapshot.__file__)]).stdout
    found: Snapshot = json.loads(said)
    return found | {SECTION: sorted(files(machine.path("/")))}


def files(root: Path) -> Iterator[str]:
    """What is in PLACES below `root` and is no directory: empty directories may stay."""
    for place in PLACES:
        for path in _below(root / place.lstrip("/")):
            name = f"/{path.relative_to(root)}"
            with suppress(FileNotFoundError):
                mode = path.lstat().st_mode
                if not name.startswith(OTHERS) and not stat.S_ISDIR(mode):
                    yield f"{name} {stat.filemode(mode)} {_content(path)}"


def _below(directory: Path) -> Iterator[Path]:
    """All below a directory, but for what is in directories of OTHERS."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in directory.iterdir():
            yield path
            if path.is_dir() and not path.is_symlink() and not str(path).endswith(OTHERS):
                yield from _below(path)


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else ""
