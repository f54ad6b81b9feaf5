# SPDX-License-Identifier: Apache-2.0
"""Where the container runtime of this host looks for CNI plugins and for network lists.

Read from the configuration of containerd and CRI-O. Changes nothing, and starts nothing. A file
that cannot be read is told as a doubt, and the runtime's default holds.

Sources: containerd, docs/man/containerd-config.toml.5.md and docs/cri/config.md; CRI-O,
crio.conf(5) and crio.conf.d(5).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycni.files import read_regular

BIN_DIR = Path("/opt/cni/bin")
CONF_DIR = Path("/etc/cni/net.d")
"""Where containerd and CRI-O look if their configuration names no directory."""

CONTAINERD = Path("etc/containerd/config.toml")
CONTAINERD_SOCKET = Path("run/containerd/containerd.sock")
CRI_PLUGINS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri")
"""The plugin that calls CNI, by version of the file's format: 3, 2, 1."""

CRIO = Path("etc/crio/crio.conf")
CRIO_DROP_INS = Path("etc/crio/crio.conf.d")
CRIO_SOCKET = Path("run/crio/crio.sock")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Runtime:
    """A container runtime and its two directories."""

    name: str
    bin_dir: Path
    conf_dir: Path
    source: str
    """The files that say so, or why there are none."""
    running: bool = False
    """Whether its socket is there."""
    network: str = ""
    """Name of the only network that it uses; empty: that of the list whose name sorts first."""
    is_there: bool = True
    """Whether this host has it at all."""


@dataclass(frozen=True)
class Found:
    """The runtime to install for, the others that are configured, and what could not be read."""

    runtime: Runtime
    others: tuple[Runtime, ...] = ()
    doubts: tuple[str, ...] = ()


DEFAULTS = Runtime(
    "a runtime",
    BIN_DIR,
    CONF_DIR,
    "by default: there is no configuration of containerd or CRI-O",
    is_there=False,
)


def find(root: Path = Path("/")) -> Found:
    """The runtime of the host whose file system is at `root`: one that runs goes first."""
    doubts: list[str] = []
    found = [one for one in (_containerd(root, doubts), _crio(root, doubts)) if one is not None]
    found.sort(key=lambda runtime: not runtime.running)
    if not found:
        return Found(DEFAULTS, doubts=tuple(doubts))
    return Found(found[0], tuple(found[1:]), tuple(doubts))


def _containerd(root: Path, doubts: list[str]) -> Runtime | None:
    main = root / CONTAINERD
    running = (root / CONTAINERD_SOCKET).is_socket()
    if not main.exists():
        source = f"containerd runs without {main}"
        return (
            Runtime("containerd", BIN_DIR, CONF_DIR, source, running=running) if running else None
        )
    read: list[Path] = []
    document: dict[str, Any] = {}
    pending = [main]
    while pending:
        path = pending.pop(0)
        if path in read:
            continue
        loaded = _load(path, doubts)
        read.append(path)
        _merge(document, loaded)
        pending += _imports(path, loaded)
    cni = _containerd_cni(document)
    bin_dirs = [*_texts(cni.get("bin_dirs")), *_texts([cni.get("bin_dir")])]
    return Runtime(
        "containerd",
        bin_dir=Path(bin_dirs[0]) if bin_dirs else BIN_DIR,
        conf_dir=Path(next(_texts([cni.get("conf_dir")]), CONF_DIR)),
        source=_names(read),
        running=running,
    )


def _containerd_cni(document: Document) -> Document:
    """The table `cni` of the plugin that calls CNI; an entry of a newer format goes before."""
    cni: dict[str, Any] = {}
    for plugin in reversed(CRI_PLUGINS):
        cni |= _table(document, "plugins", plugin, "cni")
    return cni


def _imports(parent: Path, document: Document) -> Iterator[Path]:
    """The files that a file of containerd imports: relative to its directory, `*` is a pattern."""
    for text in _texts(document.get("imports")):
        path = parent.parent / text
        if "*" in text:
            yield from sorted(path.parent.glob(path.name))
        else:
            yield path


def _crio(root: Path, doubts: list[str]) -> Runtime | None:
    main, drop_ins = root / CRIO, root / CRIO_DROP_INS
    running = (root / CRIO_SOCKET).is_socket()
    files = [main] * main.exists() + sorted(drop_ins.glob("*")) * drop_ins.is_dir()
    if not files:
        source = f"CRI-O runs without {main}"
        return Runtime("CRI-O", BIN_DIR, CONF_DIR, source, running=running) if running else None
    network: dict[str, Any] = {}
    for path in files:
        network |= _table(_load(path, doubts), "crio", "network")
    bin_dirs = [*_texts(network.get("plugin_dirs")), *_texts([network.get("plugin_dir")])]
    return Runtime(
        "CRI-O",
        bin_dir=Path(bin_dirs[0]) if bin_dirs else BIN_DIR,
        conf_dir=Path(next(_texts([network.get("network_dir")]), CONF_DIR)),
        source=_names(files),
        running=running,
        network=next(_texts([network.get("cni_default_network")]), ""),
    )


def _load(path: Path, doubts: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path).decode())
    except OSError as error:
        doubts.append(f"{path} cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        doubts.append(f"{path} is not TOML: {error}")
    return {}


def _merge(into: dict[str, Any], document: Document) -> None:
    """As containerd merges a file that is imported: tables key by key, anything else replaces."""
    for key, value in document.items():
        have = into.get(key)
        if isinstance(have, dict) and isinstance(value, dict):
            _merge(have, value)
        else:
            into[key] = value


def _table(document: Document, *path: str) -> Document:
    """The table at a path; an empty one if there is none."""
    found: Any = document
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _texts(values: object) -> Iterator[str]:
    """The strings of a list that are not empty."""
    if isinstance(values, list):
        yield from (one for one in values if isinstance(one, str) and one)


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))
