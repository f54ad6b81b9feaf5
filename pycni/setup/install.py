# SPDX-License-Identifier: Apache-2.0
"""The two files that a container runtime looks for: the plugin and its network configuration list.

The plugin is the launcher (cni/launcher), with the paths of this node in a small file beside it.
Without a C compiler there is no launcher, and a Python file is the plugin. Each file is written
under a temporary name and renamed, because a runtime may execute or read it at any moment. Plugins
that pycni did not write are never replaced or removed. A list that is there stays as the operator
has it (conflist.py).

`plan` decides and changes nothing; `write` and `remove` act.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from pycni.cni import network_lists, plugin
from pycni.cni.launcher import MARKER, PATHS, is_marked, launcher, render_paths
from pycni.errors import FileError, NoLauncher
from pycni.files import read_regular, stage
from pycni.settings import Settings
from pycni.setup import conflist
from pycni.setup.conflist import CONFLIST, PLUGIN, UNSPECIFIED, Network
from pycni.upkeep import installed
from pycni.upkeep.installed import Wanted

__all__ = [
    "CONFLIST", "PATHS", "PLUGIN", "File", "Network", "Places", "Request", "install", "uninstall",
]  # fmt: skip

FORMER = ".pycni.py"
"""What earlier releases had beside their launcher; it is removed."""

SHEBANG = "#!/usr/bin/python3 -IS"
"""-I: ignore PYTHON* variables of the runtime; -S: no search for site-packages."""

BACKUP_SUFFIX = ".bak"
"""No runtime reads files with this suffix."""


@dataclass(frozen=True)
class Places:
    """Where the plugin finds what it needs on this node. Without an agent it runs `python` with
    `config`, the settings file."""

    socket: Path
    run_dir: Path
    pins: Path
    config: Path | None = None
    python: Path | None = field(default_factory=lambda: Path(sys.executable))
    """None: the host has none with pycni, as when the agent runs in a container."""

    @classmethod
    def of(cls, settings: Settings, config: Path | None, *, without_python: bool = False) -> Places:
        """Those that `settings` says, which are read from `config`."""
        places = cls(settings.socket_path, settings.run_dir, settings.pin_root, config)
        return replace(places, python=None) if without_python else places


@dataclass(frozen=True)
class Request:
    """What to install, and where."""

    bin_dir: Path
    conf_dir: Path
    places: Places
    network: Network = UNSPECIFIED
    force: bool = False
    """Replace a list that is there by a new one, and keep a copy of it."""


@dataclass(frozen=True)
class File:
    """A file to write."""

    path: Path
    content: bytes
    mode: int
    backup: Path | None = None
    """Where the file that is there now is kept."""
    unchanged: bool = False
    """It is there, and stays as it is."""


@dataclass(frozen=True)
class Removal:
    """What `uninstall` removes, in this order, and what stays: each path with the reason."""

    paths: tuple[Path, ...]
    stays: dict[Path, str]


def plan(request: Request, *, report: Callable[[str], object] = lambda _: None) -> list[File]:
    """The files to write, the plugin and the list last.

    `report` is told why if there is no launcher. Raises FileError if somebody else's file is in the
    way; raises InvalidConfig or IncompatibleVersion for a network that would not work, and
    NoLauncher if the plugin would need a Python that the host does not have.
    """
    listed = _plan_list(request)
    files = _plan_plugin(request, report)
    for file in files:
        with _errors_about(file.path, "replaced"):
            _refuse_foreign(file)
    return [*files, listed]


def write(files: list[File]) -> list[Path]:
    """Write what `plan` made, all files or none; returns the paths of those that were written.

    Raises FileError.
    """
    changed = [file for file in files if not file.unchanged]
    with ExitStack() as undo:
        staged = []
        for file in changed:
            with _errors_about(file.path):
                temporary = stage(file.path, file.content, mode=file.mode)
                undo.callback(temporary.unlink, missing_ok=True)
            staged.append((temporary, file))
        for temporary, file in staged:
            with _errors_about(file.path):
                if file.backup is not None:
                    _copy(file.path, file.backup)
                temporary.replace(file.path)
    by_name = {file.path.name: file.path for file in files}
    for name in {PATHS, FORMER} - by_name.keys():
        _remove_plugin_file(by_name[PLUGIN].with_name(name))
    return [file.path for file in changed]


def hold(settings: Settings, files: list[File]) -> None:
    """Have the agent of `settings` hold what was planned: the plugin's files as they are if an
    `install` wrote them, whichever it was, and the list as it is now. Raises FileError."""
    wanted = []
    for file in files:
        content = _read(file.path)
        if content is None or not (file is files[-1] or is_marked(content)):
            content = file.content
        wanted.append(Wanted(file.path, content, file.mode))
    installed.save(settings, wanted)


def hold_again(settings: Settings, files: list[File]) -> None:
    """After an install beside an agent that holds these files: have it hold the new ones."""
    held = installed.load(settings)
    if held is not None and set(held.paths) & {file.path for file in files}:
        hold(settings, files)


def let_go(settings: Settings, removal: Removal) -> None:
    """Have an agent hold no more what is to be removed: it writes again what it misses."""
    held = installed.load(settings)
    if held is not None and set(held.paths) & set(removal.paths):
        installed.close(settings)


def install(
    bin_dir: Path,
    conf_dir: Path,
    *,
    places: Places,
    network: Network = UNSPECIFIED,
    report: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """`plan` and `write`: returns the paths of the plugin's files and of the list, which is last.

    Raises what they raise.
    """
    request = Request(bin_dir, conf_dir, places, network)
    files = plan(request, report=report)
    write(files)
    return [file.path for file in files]


def plan_removal(bin_dir: Path, conf_dir: Path) -> Removal:
    """What `uninstall` has to do. The list goes first: a runtime that still knows the network needs
    the plugin for DEL. As long as a list that stays uses the plugin, the plugin stays, too."""
    stays: dict[Path, str] = {}
    lists = []
    for path in network_lists.users(conf_dir, PLUGIN):
        if conflist.is_ours(_read(path) or b""):
            lists.append(path)
        else:
            stays[path] = "pycni did not write it, or other plugins are in it; it uses the plugin"
    in_use, plugins = bool(stays), []
    for path in (bin_dir / PLUGIN, bin_dir / PATHS, bin_dir / FORMER):
        if not os.path.lexists(path):
            continue
        if not is_ours(path):
            stays[path] = "pycni did not write it"
        elif in_use:
            stays[path] = "a list that stays uses it"
        else:
            plugins.append(path)
    for backup in sorted(conf_dir.glob(f"*{CONFLIST}{BACKUP_SUFFIX}*")):
        stays[backup] = "a copy of a list, from before `pycni install` changed it"
    return Removal((*lists, *plugins), stays)


def remove(removal: Removal) -> list[Path]:
    """Remove what `plan_removal` found; returns the paths. Raises FileError."""
    for path in removal.paths:
        with _errors_about(path, "removed"):
            path.unlink(missing_ok=True)
    return list(removal.paths)


def uninstall(bin_dir: Path, conf_dir: Path) -> list[Path]:
    """`plan_removal` and `remove`."""
    return remove(plan_removal(bin_dir, conf_dir))


def is_ours(target: Path) -> bool:
    """Whether `install` wrote `target`, one of the plugin's files."""
    content = _read(target)
    return content is not None and is_marked(content)


def render_plugin(places: Places) -> bytes:
    """The plugin's Python file: plugin.py with `#!`, marker and its three constants filled in."""
    values = {
        "SOCKET": places.socket,
        "PYTHON": places.python or "",
        "SETTINGS": places.config or "",
    }
    lines = [SHEBANG, MARKER]
    for line in Path(plugin.__file__).read_text(encoding="utf-8").splitlines():
        name = line.partition(" = ")[0]
        lines.append(f"{name} = {str(values[name])!a}" if name in values else line)
    return ("\n".join(lines) + "\n").encode()


def _plan_list(request: Request) -> File:
    """The list: the first that uses our plugin, whatever its name; else a new one."""
    users = network_lists.users(request.conf_dir, PLUGIN)
    target = users[0] if users else request.conf_dir / CONFLIST
    if target.is_symlink():
        target = target.resolve()
    with _errors_about(target, "read"):
        before = read_regular(target) if os.path.lexists(target) else None
    new = conflist.render(request.network)
    if before is None or _is_cut(before, new):
        return File(target, new, 0o644)
    content = new if request.force else conflist.change(before, request.network, where=target)
    if content == before:
        return File(target, content, 0o644, unchanged=True)
    return File(target, content, target.stat().st_mode & 0o777, backup=_backup_name(target))


def _backup_name(target: Path) -> Path:
    """A name that is free."""
    names = (target.with_name(f"{target.name}{BACKUP_SUFFIX}{number or ''}") for number in count(0))
    return next(name for name in names if not os.path.lexists(name))


def _plan_plugin(request: Request, report: Callable[[str], object]) -> list[File]:
    """The plugin's files, the plugin last."""
    places, target = request.places, request.bin_dir / PLUGIN
    executable = _launcher(places, report)
    if executable is None:
        return [File(target, render_plugin(places), 0o755)]
    paths = {
        "socket": places.socket,
        "run_dir": places.run_dir,
        "pins": places.pins,
        "python": places.python or "",
        "settings": places.config or "",
    }
    return [
        File(target.with_name(PATHS), render_paths(paths), 0o644),
        File(target, executable, 0o755),
    ]


def _launcher(places: Places, report: Callable[[str], object]) -> bytes | None:
    try:
        return launcher()
    except NoLauncher as error:
        if places.python is None:
            raise
        report(
            f"{error.message}: the plugin is a Python script, and calls take longer. For shorter "
            f"ones: {error.hint}, then `pycni install` again"
        )
        if error.details:
            report(error.details)
        return None


def _remove_plugin_file(target: Path) -> None:
    if is_ours(target):
        with _errors_about(target, "removed"):
            target.unlink()


def _read(path: Path) -> bytes | None:
    """The content of a file; None if it cannot be read."""
    try:
        return read_regular(path)
    except OSError:
        return None


@contextmanager
def _errors_about(target: Path, verb: str = "written") -> Iterator[None]:
    """Turn an OSError into a FileError that names `target`, and what could not be done with it."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{target} cannot be {verb}: {error.strerror}",
            hint="run as root, and choose directories on a writable file system",
        ) from error


def _refuse_foreign(file: File) -> None:
    """Raise FileError for what is neither marked nor the beginning of ours. Raises OSError."""
    target = file.path
    if not os.path.lexists(target):
        return
    content = read_regular(target)
    if not is_marked(content) and not _is_cut(content, file.content):
        raise FileError(
            f"{target} exists, and has no mark of pycni's: pycni did not write it",
            hint="move it away, or choose another directory",
        )


def _is_cut(content: bytes, whole: bytes) -> bool:
    """Whether a file is empty, or the beginning of ours: a write that did not end."""
    return len(content) < len(whole) and whole.startswith(content)


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its mode; a copy that fails leaves none."""
    temporary = stage(target, read_regular(source), mode=source.stat().st_mode & 0o777)
    temporary.replace(target)
