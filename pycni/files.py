# SPDX-License-Identifier: Apache-2.0
"""Private directories (mode 0700) and files (mode 0600) of a node; files are replaced atomically.

Knows no file's content. Turns OSError into FileError, which names the path. `stage`, for files that
others read, and `read_regular`, for files that others name or write, raise OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pycni.directories import refuse_unwritable
from pycni.errors import FileError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
WRITABLE_BY_OTHERS = 0o022
REGULAR_MAX = 16 << 20
"""Bytes of a file that somebody names or may replace. The largest, the plugin, has less than 2."""
STAGED_SUFFIX = ".new"
TICK = 20_000_000
"""Nanoseconds; the kernel's clock for files goes on every 10 ms at least (CONFIG_HZ)."""

Mark = tuple[int, int]
"""A file's inode and when it was changed last."""

SYSTEM_DIRECTORIES = frozenset(
    Path(name)
    for name in (
        "/",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/run/lock",
        "/run/user",
        "/srv",
        "/sys",
        "/sys/fs/bpf",
        "/tmp",
        "/usr",
        "/usr/lib",
        "/usr/local",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/local",
        "/var/log",
        "/var/mail",
        "/var/opt",
        "/var/spool",
        "/var/tmp",
    )
)
"""hier(7). Others need them, whatever is in them."""


KINDS = (
    (stat.S_ISDIR, "it is a directory"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
    (stat.S_ISSOCK, "it is a socket"),
)


def read_regular(path: Path, *, at_most: int = REGULAR_MAX, pipes: bool = False) -> bytes:
    """The content of a file that others name or write. Never waits, and is never without end.

    Raises OSError, whose `strerror` says what is wrong, for a file that has more than `at_most`
    bytes, and for what is no regular file. With `pipes` those that the shell opened are read, too
    (/dev/stdin), and waited for.
    """
    if pipes and _is_given(path):
        with path.open("rb") as pipe:
            return _bounded(pipe.read(at_most + 1), path, at_most)
    refuse_irregular(path, at_most=at_most)  # a device must not even be opened
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        _refuse(os.fstat(descriptor), path)
        return _bounded(file.read(at_most + 1), path, at_most)


def refuse_irregular(path: Path, *, at_most: int = REGULAR_MAX) -> None:
    """Raise OSError as `read_regular` does, for a file that a library is to read."""
    found = path.stat()
    _refuse(found, path)
    if found.st_size > at_most:
        raise _too_large(path, at_most)


def make_private_directory(path: Path) -> None:
    """Make `path` with mode 0700, and missing parents with the umask's mode.

    A directory that exists keeps its mode. Raises FileError if others could plant files in it: it
    belongs to another user, or group or others may write to it.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise FileError(
            f"the directory {path} cannot be made: {error.strerror}",
            hint="run as root, and choose a path on a writable file system",
        ) from error
    _refuse_plantable(path, found)


def _refuse_plantable(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise FileError(
            f"the directory {path} belongs to user {found.st_uid}, not to user {os.geteuid()}",
            hint=f"give it to the user pycni runs as: chown {os.geteuid()} {path}",
        )
    if found.st_mode & WRITABLE_BY_OTHERS:
        raise FileError(
            f"the directory {path} is writable by others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"close it: chmod 0700 {path}",
        )


def make_own_directory(path: Path, *, marks: frozenset[str]) -> None:
    """As `make_private_directory`, and close a directory of ours that others may enter.

    A directory is ours if it is empty, or holds one of `marks`, names of files that pycni makes.
    Raises FileError for any other, and for a directory of the system (hier(7)).
    """
    make_private_directory(path)
    try:
        if _is_to_be_closed(path, marks):
            path.chmod(DIRECTORY_MODE)
    except OSError as error:
        raise FileError(
            f"the directory {path} cannot be closed to others: {error.strerror}",
            hint=f"run as root, or: chmod 0700 {path}",
        ) from error


def refuse_own_directory(path: Path, *, marks: frozenset[str]) -> None:
    """Raise FileError if `make_own_directory` would, as far as can be told without a change."""
    refuse_unwritable(path)
    if path.is_dir():
        _refuse_plantable(path, path.stat())
        _is_to_be_closed(path, marks)


def _is_to_be_closed(path: Path, marks: frozenset[str]) -> bool:
    """Whether others may enter a directory of ours. Raises FileError for one that is not ours."""
    found = path.stat()
    if not found.st_mode & ~DIRECTORY_MODE & 0o777:
        return False
    names = {entry.name for entry in path.iterdir()}
    is_ours = path.resolve() not in SYSTEM_DIRECTORIES and (not names or names & marks)
    if not is_ours:
        raise FileError(
            f"the directory {path} (mode {stat.S_IMODE(found.st_mode):04o}) is open to others, "
            "and has files that are not pycni's",
            hint=f"name a directory of pycni's own in the settings, such as {path / 'pycni'}",
        )
    return True


@contextmanager
def alone_in(directory: Path) -> Iterator[bool]:
    """Yield True if no other process or thread is in such a block for `directory`, else False.

    Nobody waits. Raises FileError if the directory cannot be opened.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(
            f"the directory {directory} cannot be opened: {error.strerror}",
            hint=f"run as root; look at it: ls -ld {directory}",
        ) from error
    try:
        alone = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def replace_file(
    path: Path, content: bytes | bytearray | Iterator[bytes], *, durable: bool = True
) -> None:
    """Replace `path` by a file of mode 0600: readers see the old or the new bytes, never a part.
    What is large may come in pieces, which are never held together.

    With `durable` off this does not wait for the disk. After a power cut the file may then be
    empty, and its reader must cope. Raises FileError; the old file then stays as it was.

    Two processes that write one path need a lock: the new bytes are first written under one fixed
    name, so that a killed writer leaves one file at most, which the next writer overwrites.
    """
    make_private_directory(path.parent)
    temporary = _temporary(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(temporary, flags, FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(content if isinstance(content, Iterator) else [content])
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
    except OSError as error:
        raise FileError(
            f"the file {path} cannot be written: {error.strerror}",
            hint="check free space, and that the file system is not mounted read-only",
        ) from error


def stage(target: Path, content: bytes, *, mode: int) -> Path:
    """A complete file for others, beside `target`, under a name that no container runtime reads:
    to be renamed to `target`, by which runtimes learn of it. Raises OSError, and leaves none then.
    """
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


def remove_file(path: Path) -> None:
    """Remove the file at `path`, and what a `replace_file` that was killed left beside it.

    It is no error if there is nothing. Raises FileError.
    """
    for one in (path, _temporary(path)):
        try:
            one.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(
                f"the file {one} cannot be removed: {error.strerror}",
                hint="run as root, and check that the file system is not mounted read-only",
            ) from error


def _is_given(path: Path) -> bool:
    """Whether it is a pipe that this process was started with: it has no name of its own."""
    is_descriptor = os.path.realpath(path).startswith("/proc/")
    return is_descriptor and stat.S_ISFIFO(path.stat().st_mode)


def _refuse(found: os.stat_result, path: Path) -> None:
    for is_kind, words in KINDS:
        if is_kind(found.st_mode):
            raise OSError(errno.EINVAL, f"{words}, not a regular file", str(path))


def _bounded(content: bytes, path: Path, at_most: int) -> bytes:
    if len(content) > at_most:
        raise _too_large(path, at_most)
    return content


def _too_large(path: Path, at_most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has more than {at_most} bytes", str(path))


def half_written(directory: Path) -> Iterator[Path]:
    """The files of a directory whose `replace_file` is at work, or was killed. They may not be
    there."""
    for path in sorted(directory.glob(f".*{STAGED_SUFFIX}")):
        yield path.with_name(path.name.removeprefix(".").removesuffix(STAGED_SUFFIX))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}{STAGED_SUFFIX}")


def mark_of(path: Path) -> Mark | None:
    """What tells a file from a later one at its place; None if there is none.

    What was changed just now may change again without another time: such a mark is like no other.
    """
    with suppress(OSError):
        found = path.stat()
        is_settled = abs(time.time_ns() - found.st_mtime_ns) > TICK
        return found.st_ino, found.st_mtime_ns if is_settled else -time.monotonic_ns()
    return None
