# SPDX-License-Identifier: Apache-2.0
"""Pins: how the loader's maps and programs lie in a BPF file system, and how they are replaced.

    <root>/maps/<map>                       pinned maps
    <root>/programs-<fingerprint>/<name>    pinned programs of one load
    <root>/programs -> programs-...         the current ones, switched by rename
    <root>/sockets/<name>                   links to a control group (sockets.py)
    <root>/clsact/<ifindex>/                empty: the qdisc of this interface was added by us
    <root>/beside/maps/<map>                during a load: maps that are filled before they are used

No name holds a dot: the kernel keeps those for itself on a bpffs (bpf_lookup, kernel/bpf/inode.c).
Removes only what it made, entry by entry; never a tree. Knows no tc and loads no program.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from . import bpf, libbpf
from .errors import BpffsError

CURRENT = "programs"
BESIDE = "beside"
KERNEL_FILES = frozenset({"maps.debug", "progs.debug"})  # the kernel puts these in a bpffs's root


def ensure_bpffs(path: Path) -> bool:
    """Have a BPF file system at or above `path`; True if one was mounted at `path`.

    Runs in the caller's mount namespace. BpffsError says what to do when that is not possible.
    """
    hint = f"mount -t bpf bpffs {path}"
    if not needs_bpffs(path):
        return False
    try:
        path.mkdir(parents=True, exist_ok=True)
        occupied = any(path.iterdir())
    except OSError as error:
        raise BpffsError(f"no BPF file system at {path}: {error.strerror}", hint=hint) from error
    if occupied:
        raise BpffsError(f"{path} is not a BPF file system, and not empty", hint=hint)
    try:
        libbpf.mount_bpffs(path)
    except OSError as error:
        hint = f"run as root, or: {hint}; a kernel needs CONFIG_BPF_SYSCALL"
        raise BpffsError(f"cannot mount bpffs at {path}: {error.strerror}", hint=hint) from error
    return True


def needs_bpffs(path: Path) -> bool:
    """Whether `ensure_bpffs` would have to mount one."""
    return not is_bpffs(_existing(path))


def unmount_bpffs(path: Path) -> bool:
    """Undo of an ensure_bpffs that mounted; False, and nothing done, while it holds pins.

    Also False if nothing is mounted at `path` any more, as after a reboot.
    """
    if not (path.is_mount() and is_bpffs(path)):
        return False
    if any(entry.name not in KERNEL_FILES for entry in path.iterdir()):
        return False
    try:
        libbpf.unmount(path)
    except OSError as error:
        raise BpffsError(
            f"cannot unmount {path}: {error.strerror}",
            hint=f"see who uses it, end that, and try again: fuser -vm {path}",
        ) from error
    return True


def is_bpffs(path: Path) -> bool:
    """Whether `path` lies on a BPF file system (proc(5), /proc/self/mountinfo)."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0] == "bpf"
    return False


@contextmanager
def locked(root: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock of `root`: exclusive to replace programs, shared to attach current ones.

    Raises BpffsError if nothing is pinned there.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BpffsError(f"nothing is pinned at {root}", hint="run: pycni setup") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def create_root(root: Path) -> bool:
    """Make `root` and its directory of maps on a mounted bpffs; False if they were there.

    Raises BpffsError if no BPF file system is mounted there.
    """
    if not is_bpffs(_existing(root)):
        raise BpffsError(
            f"{root} is not on a BPF file system", hint="run: mount -t bpf bpffs /sys/fs/bpf"
        )
    if (root / "maps").is_dir():
        return False
    (root / "maps").mkdir(mode=0o700, parents=True)
    return True


def remove_root(root: Path) -> None:
    """Undo of create_root; leaves what others put there."""
    for directory in (root / "clsact", root / "maps", root):
        with suppress(OSError):
            directory.rmdir()


def current(root: Path) -> Path | None:
    """Directory of the current programs; None if nothing is loaded."""
    try:
        return root / (root / CURRENT).readlink()
    except FileNotFoundError:
        return None


def fingerprint(directory: Path) -> str:
    """Fingerprint of the programs in `directory`."""
    return directory.name.split("-")[1]


def pin_programs(root: Path, mark: str, programs: Iterable[bpf.Program]) -> Path:
    """Pin programs under a new directory for fingerprint `mark`, all of them or none."""
    directory = root / f"programs-{mark}"
    if directory.exists():  # the current ones, with a pin lost: these get a name beside them
        directory = root / f"programs-{mark}-repaired"
    directory.mkdir(mode=0o700)
    try:
        for program in programs:
            program.pin(directory / program.name)
    except BaseException:
        remove_programs(directory)
        raise
    return directory


def remove_programs(directory: Path) -> None:
    """Unpin all programs of a directory, and the directory."""
    for pin in directory.iterdir():
        pin.unlink()
    directory.rmdir()


def switch(root: Path, directory: Path | None) -> None:
    """Make `directory` the current one in one step; None: no current one."""
    link = root / CURRENT
    if directory is None:
        link.unlink(missing_ok=True)
        return
    following = root / f"{CURRENT}-next"
    following.unlink(missing_ok=True)
    following.symlink_to(directory.name)
    _rename(following, link)


def sweep(root: Path) -> None:
    """Remove what an interrupted load left: programs that are not current, half-made maps."""
    keep = current(root)
    for entry in root.glob(f"{CURRENT}-*"):
        if entry.is_symlink():
            entry.unlink()
        elif entry != keep:
            remove_programs(entry)
    for entry in (root / "maps").glob("*-staged"):
        entry.unlink()
    _remove_beside(root)


def map_path(root: Path, name: str) -> Path:
    """Where map `name` is pinned."""
    return root / "maps" / name


def has_map(root: Path, name: str) -> bool:
    """Whether a map is pinned by that name."""
    return map_path(root, name).exists()


def open_map(root: Path, name: str) -> bpf.Map | None:
    """The pinned map `name`, None if there is none."""
    try:
        return bpf.Map.open_pinned(map_path(root, name))
    except FileNotFoundError:
        return None


def replace_map(root: Path, name: str, new: bpf.Map) -> None:
    """Pin `new` as `name`, over another if there is one, in one step."""
    staged = map_path(root, f"{name}-staged")
    new.pin(staged)
    _rename(staged, map_path(root, name))


def put_back(root: Path, name: str, old: bpf.Map | None) -> None:
    """Undo of `replace_map`; `old` is what was pinned there."""
    if old is None:
        map_path(root, name).unlink()
    else:
        replace_map(root, name, old)


@contextmanager
def beside(root: Path, maps: Mapping[str, bpf.Map]) -> Iterator[Path]:
    """Another root, with these maps pinned, while the context lasts."""
    other = root / BESIDE
    try:
        (other / "maps").mkdir(mode=0o700, parents=True)
        for name, one in maps.items():
            one.pin(map_path(other, name))
        yield other
    finally:
        _remove_beside(root)


def mark_clsact(root: Path, ifindex: int) -> None:
    """Remember that the loader added the clsact qdisc of an interface."""
    (root / "clsact" / str(ifindex)).mkdir(mode=0o700, parents=True, exist_ok=True)


def unmark_clsact(root: Path, ifindex: int) -> bool:
    """Forget it; True if it was remembered."""
    try:
        (root / "clsact" / str(ifindex)).rmdir()
    except FileNotFoundError:
        return False
    with suppress(OSError):  # others are in it
        (root / "clsact").rmdir()
    return True


def marked_clsact(root: Path) -> set[int]:
    """Indexes of the interfaces whose clsact qdisc the loader added."""
    try:
        return {int(entry.name) for entry in (root / "clsact").iterdir()}
    except FileNotFoundError:
        return set()


def _rename(new: Path, name: Path) -> None:
    try:
        new.rename(name)
    except BaseException:
        new.unlink()
        raise


def _remove_beside(root: Path) -> None:
    other = root / BESIDE
    for pin in (other / "maps").glob("*"):
        pin.unlink()
    for directory in (other / "maps", other):
        with suppress(FileNotFoundError):
            directory.rmdir()


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
