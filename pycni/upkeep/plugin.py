# SPDX-License-Identifier: Apache-2.0
"""Part "plugin": the files on this host that a container runtime calls pycni by.

Only files that an agent holds (upkeep/installed.py). What somebody else wrote in their place is
theirs, and so is an edit of the network list; only what is gone or cut short is written again.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from pycni.cni import network_lists
from pycni.cni.launcher import is_marked
from pycni.faults import Fault, Weight
from pycni.files import read_regular
from pycni.settings import Settings
from pycni.upkeep import installed
from pycni.upkeep.description import Description
from pycni.upkeep.installed import Installed, InstalledFile
from pycni.upkeep.seen import Seen

PART = "plugin"
GONE = "gone"
EMPTY, CUT = "empty", "cut short"

log = logging.getLogger(__name__)


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Packets flow without any of the files; pods can be neither added nor removed."""
    held = installed.load(d.settings)
    if held is None:
        return
    moved = dict(_moved(held))
    for directory, found in moved.items():
        yield _fault(directory, found)
    for file in held.plugin:
        if file.path.parent not in moved:
            yield from _plugin_faults(d.settings, file)
    if held.listed.path.parent not in moved:
        yield from _list_faults(d.settings, held)


def mend(d: Description, seen: Seen) -> None:
    """Write again what is gone or was cut short; end the agent if it looks into directories that
    are those of the host no more. Raises FileError."""
    held = installed.load(d.settings)
    if held is None:
        return
    if any(True for _ in _moved(held)):
        log.warning("the agent ends: started again, it has the host's directories as they are now")
        os.kill(os.getpid(), signal.SIGTERM)
        return
    things = {fault.thing for fault in faults(d, seen) if not fault.todo}
    for file in (*held.plugin, held.listed):
        if str(file.path) in things:
            installed.write_again(d.settings, file)


def details(settings: Settings) -> str:
    """What is held, for a person."""
    held = installed.load(settings)
    if held is None:
        return "not watched: no agent was started with --install-list"
    return f"{held.executable.path}, {held.listed.path}"


def _moved(held: Installed) -> Iterator[tuple[Path, str]]:
    """Directories that the host has removed, or moved away. A container sees the one that was there
    when it began, not the one that the host has made since."""
    now = installed.roots(held.paths)
    for directory, root in held.roots.items():
        if directory in now and now[directory] != root:
            yield directory, f"the host's no more: {now[directory]} of its file system is there"


def _plugin_faults(settings: Settings, file: InstalledFile) -> Iterator[Fault]:
    try:
        content = read_regular(file.path)
        mode = file.path.stat().st_mode & 0o777
    except FileNotFoundError:
        yield _mendable(file, GONE)
        return
    except OSError as error:
        todo = f"look at it: ls -ld {file.path}"
        yield _fault(file.path, f"not to be read: {error.strerror}", todo=todo)
        return
    if installed.digest_of(content) != file.digest:
        yield _changed(settings, file, content)
    elif mode != file.mode:
        yield _mendable(file, f"of mode {mode:04o}, not {file.mode:04o}")


def _changed(settings: Settings, file: InstalledFile, content: bytes) -> Fault:
    if installed.is_part_of(settings, file, content):
        return _mendable(file, CUT if content else EMPTY)
    if is_marked(content):
        return _mendable(file, "not as it was installed")
    todo = "move it away: the agent then writes pycni's; or uninstall pycni"
    return _fault(file.path, "somebody else's file", todo=todo)


def _list_faults(settings: Settings, held: Installed) -> Iterator[Fault]:
    """A list that goes before ours is a row of its own (cli/status.py)."""
    ours = held.listed.path
    if not network_lists.users(ours.parent, held.executable.path.name):
        yield _missing_list(settings, held, network_lists.first_of_others(ours))


def _missing_list(settings: Settings, held: Installed, other: Path | None) -> Fault:
    ours = held.listed.path
    if other is not None:
        todo = f"remove {other}: the agent then writes pycni's list; or uninstall pycni"
        return _fault(ours, f"gone, and {other} is used instead", todo=todo)
    try:
        content = read_regular(ours)
    except FileNotFoundError:
        return _mendable(held.listed, GONE)
    except OSError as error:
        todo = f"look at it: ls -ld {ours}"
        return _fault(ours, f"not to be read: {error.strerror}", todo=todo)
    if installed.is_part_of(settings, held.listed, content):
        return _mendable(held.listed, CUT if content else EMPTY)
    todo = "name pycni in it, or move it away: the agent then writes pycni's list"
    return _fault(ours, f"a list that does not name the plugin {held.executable.path.name}",
                  todo=todo)  # fmt: skip


def _mendable(file: InstalledFile, found: str) -> Fault:
    """A fault that the agent mends, unless the directory cannot be written to."""
    directory = next(one for one in file.path.parents if one.exists())
    try:
        read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError as error:
        return _fault(file.path, found, todo=f"{directory} cannot be used: {error.strerror}")
    todo = f"make {directory} writable; then the agent writes the file" if read_only else ""
    return _fault(file.path, found, todo=todo)


def _fault(path: Path, found: str, *, todo: str = "") -> Fault:
    return Fault(PART, str(path), found, todo, Weight.DEGRADED)
