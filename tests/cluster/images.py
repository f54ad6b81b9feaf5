# SPDX-License-Identifier: Apache-2.0
"""The images that pods ask for, made here: no registry is asked.

One tree for all of them: Debian packages, unpacked and not configured, and the programs that were
built (build.py). Kubernetes' own tests find their images' names here as well.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from pycni.errors import PycniError
from pycni.files import replace_file
from support.oci import Image, write_archive, write_layer
from vm import cache
from vm.apt import Archive, ArchiveError, run

PAUSE = "registry.k8s.io/pause:local"
COREDNS = "registry.k8s.io/coredns:local"
TESTS = "registry.k8s.io/e2e-test-images"
AGNHOST = f"{TESTS}/agnhost:local"
"""A client and a server of many protocols, as Kubernetes' tests use it, with a shell."""

SUITE = "bookworm"
PACKAGES = (
    "bind9-dnsutils", "coreutils", "curl", "dash", "grep", "hostname", "iproute2", "iptables",
    "libc-bin", "netcat-openbsd", "procps", "sed", "wget",
)  # fmt: skip
DISPENSABLE = ("usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale",
               "usr/share/man", "usr/share/perl5", "usr/lib/x86_64-linux-gnu/perl-base",
               "usr/share/bash-completion")  # fmt: skip
ALTERNATIVES = {
    "bin/sh": "dash",
    "bin/nc": "nc.openbsd",
    "usr/sbin/iptables": "iptables-nft",
    "usr/sbin/ip6tables": "ip6tables-nft",
    "usr/sbin/iptables-save": "iptables-nft-save",
}
"""Names that packages give their programs when they are configured."""
FILES = {
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
}
DIRECTORIES = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "uploads", "var/run")
PROGRAMS = ("agnhost", "coredns", "localhost.crt", "localhost.key")
"""From the build, into the root of the image."""
PROOF = (("sh", "-c", "true"), ("curl", "--version"), ("dig", "-v"), ("nslookup", "-version"),
         ("nc", "-h"), ("ip", "-Version"), ("getent", "--version"), ("wget", "--version"),
         ("seq", "1"), ("iptables", "--version"))  # fmt: skip
"""Commands that must run in the tree: no library is missing."""

ONE_TREE = (
    Image((AGNHOST, f"{TESTS}/agnhost:2.55", f"{TESTS}/agnhost:2.66.1"), ("/agnhost",), ("pause",)),
    Image((COREDNS,), ("/coredns",)),
    Image((f"{TESTS}/nginx:1.27.0-2", f"{TESTS}/nginx:1.28.0-2"), ("/agnhost", "test-webserver")),
    Image((f"{TESTS}/busybox:1.37.0-2", f"{TESTS}/glibc-dns-testing:2.1.1"), (), ("/bin/sh",)),
)

Tell = Callable[[str], None]


def provide(programs: Path, *, tell: Tell = print) -> list[Path]:
    """The archives, made anew if they are not of these programs and packages.

    Raises PycniError, or ArchiveError if packages cannot be had.
    """
    where = programs.parent / "images"
    archives = [where / "pause.tar", where / "all.tar"]
    wanted = digest(programs)
    with cache.locked(programs.parent):
        if not _is_made(where, archives, wanted):
            tell("making the images of Debian packages and of what was built")
            where.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=where) as scratch:
                _make(programs, Path(scratch), archives)
            replace_file(where / "made.json", json.dumps(wanted).encode())
    return archives


def digest(programs: Path) -> str:
    """What images are made of: the programs, by their sizes and times, and what is said here."""
    made_of = [(name, (programs / name).stat().st_size, (programs / name).stat().st_mtime_ns)
               for name in ("pause", *PROGRAMS)]  # fmt: skip
    said = [SUITE, PACKAGES, DISPENSABLE, ALTERNATIVES, FILES, DIRECTORIES, str(ONE_TREE), PAUSE]
    return hashlib.sha256(json.dumps([made_of, said]).encode()).hexdigest()


def _is_made(where: Path, archives: Iterable[Path], wanted: str) -> bool:
    try:
        made = json.loads((where / "made.json").read_bytes())
    except (OSError, ValueError):
        return False
    return made == wanted and all(archive.exists() for archive in archives)


def _make(programs: Path, scratch: Path, archives: list[Path]) -> None:
    sandbox, tree = scratch / "pause", scratch / "tree"
    sandbox.mkdir()
    shutil.copy(programs / "pause", sandbox / "pause")
    unpack(tree)
    for name in PROGRAMS:
        shutil.copy(programs / name, tree / name)
    (tree / "agnhost-2").symlink_to("agnhost")  # by this name some tests call it
    contents = ((sandbox, [Image((PAUSE, "registry.k8s.io/pause:3.10.2"), ("/pause",))]),
                (tree, ONE_TREE))  # fmt: skip
    for archive, (content, images) in zip(archives, contents, strict=True):
        layer, aside = scratch / f"{archive.name}.layer", scratch / archive.name
        write_layer(layer, content)
        write_archive(aside, layer, images)
        aside.replace(archive)


def unpack(tree: Path) -> None:
    """The packages and all that they need, in an empty directory; proven to run there."""
    archive = Archive((SUITE,), cache.directory("kubernetes") / "apt")
    archive.update()
    tree.mkdir()
    for package in archive.download_closure(PACKAGES):
        run(["dpkg-deb", "--extract", package, tree], cwd=tree)
    for name in DISPENSABLE:
        shutil.rmtree(tree / name, ignore_errors=True)
    for name in DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for link, target in ALTERNATIVES.items():
        (tree / link).unlink(missing_ok=True)
        (tree / link).symlink_to(target)
    for file, content in FILES.items():
        (tree / file).write_text(content)
    for command in PROOF:
        _prove(tree, command)


def _prove(tree: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["chroot", tree, *command], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    if done.returncode != 0:
        raise PycniError(
            f"{command[0]} does not run in the image",
            details=done.stderr.strip()[-500:],
            hint="a package is missing in PACKAGES (tests/cluster/images.py)",
        )


__all__ = ["AGNHOST", "COREDNS", "PAUSE", "ArchiveError", "digest", "provide", "unpack"]
