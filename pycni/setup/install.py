"""The two files a container runtime looks for: the plugin and its network configuration list.

The plugin is the launcher (cni/launcher.py), with the plugin's Python beside it under a name of its
own; where the launcher cannot be compiled, the Python itself. All are staged beside their final
names and renamed, because a runtime may execute the one and read the other at any moment. A file
that pycni did not write is never replaced or removed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
"""The plugin's Python behind the launcher. In the same directory, so that the two are replaced,
mounted and moved together; hidden, and no name that a `type` has, so that nothing takes it for a
plugin: runtimes look plugins up by `type` and do not list the directory."""

CONFLIST = "10-pycni.conflist"
"""Runtimes take the list whose name sorts first."""

SHEBANG = "#!/usr/bin/python3 -IS"
"""-I: no PYTHON* variable of the runtime has an effect; -S: no search for site-packages."""

ELF = b"\x7fELF"
MARKER = "# Written by `pycni install`; `pycni uninstall` removes it."
CONFLIST_MARKER = "writtenBy"
CONFLIST_MARK = "pycni install"

CNI_VERSION = "1.0.0"
CNI_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
"""A runtime takes the highest that it knows; one that does not know of several takes the first
one's. Debian 12's runtimes and IPAM plugins refuse 1.1.0."""

CAPABILITIES = ("bandwidth", "dns", "ipRanges", "ips", "mac", "portMappings", ANNOTATIONS)

STAGED_SUFFIX = ".new"


def install(
    bin_dir: Path,
    conf_dir: Path,
    *,
    socket: Path,
    settings: Path | None,
    python: Path = Path(sys.executable),
    network_name: str = "pycni",
    cni_version: str = CNI_VERSION,
    ip_masq: bool = True,
    mtu: int | None = None,
    report: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """Write the plugin (mode 0755) and the list, replacing our own older ones; returns what was
    written, the plugin and the list last.

    `python` is the interpreter that has pycni installed; with no agent the plugin runs it.
    `report` is told if there can be no launcher. Raises FileError, or InvalidConfig and
    IncompatibleVersion for a network that would not work.
    """
    network = render_conflist(
        network_name=network_name, cni_version=cni_version, ip_masq=ip_masq, mtu=mtu
    )
    script = render_plugin(socket=socket, python=python, settings=settings)
    targets = [(bin_dir / PLUGIN, script, 0o755), (conf_dir / CONFLIST, network, 0o644)]
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
    """Remove what `install` wrote and nobody changed into something else; returns what went.

    The list goes first: a runtime that still knows the network needs the plugin for DEL.
    """
    targets = (conf_dir / CONFLIST, bin_dir / PLUGIN, bin_dir / SCRIPT)
    return [target for target in targets if _remove(target)]


def is_ours(target: Path) -> bool:
    """Whether `install` wrote `target`; a list that somebody put another plugin in is not ours."""
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
    """The plugin's file: plugin.py as an executable, with its three constants filled in."""
    values = {"SOCKET": socket, "PYTHON": python, "SETTINGS": settings or ""}
    lines = [SHEBANG, MARKER]
    for line in Path(plugin.__file__).read_text(encoding="utf-8").splitlines():
        name = line.partition(" = ")[0]
        lines.append(f"{name} = {str(values[name])!a}" if name in values else line)
    return ("\n".join(lines) + "\n").encode()


def render_conflist(
    *, network_name: str, cni_version: str, ip_masq: bool, mtu: int | None
) -> bytes:
    """The network configuration list, checked as the plugin will check it."""
    own: dict[str, Any] = {
        "type": PLUGIN,
        "ipMasq": ip_masq,
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    if mtu is not None:
        own["mtu"] = mtu
    head: dict[str, Any] = {"cniVersion": cni_version, "name": network_name}
    parse_netconf(json.dumps(head | own).encode())
    if cni_version in CNI_VERSIONS:
        head["cniVersions"] = CNI_VERSIONS
    document = head | {CONFLIST_MARKER: CONFLIST_MARK, "plugins": [own]}
    return json.dumps(document, indent=2).encode() + b"\n"


def _launcher(socket: Path, report: Callable[[str], object]) -> bytes | None:
    try:
        return compile_launcher(socket=socket, script=SCRIPT, marker=MARKER)
    except NoLauncher as error:
        report(f"{error.message}: the plugin is a Python script, each call an interpreter")
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
            f"{target} cannot be written: {error.strerror}",
            hint="run as root; choose directories of a file system that is not read-only",
        ) from error


def _refuse_foreign(target: Path) -> None:
    if os.path.lexists(target) and not is_ours(target):
        raise FileError(
            f"{target} is there already, and pycni did not write it as it is",
            hint="move it away, or choose another directory",
        )


def _stage(target: Path, content: bytes, mode: int) -> Path:
    """A finished file beside `target`, under a name that no runtime takes for a list."""
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
