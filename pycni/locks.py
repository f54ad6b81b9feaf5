# SPDX-License-Identifier: Apache-2.0
"""Locks between the processes of one node: the agent, the CLI, plugins that run without an agent.

flock(2) on files of the run directory. A lock ends when its last descriptor is closed, so it also
ends when its holder is killed.

Order: the attachment's lock first, then the network's, then an address's. A process that holds one
attachment's lock never waits for another attachment's.

The file of an attachment's or an address's lock exists only while the lock is held: the holder
unlinks it. A process that waited for the lock and got an unlinked file starts again. A killed
holder leaves its file for the next holder to unlink.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pycni.cluster import IPAddress
from pycni.errors import FileError, TryAgain
from pycni.files import FILE_MODE, make_private_directory, mark_of

LOCK_DIRECTORY = "locks"
ATTACHMENT = "attachment"
NETWORK_LOCK = "network.lock"
LAN_LOCK = "lan.lock"
EVENTS_LOCK = "events.lock"
AGENT_LOCK = "agent.lock"
DEADLINE = 10.0
"""Seconds that an ADD or DEL waits; runtimes give up after minutes."""
POLL_INTERVAL = 0.01
"""Seconds between two tries: flock(2) has no timeout of its own."""
NAME_DIGITS = 32
"""Hexadecimal digits of a hash in the name of a lock file, enough for no two to be equal."""


@contextmanager
def attachment_lock(run_dir: Path, key: str, *, timeout: float = DEADLINE) -> Iterator[int]:
    """Held for a whole ADD or DEL of the attachment `key`, which may have any length.

    Yields the lock's descriptor. A child process that inherits it keeps the lock until it ends.
    Raises TryAgain after `timeout` seconds (0: one try), FileError if the file cannot be opened.
    """
    path = _path(run_dir, ATTACHMENT, key.encode())
    with _locked(path, f"the attachment {key}", timeout, unlink=True) as descriptor:
        yield descriptor


def attachment_is_busy(run_dir: Path, key: str) -> bool:
    """Whether somebody holds the lock of the attachment now; takes nothing, and makes no file."""
    try:
        descriptor = os.open(
            _path(run_dir, ATTACHMENT, key.encode()), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        )
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def attachments_mark(run_dir: Path) -> object:
    """Equal to a former one only if nobody has taken the lock of an attachment since."""
    directory = run_dir / LOCK_DIRECTORY
    left = {path: mark_of(path) for path in directory.glob(f"{ATTACHMENT}-*")}
    return mark_of(directory), left  # a holder that was killed leaves a file, and the next takes it


@contextmanager
def network_lock(
    run_dir: Path, *, shared: bool = False, timeout: float = DEADLINE
) -> Iterator[int]:
    """Held by setup and teardown, which replace maps; `shared` by everybody who writes to maps.

    A stopped process that holds it `shared` blocks setup and teardown, but no other attachment.
    Yields and raises as `attachment_lock`.
    """
    path = run_dir / LOCK_DIRECTORY / NETWORK_LOCK
    with _locked(path, "the node's network", timeout, shared=shared) as descriptor:
        yield descriptor


@contextmanager
def address_lock(run_dir: Path, address: IPAddress, *, timeout: float = DEADLINE) -> Iterator[int]:
    """Held between a look at an address's entry and its removal. Yields and raises as
    `attachment_lock`."""
    path = _path(run_dir, "address", address.packed)
    with _locked(path, f"the address {address}", timeout, unlink=True) as descriptor:
        yield descriptor


@contextmanager
def lan_lock(run_dir: Path, *, timeout: float = DEADLINE) -> Iterator[int]:
    """Held while addresses of pods on the LAN are taken or given back, and while the node's own
    child of a parent is made or removed. Yields and raises as `attachment_lock`."""
    path = run_dir / LOCK_DIRECTORY / LAN_LOCK
    with _locked(path, "the addresses of the LAN", timeout) as descriptor:
        yield descriptor


@contextmanager
def events_lock(run_dir: Path, *, timeout: float = 0) -> Iterator[int]:
    """Held by the one process that reads the ring buffer `events`: of two readers, each would get
    only a part of the records. Yields and raises as `attachment_lock`."""
    path = run_dir / LOCK_DIRECTORY / EVENTS_LOCK
    with _locked(path, "the ring buffer of events", timeout, unlink=True) as descriptor:
        yield descriptor


@contextmanager
def agent_lock(run_dir: Path) -> Iterator[int]:
    """Held by the node's agent as long as it runs. One try; yields and raises as
    `attachment_lock`."""
    path = run_dir / LOCK_DIRECTORY / AGENT_LOCK
    with _locked(path, "the place of the node's agent", 0, unlink=True) as descriptor:
        yield descriptor


def _path(run_dir: Path, kind: str, name: bytes) -> Path:
    digest = hashlib.sha256(name).hexdigest()[:NAME_DIGITS]
    return run_dir / LOCK_DIRECTORY / f"{kind}-{digest}.lock"


@contextmanager
def _locked(
    path: Path, what: str, timeout: float, *, shared: bool = False, unlink: bool = False
) -> Iterator[int]:
    if not path.parent.exists():
        make_private_directory(path.parent.parent)  # the run directory, as private as its locks
    make_private_directory(path.parent)
    descriptor = _acquire(path, what, timeout, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        if shared:
            yield descriptor
            return
        _write_holder(descriptor, str(os.getpid()))
        try:
            yield descriptor
        finally:
            _write_holder(descriptor, "")
            if unlink:
                with suppress(OSError):
                    path.unlink()
    finally:
        # close(2), not LOCK_UN, which would also unlock a child that inherited the descriptor
        os.close(descriptor)


def _acquire(path: Path, what: str, timeout: float, kind: int) -> int:
    """Lock the file that is at `path` once the lock is held; returns its descriptor."""
    deadline = time.monotonic() + timeout
    while True:
        descriptor = _open(path)
        try:
            _wait_for(descriptor, what, timeout, deadline, kind)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    except OSError as error:
        raise FileError(
            f"the lock file {path} cannot be opened: {error.strerror}",
            hint="the run directory must be writable by root",
        ) from error


def _wait_for(descriptor: int, what: str, timeout: float, deadline: float, kind: int) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TryAgain(
                    f"{what} is locked by {_read_holder(descriptor)}",
                    details=f"waited {timeout:g} s",
                    hint="try again when that process is done",
                ) from None
        time.sleep(POLL_INTERVAL)


def _write_holder(descriptor: int, holder: str) -> None:
    """Name the holder in the file, for error messages only: a full file system is no error."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
    except OSError:
        pass


def _read_holder(descriptor: int) -> str:
    pid = os.pread(descriptor, 32, 0).decode(errors="replace")
    if not pid.isdigit():
        return "another process"
    if not Path("/proc", pid).exists():
        return f"a child of process {pid}, which is gone"
    return f"process {pid}"
