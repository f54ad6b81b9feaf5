# SPDX-License-Identifier: Apache-2.0
"""Kernels to test on: Debian's packages, fetched once, unpacked beside their modules.

A kernel in the cache is a directory, built aside and renamed into place, so it is whole or absent:

    vmlinux      uncompressed, so that emulation does not unpack it at every boot
    initrd       busybox and the modules that the root's disk needs
    modules.img  /lib/modules, a file system
    kernel.json  release and package version
"""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vm import initrd
from vm.apt import Archive, ArchiveError, run
from vm.cache import locked

PACKAGE = "linux-image-cloud-amd64"
"""Depends on the newest kernel of its suite; the cloud flavour has what virtual machines need."""

SUITES = {
    "5.10": ("bullseye",),
    "6.1": ("bookworm",),
    "6.12": ("trixie",),
    "newest": ("trixie-backports", "sid", "experimental"),
}
"""Where each kernel comes from; of several suites, the highest version."""

TESTED = "6.1"
"""The one of every test run: the oldest that most nodes run. `make test-kernels` has them all."""

LZ4_LEGACY = b"\x02\x21\x4c\x18"
XZ = b"\xfd7zXZ\x00"
ZSTD = b"\x28\xb5\x2f\xfd"
ELF = b"\x7fELF"


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache; `release` is what uname -r says in a guest."""

    name: str
    release: str
    version: str
    directory: Path

    @property
    def vmlinux(self) -> Path:
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def modules(self) -> Path:
        return self.directory / "modules.img"


def fetch(name: str, cache: Path) -> Kernel:
    """The kernel of that name (a key of SUITES), from the cache or the archive.

    Raises ArchiveError, or KeyError for another name.
    """
    suites, directory = SUITES[name], cache / "kernels" / name
    with locked(cache):
        if not directory.is_dir():
            archive = Archive(suites, cache / "apt" / name)
            archive.directory.mkdir(parents=True, exist_ok=True)
            archive.update()
            packages = archive.download(_parts(archive, PACKAGE))
            _unpack(packages, directory, archive.show(PACKAGE)["Version"])
    facts = json.loads((directory / "kernel.json").read_text())
    return Kernel(name, facts["release"], facts["version"], directory)


def _parts(archive: Archive, package: str) -> list[str]:
    """A package and all it needs in its own version: a kernel's image, modules and so on."""
    found: dict[str, None] = {}
    waiting = [package]
    while waiting:
        found[package := waiting.pop()] = None
        depends = archive.show(package)["Depends"] or ""
        parts = [one.split()[0] for one in depends.split(",") if "(=" in one]
        waiting += [part for part in parts if part not in found]
    return list(found)


def _unpack(packages: Iterable[Path], directory: Path, version: str) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        tree, made = Path(temporary, "tree"), Path(temporary, "made")
        made.mkdir()
        for package in packages:
            run(["dpkg-deb", "--extract", package, tree], cwd=made)
            package.unlink()
        (image,) = tree.glob("**/vmlinuz*")
        (modules,) = tree.glob("**/lib/modules/*")
        release = modules.name
        (made / "vmlinux").write_bytes(vmlinux(image.read_bytes()))
        run(["depmod", "--basedir", _based(modules, tree), release], cwd=made)
        (made / "initrd").write_bytes(gzip.compress(initrd.build(modules), 1))
        make_image(made / "modules.img", modules.parent)
        (made / "kernel.json").write_text(json.dumps({"release": release, "version": version}))
        made.rename(directory)


def _based(modules: Path, tree: Path) -> Path:
    """What depmod takes for the root: the directory above lib/modules."""
    base = modules.parent.parent.parent
    assert base.is_relative_to(tree)
    return base


def vmlinux(image: bytes) -> bytes:
    """The kernel inside a bzImage (Documentation/arch/x86/boot.rst): an ELF file, unpacked."""
    for packed in _streams(image):
        if packed.startswith(ELF):
            return packed
    raise ArchiveError("no kernel in the boot image, in none of the formats lz4, xz and zstd")


def _streams(image: bytes) -> Iterator[bytes]:
    for magic, unpack in ((LZ4_LEGACY, _unlz4), (ZSTD, _unzstd), (XZ, _unxz)):
        start = image.find(magic)
        while start >= 0:
            try:
                yield unpack(image[start:])
            except (lzma.LZMAError, subprocess.CalledProcessError):
                pass  # the same bytes by chance
            start = image.find(magic, start + 1)


def _unlz4(packed: bytes) -> bytes:
    return _filter(("lz4", "-dc"), packed)


def _unzstd(packed: bytes) -> bytes:
    return _filter(("zstd", "-dc"), packed)


def _filter(command: tuple[str, ...], packed: bytes) -> bytes:
    """What a program makes of it; it complains of the bytes behind the stream, after the rest."""
    return subprocess.run(command, input=packed, capture_output=True, check=False).stdout


def _unxz(packed: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(packed)


def make_image(path: Path, content: Path, *, spare: int = 16 << 20) -> None:
    """An ext4 file system of a directory's content, with `spare` bytes free; nothing is mounted."""
    used = sum(file.lstat().st_size + 4096 for file in content.rglob("*"))
    with path.open("wb") as image:
        image.truncate(int(used * 1.15) + spare)
    run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", content, path],
        cwd=path.parent,
    )


def forget(name: str, cache: Path) -> None:
    """Drop a kernel from the cache: the next `fetch` takes the newest of its suites."""
    shutil.rmtree(cache / "kernels" / name, ignore_errors=True)
