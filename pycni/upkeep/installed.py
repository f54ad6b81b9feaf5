# SPDX-License-Identifier: Apache-2.0
"""What is installed on this host for its container runtime, as long as an agent holds it.

The agent that writes the network list keeps a copy of each file in the run directory, and a list of
them: by these, a file that somebody takes away is written again as it was (upkeep/plugin.py), and
`pycni status` tells. The copies go before the files when pycni is uninstalled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pycni.errors import FileError
from pycni.files import remove_file, replace_file, stage
from pycni.kernel import mounts
from pycni.settings import Settings

DIRECTORY = "installed"
RECORD = "files.json"


class Wanted(NamedTuple):
    """A file as it is to be held."""

    path: Path
    content: bytes
    mode: int


@dataclass(frozen=True)
class InstalledFile:
    """A file that a runtime executes or reads, as it is held."""

    path: Path
    mode: int
    size: int
    digest: str
    """SHA-256 of its content, in hex."""


@dataclass(frozen=True)
class Installed:
    """The plugin's files, the plugin last; the network list; and where they are."""

    plugin: tuple[InstalledFile, ...]
    listed: InstalledFile
    roots: dict[Path, str]
    """What is mounted at their directories (Mount.root), as far as these are mount points."""

    @property
    def executable(self) -> InstalledFile:
        """The plugin, whose name is the `type` in network lists."""
        return self.plugin[-1]

    @property
    def paths(self) -> list[Path]:
        """Of all files."""
        return [file.path for file in (*self.plugin, self.listed)]


def save(settings: Settings, files: Sequence[Wanted]) -> None:
    """Hold files from now on: the plugin's, itself the last, then the list. Raises FileError."""
    close(settings)
    held = [
        InstalledFile(file.path, file.mode, len(file.content), digest_of(file.content))
        for file in files
    ]
    for one, file in zip(held, files, strict=True):
        replace_file(_copy_of(settings, one), file.content, durable=False)
    document = {
        "files": [vars(file) | {"path": str(file.path)} for file in held],
        "roots": {str(path): root for path, root in roots([one.path for one in held]).items()},
    }
    replace_file(record_path(settings), json.dumps(document).encode(), durable=False)


def load(settings: Settings) -> Installed | None:
    """What an agent of this host holds; None if none holds anything."""
    try:
        document: dict[str, Any] = json.loads(record_path(settings).read_bytes())
        *plugin, listed = (
            InstalledFile(**one | {"path": Path(one["path"])}) for one in document["files"]
        )
        mounted = {Path(path): root for path, root in document["roots"].items()}
        return Installed(tuple(plugin), listed, mounted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def close(settings: Settings) -> None:
    """Hold nothing any more: whoever removes the files calls this first. Raises FileError."""
    remove_file(record_path(settings))  # first: without it, the copies are nothing
    shutil.rmtree(settings.run_dir / DIRECTORY, ignore_errors=True)


def write_again(settings: Settings, file: InstalledFile) -> None:
    """Write a file as it was, from its copy: runtimes see the whole file or none.

    Raises FileError, and leaves what is there then.
    """
    try:
        content = _copy_of(settings, file).read_bytes()
        staged = stage(file.path, content, mode=file.mode)
        try:
            staged.replace(file.path)
        except OSError:
            staged.unlink()
            raise
    except OSError as error:
        raise FileError(
            f"{file.path} cannot be written again: {error.strerror}",
            hint="look at its directory; then: pycni install",
        ) from error


def is_part_of(settings: Settings, file: InstalledFile, content: bytes) -> bool:
    """Whether a content is the beginning of the file, or nothing: a write that did not end, or a
    disk that was full."""
    if len(content) >= file.size:
        return False
    try:
        return _copy_of(settings, file).read_bytes().startswith(content)
    except OSError:
        return False


def roots(files: Iterable[Path]) -> dict[Path, str]:
    """What is mounted now at the directories of files, where these are mount points."""
    found = {}
    for directory in sorted({path.parent for path in files}):
        mount = mounts.covering(directory)
        if mount is not None and mount.point == directory:
            found[directory] = mount.root
    return found


def record_path(settings: Settings) -> Path:
    """Where an agent says what it holds; there may be none."""
    return settings.run_dir / DIRECTORY / RECORD


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _copy_of(settings: Settings, file: InstalledFile) -> Path:
    return settings.run_dir / DIRECTORY / file.path.name
