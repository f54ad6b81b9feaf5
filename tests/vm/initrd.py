# SPDX-License-Identifier: Apache-2.0
"""The first file system of a guest: busybox, and the modules without which there is no root.

Written as a cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
"""Statically linked: Debian's busybox-static."""

FIRST_MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""What it takes to mount the root's disk; those built in are not among the files."""

INIT = Path(__file__).parent / "guest" / "initrd.sh"
DIRECTORY, EXECUTABLE, FILE, DEVICE = 0o040755, 0o100755, 0o100644, 0o020600


def build(modules: Path) -> bytes:
    """The archive for the kernel whose modules are in `modules`, after depmod."""
    needed = list(in_order(modules, FIRST_MODULES))
    names = [f"modules/{number:02}-{file.name.partition('.')[0]}.ko"
             for number, file in enumerate(needed)]  # fmt: skip
    entries: list[tuple[str, int, bytes]] = [
        *((name, DIRECTORY, b"") for name in ("bin", "dev", "modules", "proc", "root", "sys")),
        ("bin/busybox", EXECUTABLE, BUSYBOX.read_bytes()),
        ("init", EXECUTABLE, INIT.read_bytes()),
        *((name, FILE, unpacked(file)) for name, file in zip(names, needed, strict=True)),
    ]
    return b"".join([*(_entry(*entry) for entry in entries), _entry("TRAILER!!!", 0, b"")])


def in_order(modules: Path, wanted: Iterable[str]) -> Iterator[Path]:
    """Files of modules and of what they need, each after what it needs (modules.dep(5))."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, rest = line.partition(":")
        needs[file] = rest.split()
    files = {Path(file).name.partition(".")[0].replace("-", "_"): file for file in needs}
    given: dict[str, None] = {}
    for name in wanted:
        if name in files:
            given |= dict.fromkeys([*reversed(needs[files[name]]), files[name]])
    return (modules / file for file in given)


def unpacked(file: Path) -> bytes:
    """A module as the kernel takes it."""
    data = file.read_bytes()
    return lzma.decompress(data) if file.suffix == ".xz" else data


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """The "newc" format: 13 fields of 8 hexadecimal digits, name and data padded to 4 bytes."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
