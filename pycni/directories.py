# SPDX-License-Identifier: Apache-2.0
"""Where a node's directories cannot be. Knows their keys in the settings, and changes nothing.

`conflicts` compares paths, behind symbolic links; `obstacles` and `refuse_unwritable` look at what
is there, as what makes a directory or writes a file would find it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pycni.errors import FileError

STATE, RUN, BPFFS = "state_dir", "run_dir", "bpffs"
OF_THE_KERNEL = (Path("/proc"), Path("/sys"))
"""File systems in which nobody can make a file."""


def conflicts(paths: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """What no node can have: key, and why. `paths` are by their keys, absolute."""
    real = {key: Path(os.path.realpath(path)) for key, path in paths.items()}
    for key, path in real.items():
        if key == BPFFS:
            continue
        for hidden in OF_THE_KERNEL:
            if path.is_relative_to(hidden):
                yield key, f"must not be in {hidden}, where only the kernel makes files"
                break
        else:
            if path.is_relative_to(real[BPFFS]):
                yield key, f"must not be in bpffs ({paths[BPFFS]}), which holds no files"
    if real[BPFFS].is_relative_to(OF_THE_KERNEL[0]):
        yield BPFFS, f"must not be in {OF_THE_KERNEL[0]}, where nothing can be mounted"
    if real[STATE] == real[RUN]:
        yield RUN, f"must not be state_dir ({paths[STATE]}): a boot empties it, and state must stay"
    elif real[STATE].is_relative_to(real[RUN]):
        yield STATE, f"must not be in run_dir ({paths[RUN]}): a boot empties that"


def obstacles(paths: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """What is not a directory on this host, of the paths and of what they are below: key, why."""
    for key, path in paths.items():
        there = _deepest(path)
        if there == path and not path.is_dir():
            yield key, "is there, and is no directory"
        elif not there.is_dir():
            yield key, f"cannot be made: {there} is no directory"


def refuse_unwritable(directory: Path) -> None:
    """Raise FileError if nobody could write a file into a directory, or make it: it is below what
    is no directory, on a file system that is mounted read-only, or not the caller's to change.

    Whether there is room is not asked.
    """
    there = _deepest(directory)
    if not there.is_dir():
        raise FileError(
            f"the directory {directory} cannot be used: {there} is no directory",
            hint="name a directory, or one that can be made",
        )
    try:
        read_only = bool(os.statvfs(there).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise FileError(
            f"the directory {directory} cannot be used: {there}: {error.strerror}",
            hint=f"look at it: ls -ld {there}",
        ) from error
    if read_only:
        raise FileError(
            f"the directory {directory} cannot be used: {os.strerror(errno.EROFS)}",
            hint="choose a directory on a file system that is not mounted read-only",
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileError(
            f"the directory {directory} cannot be used: user {os.geteuid()} may not write to "
            f"{there}",
            hint="run as root",
        )


def _deepest(path: Path) -> Path:
    """The part of a path that is there; the whole path if it is a link that leads nowhere."""
    for one in (path, *path.parents):
        if os.path.lexists(one):
            return one
    return Path("/")
