# SPDX-License-Identifier: Apache-2.0
"""What is in the image: Debian packages, wheels and pycni, unpacked into a directory.

Nothing is configured and nothing runs but Python, which compiles its modules. There is no shell, no
package manager and no compiler: BPF programs and launcher are in pycni's wheel. The programs are
the same for each architecture; the launcher is compiled anew for another than this machine's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from image import emulator
from image.architectures import Architecture, own
from pycni.cni.launcher import compile_launcher
from pycni.errors import NoLauncher, PycniError
from vm.apt import Archive, run

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

SUITE = "trixie"
PYTHON = "3.13"
"""Of that suite."""

PACKAGES = (
    "libbpf1", "libbpfcc", "libbz2-1.0", "libc6", "libelf1t64", "libexpat1", "libffi8",
    "libgcc-s1", "libgmp10", "libjansson4", "liblzma5", "libmnl0", "libnftables1", "libnftnl11",
    f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libsqlite3-0", "libssl3t64",
    "libstdc++6", "libuuid1", "libxtables12", "libzstd1", "netbase", f"python{PYTHON}-minimal",
    "zlib1g",
)  # fmt: skip
"""All of them, with no others that they depend on: proof.py shows that nothing is missing."""

LIBRARIES = Path("usr/lib/*-linux-gnu")
"""A pattern: the name of the machine is in it."""
STANDARD = Path(f"usr/lib/python{PYTHON}")
MODULES = Path("usr/lib/python3/dist-packages")
LAUNCHER = MODULES / "pycni/cni/launcher"

OWN = ("loader", "pycni", "pycni-*.dist-info")
"""What pycni's wheel has in MODULES."""

DISPENSABLE = (
    f"{LIBRARIES}/libbcc.so.*",  # needs LLVM; of bcc, libbcc_bpf is used (D2)
    f"{LIBRARIES}/gconv",
    *(f"{LIBRARIES}/{name}.so*"  # for debuggers and profilers
      for name in ("libmemusage", "libpcprofile", "libthread_db")),
    f"{LIBRARIES}/engines-3", f"{LIBRARIES}/ossl-modules",
    *(f"{STANDARD}/lib-dynload/{name}.*"
      for name in ("_curses", "_curses_panel", "_dbm", "_tkinter", "readline", "_ctypes_test",
                   "_test*", "_xxtestfuzz", "xx*")),
    *(f"{STANDARD}/{name}"
      for name in ("ensurepip", "idlelib", "pydoc_data", "tkinter", "turtledemo", "config-*")),
    "etc/init.d", "usr/share/apport", "usr/share/binfmts", "usr/share/gcc", "usr/share/lintian",
    "usr/share/man", "usr/share/python3", "usr/share/applications", "usr/share/pixmaps",
    "usr/share/menu", "usr/share/gdb", "usr/share/locale",
)  # fmt: skip
"""Patterns of what is in the packages and serves nobody here."""

DIRECTORIES = ("dev", "etc/cni/net.d", "etc/pycni", "etc/pycni-bgp", "host/proc/sys/net",
               "host/sys/fs/cgroup", "opt/cni/bin", "proc", "root", "run/pycni", "sys/fs/bpf",
               "tmp", "var/lib/cni", "var/lib/pycni")  # fmt: skip
"""Where the container's mounts go: its root is read-only."""

FILES = {
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n",
    "etc/os-release": f'NAME="pycni"\nID=pycni\nID_LIKE=debian\nVERSION_CODENAME={SUITE}\n',
}
LINKS = {"lib": "usr/lib", "lib64": "usr/lib64", "usr/bin/python3": f"python{PYTHON}"}
"""lib64 where the C library has something there: not on arm64."""
COMMAND = "#!/usr/bin/python3 -I\nimport sys\n\nfrom pycni.cli import main\n\nsys.exit(main())\n"

PLATFORMS = ("manylinux2014", "manylinux_2_28")
"""What the wheels may have been built for: the suite's C library is 2.41."""

ASIDE = "tmp/other"
"""Where a tree of another architecture is in that of ours while its modules are compiled."""


def make(tree: Path, wheel: Path, *, archive: Archive, architecture: Architecture) -> None:
    """The tree but for its bytecode, in a directory that does not exist yet.

    Raises ArchiveError if packages cannot be had, PycniError if a program fails.
    """
    tree.mkdir(mode=0o755)
    archive.update()
    for package in archive.download(PACKAGES):
        run(["dpkg-deb", "--extract", package, tree], cwd=tree)
    install(tree, architecture, "--require-hashes", "--requirement", REQUIREMENTS)
    add_pycni(tree, wheel, architecture)
    finish(tree)


def make_wheel(scratch: Path, *, project: Path = PROJECT) -> Path:
    """The wheel of a project's sources, with the launcher for this machine."""
    wheels = scratch / "wheels"
    wheels.mkdir()
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, project)
    (own_wheel,) = wheels.glob("pycni-*.whl")
    return own_wheel


def add_pycni(tree: Path, wheel: Path, architecture: Architecture) -> None:
    """pycni's wheel, which replaces the one that is there, and the launcher for the tree."""
    for name in OWN:
        for former in (tree / MODULES).glob(name):
            shutil.rmtree(former)
    install(tree, architecture, wheel)
    if architecture != own():
        replace_launcher(tree, architecture)


def replace_launcher(tree: Path, architecture: Architecture) -> None:
    """The launcher for another architecture, in the place of this machine's. Raises PycniError."""
    try:
        content = compile_launcher((architecture.compiler,))
    except NoLauncher as error:
        raise PycniError(
            f"no launcher for {architecture.name}: {error.message}",
            details=error.details,
            hint=f"apt install {' '.join(architecture.compiler_packages)}",
        ) from error
    for former in (tree / LAUNCHER).glob("launcher-*"):
        former.unlink()
    launcher = tree / LAUNCHER / f"launcher-{architecture.machine}"
    launcher.write_bytes(content)
    launcher.chmod(0o755)


def install(tree: Path, architecture: Architecture, *what: str | Path) -> None:
    """Wheels for the image's Python, whatever runs here."""
    pip("install", "--no-deps", "--no-compile", "--target", tree / MODULES,
        "--python-version", PYTHON, "--only-binary=:all:",
        *(f"--platform={name}_{architecture.machine}" for name in PLATFORMS), *what)  # fmt: skip


def finish(tree: Path) -> None:
    """Leave out what nobody needs, and add what installation scripts would."""
    for pattern in DISPENSABLE:
        for found in sorted(tree.glob(pattern)):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
    for found in sorted((tree / "usr/share/doc").rglob("*")):
        if not found.is_dir() and found.name != "copyright":
            found.unlink()
    tidy(tree)
    for name in DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for link, target in LINKS.items():
        if link != "lib64" or (tree / target).exists():
            (tree / link).symlink_to(target)
    for name, content in FILES.items():
        (tree / name).write_text(content)
    command = tree / "usr/bin/pycni"
    command.write_text(COMMAND)
    command.chmod(0o755)
    set_modes(tree)


def tidy(tree: Path) -> None:
    """Remove what says when, and where from, pip installed, and the commands of wheels."""
    shutil.rmtree(tree / MODULES / "bin", ignore_errors=True)
    for info in (tree / MODULES).glob("*.dist-info"):
        for name in ("RECORD", "REQUESTED", "direct_url.json", "INSTALLER"):
            (info / name).unlink(missing_ok=True)


def set_modes(tree: Path) -> None:
    """The same modes whatever the umask was, and nothing with the rights of its owner (setuid)."""
    for found in (tree, *tree.rglob("*")):
        if not found.is_symlink():
            executable = found.is_dir() or found.stat().st_mode & 0o100
            found.chmod(0o755 if executable else 0o644)
    (tree / "tmp").chmod(0o1777)


def compile_modules(tree: Path, *, ours: Path | None = None) -> None:
    """Bytecode that does not look at its source's time (PEP 552): the container cannot write it.

    By the image's own Python, with one order of sets: the same sources give the same bytes. A tree
    of another architecture needs one of ours, whose Python does it: bytecode knows no machine.
    """
    if ours is None:
        _compile_modules(tree)
        return
    aside = ours / ASIDE
    tree.rename(aside)
    try:
        _compile_modules(ours, below=f"/{ASIDE}")
    finally:
        aside.rename(tree)


def _compile_modules(tree: Path, *, below: str = "") -> None:
    modules = [f"{below}/{path}" for path in (STANDARD, MODULES)]
    options = ["-q", "-j1", "--invalidation-mode", "unchecked-hash"]
    if below:
        options += ["-s", below, "-p", "/"]
    inside(tree, "/usr/bin/python3", "-I", "-m", "compileall", *options, *modules)


def inside(tree: Path, *command: str) -> str:
    """What a program in the tree prints. Raises PycniError if it fails."""
    done = subprocess.run(
        ["chroot", tree, *emulator.command(tree, command)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, umask=0o022,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    if done.returncode != 0:
        raise PycniError(
            f"{' '.join(command[:3])} fails in the image",
            details=(done.stderr + done.stdout).strip()[-2000:],
            hint="a package is missing in PACKAGES, or too much is in DISPENSABLE (image/tree.py)",
        )
    return done.stdout


def pip(*arguments: str | Path) -> None:
    """Run pip of this environment, with its configuration. Raises PycniError."""
    options: Sequence[str] = ("--quiet", "--disable-pip-version-check", "--no-input")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise PycniError(
            f"pip {arguments[0]} failed",
            details=done.stderr.strip()[-2000:],
            hint="the package index must be reachable; clang compiles the programs",
        )
