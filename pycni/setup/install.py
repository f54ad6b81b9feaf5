"""The two files that a container runtime looks for: the plugin and its network configuration list.

The plugin is the launcher (cni/launcher.py), with the plugin's Python code in a second file beside
it. Without a C compiler there is no launcher, and the Python file itself is the plugin. Each file
is written under a temporary name and renamed, because a runtime may execute or read it at any
moment. Files that pycni did not write are never replaced or removed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycni.cni import plugin
from pycni.cni.launcher import compile_launcher
from pycni.cni.netconf import parse_netconf
from pycni.cni.requests import ANNOTATIONS
from pycni.errors import FileError, NoLauncher

PLUGIN = "pycni"
"""The plugin's file name, which is the `type` in a network configuration."""

SCRIPT = ".pycni.py"
"""The plugin's Python code, which the launcher executes. It is in the same directory so that both
files are replaced, mounted and moved together. No network configuration can have this name as its
`type`, and runtimes look plugins up by `type`, so none takes it for a plugin."""

CONFLIST = "10-pycni.conflist"
"""Runtimes use the list whose name sorts first."""

SHEBANG = "#!/usr/bin/python3 -IS"
"""-I: ignore PYTHON* variables of the runtime; -S: no search for site-packages."""

ELF = b"\x7fELF"
MARKER = "# Written by `pycni install`; `pycni uninstall` removes it."
CONFLIST_MARKER = "writtenBy"
CONFLIST_MARK = "pycni install"

CNI_VERSION = "1.0.0"
CNI_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
"""Written as `cniVersions`: a runtime uses the highest that it knows. Older runtimes only read
`cniVersion`, which is CNI_VERSION: those of Debian 12, and its IPAM plugins, refuse 1.1.0."""

CAPABILITIES = ("bandwidth", "dns", "ipRanges", "ips", "mac", "portMappings", ANNOTATIONS)

STAGED_SUFFIX = ".new"


@dataclass(frozen=True)
class Network:
    """What the network configuration list says. `mtu` is in bytes; None: the node's."""

    name: str = "pycni"
    cni_version: str = CNI_VERSION
    ip_masq: bool = True
    mtu: int | None = None


def install(
    bin_dir: Path,
    conf_dir: Path,
    *,
    socket: Path,
    settings: Path | None,
    network: Network = Network(),
    report: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """Write the plugin (mode 0755) and the list (0644), and replace older ones of pycni's.

    Returns the files that were written: the plugin and the list last. Without an agent the plugin
    runs this interpreter. `report` is told why if there is no launcher. Raises FileError; raises
    InvalidConfig or IncompatibleVersion for a network that would not work.
    """
    conflist = render_conflist(network)
    script = render_plugin(socket=socket, python=Path(sys.executable), settings=settings)
    targets = [(bin_dir / PLUGIN, script, 0o755), (conf_dir / CONFLIST, conflist, 0o644)]
    launcher = _launcher(socket, report)
    if launcher is not None:
        targets[:1] = [(bin_dir / SCRIPT, script, 0o755), (bin_dir / PLUGIN, launcher, 0o755)]
    with ExitStack() as undo:
        staged = []
        for target, content, mode in targets:
            with _errors_about(target):
                _refuse_foreign(target)
                temporary = _stage(target, content, mode)
                undo.callback(temporary.unlink, missing_ok=True)
            staged.append((temporary, target))
        for temporary, target in staged:
            with _errors_about(target):
                temporary.replace(target)
    if launcher is None:
        _remove(bin_dir / SCRIPT)
    return [target for target, _, _ in targets]


def uninstall(bin_dir: Path, conf_dir: Path) -> list[Path]:
    """Remove the files that `install` wrote; returns those that were removed.

    Files that somebody turned into something else stay. The list is removed first: a runtime that
    still knows the network needs the plugin for DEL. Raises FileError.
    """
    targets = (conf_dir / CONFLIST, bin_dir / PLUGIN, bin_dir / SCRIPT)
    return [target for target in targets if _remove(target)]


def is_ours(target: Path) -> bool:
    """Whether `install` wrote `target`. A list with another plugin added is not ours any more."""
    try:
        content = target.read_bytes()
    except OSError:
        return False
    if target.name in (PLUGIN, SCRIPT):
        where = content if content.startswith(ELF) else content.splitlines()[:2]
        return MARKER.encode() in where
    try:
        document = json.loads(content)
        types = [one["type"] for one in document["plugins"]]
        return document[CONFLIST_MARKER] == CONFLIST_MARK and types == [PLUGIN]
    except (ValueError, TypeError, LookupError):
        return False


def render_plugin(*, socket: Path, python: Path, settings: Path | None) -> bytes:
    """The plugin's Python file: plugin.py with `#!`, marker and its three constants filled in."""
    values = {"SOCKET": socket, "PYTHON": python, "SETTINGS": settings or ""}
    lines = [SHEBANG, MARKER]
    for line in Path(plugin.__file__).read_text(encoding="utf-8").splitlines():
        name = line.partition(" = ")[0]
        lines.append(f"{name} = {str(values[name])!a}" if name in values else line)
    return ("\n".join(lines) + "\n").encode()


def render_conflist(network: Network) -> bytes:
    """The network configuration list, checked as the plugin will check it.

    Raises InvalidConfig or IncompatibleVersion.
    """
    own: dict[str, Any] = {
        "type": PLUGIN,
        "ipMasq": network.ip_masq,
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    if network.mtu is not None:
        own["mtu"] = network.mtu
    head: dict[str, Any] = {"cniVersion": network.cni_version, "name": network.name}
    parse_netconf(json.dumps(head | own).encode())
    if network.cni_version in CNI_VERSIONS:
        head["cniVersions"] = CNI_VERSIONS
    document = head | {CONFLIST_MARKER: CONFLIST_MARK, "plugins": [own]}
    return json.dumps(document, indent=2).encode() + b"\n"


def _launcher(socket: Path, report: Callable[[str], object]) -> bytes | None:
    try:
        return compile_launcher(socket=socket, script=SCRIPT, marker=MARKER)
    except NoLauncher as error:
        report(f"{error.message}: the plugin is a Python script, and calls take longer")
        if error.details:
            report(error.details)
        return None


def _remove(target: Path) -> bool:
    """Remove a file of ours; False if there is none."""
    if not is_ours(target):
        return False
    with _errors_about(target):
        target.unlink()
    return True


@contextmanager
def _errors_about(target: Path) -> Iterator[None]:
    """Turn an OSError into a FileError that names `target`."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{target} cannot be written or removed: {error.strerror}",
            hint="run as root, and choose directories on a writable file system",
        ) from error


def _refuse_foreign(target: Path) -> None:
    if os.path.lexists(target) and not is_ours(target):
        raise FileError(
            f"{target} exists, and pycni did not write it, or somebody changed it",
            hint="move it away, or choose another directory",
        )


def _stage(target: Path, content: bytes, mode: int) -> Path:
    """A complete file beside `target`, under a name that no runtime reads as a list."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=STAGED_SUFFIX
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        Path(name).unlink()
        raise
    return Path(name)
