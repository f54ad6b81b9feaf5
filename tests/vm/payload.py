# SPDX-License-Identifier: Apache-2.0
"""What guests test: pycni's wheel, installed, and the tests that run inside; a disk, made anew.

guest/       what the host starts there
python/      a virtual environment: the wheel of this tree, and what it and the tests need
tests/       the packet tables; in recorded/ the programs that they run; the conformance suite
plugins/     other CNI plugins of this machine, if it has any
upgrade/     other sources, and a cache that has their objects: guests have no clang
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from loader.compile import compile_programs
from vm.apt import run
from vm.kernels import make_image

HERE = Path(__file__).parent
TESTS = HERE.parent
PROJECT = TESTS.parent
SYSTEM_PYTHON = Path("/usr/bin/python3")
INSIDE = "/pycni"
"""Where guests mount it."""

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = f"{INSIDE}/python/bin/python"
PACKAGES = f"{INSIDE}/python/lib/{VERSION}/site-packages"
TESTS_NEED = ("pytest", "scapy", "hypothesis")
PLUGINS = Path("/usr/lib/cni")
"""Of the package containernetworking-plugins."""
UNCOMPILED = shutil.ignore_patterns("__pycache__")
CHANGE = "/* a change */\n"
"""What makes other programs of the same sources: their names have a hash of them."""


def build(directory: Path) -> Path:
    """The image, made in `directory`, which should be empty. Raises ArchiveError."""
    tree = directory / "payload"
    shutil.copytree(HERE / "guest", tree / "guest")
    make_environment(tree / "python", directory / "wheel", also=TESTS_NEED)
    _tests(tree / "tests")
    _upgrade(tree / "upgrade")
    image = directory / "payload.img"
    make_image(image, tree, spare=4 << 20)
    return image


def make_environment(target: Path, scratch: Path, *, also: tuple[str, ...] = ()) -> None:
    """pycni's wheel and what it needs, and the packages `also`, of those that are installed here.

    As `python3 -m venv` makes it, and pip fills it, for another machine and without network.
    `scratch` gets the wheel, and must not be there. Raises ArchiveError.
    """
    site = target / "lib" / VERSION / "site-packages"
    site.mkdir(parents=True)
    (target / "bin").mkdir()
    (target / "bin" / "python").symlink_to(SYSTEM_PYTHON)
    (target / "pyvenv.cfg").write_text(f"home = {SYSTEM_PYTHON.parent}\n")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}  # what pip leaves there if it is killed
    run([*command, "--wheel-dir", scratch, PROJECT], cwd=PROJECT, env=environment)
    (wheel,) = scratch.glob("pycni-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    source = Path(sysconfig.get_path("purelib"))
    for needed in _closure(("pycni", *also)):
        for file in needed.files or ():
            there = Path(str(needed.locate_file(file)))
            if there.is_relative_to(source) and there.exists():
                copy = site / there.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(there, copy)  # compiled files hold by their sources' times
    run([sys.executable, "-m", "compileall", "-q", "pycni", "loader"], cwd=site)


def _closure(names: tuple[str, ...]) -> Iterator[Distribution]:
    """What packages need here, of the installed ones, without themselves being pycni."""
    waiting, seen = list(names), set(names)
    while waiting:
        name = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # needed on other systems only
            continue
        if name != "pycni":
            yield found
        for requirement in map(Requirement, found.requires or ()):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and requirement.name not in seen:
                seen.add(requirement.name)
                waiting.append(requirement.name)


def _tests(target: Path) -> None:
    for directory in ("bpf", "conformance", "support"):
        shutil.copytree(TESTS / directory, target / directory, ignore=UNCOMPILED)
    if PLUGINS.is_dir():
        shutil.copytree(PLUGINS, target.parent / "plugins")
    shutil.copy(TESTS / "conftest.py", target)
    shutil.copy(PROJECT / "pyproject.toml", target)
    run(
        [sys.executable, "-m", "bpf.compile_recorded", target / "recorded"],
        cwd=TESTS,
    )


def _upgrade(target: Path) -> None:
    shutil.copytree(PROJECT / "bpf", target / "bpf")
    with (target / "bpf" / "from_container.c").open("a") as source:
        source.write(CHANGE)
    compile_programs(target / "cache", sources=target / "bpf", prebuilt=None)
    shutil.copy(TESTS / "support" / "setup_from.py", target)
