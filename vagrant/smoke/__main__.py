# SPDX-License-Identifier: Apache-2.0
"""`python3 -m smoke`: build what is missing; in a cell bring the lab up, test it, destroy it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from smoke import box, cell, leftovers, namespaces, trees
from smoke.commands import Failed, run

PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pycni" / "box"
PROVISION = PROJECT / "vagrant" / "provision.sh"
WHEELS = PROJECT / "dist" / "wheels"
WORK_PREFIX = "work-"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

VAGRANT = {
    "VAGRANT_CHECKPOINT_DISABLE": "1",
    "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    "VAGRANT_HOME": "/root/.vagrant.d",
    "PYCNI_BOX": box.NAME,
}
LAB = "/pycni/vagrant"
CHOICES = {"validate", "up"}


def main() -> int:
    """Of the whole: 0 if everything passed and nothing is left."""
    choice = sys.argv[1] if len(sys.argv) > 1 else "up"
    if choice in PARTS:
        return PARTS[choice](Path(sys.argv[2]), sys.argv[3])
    if choice not in CHOICES:
        sys.exit(f"usage: python3 -m smoke [{' | '.join(sorted(CHOICES))}]")
    for number in ENDINGS:
        signal.signal(number, _end)
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        with only_one(CACHE):
            return in_a_new_directory(choice)
    except Failed as error:
        sys.exit(f"smoke: {error}")


def in_a_new_directory(choice: str) -> int:
    for stale in CACHE.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(stale)  # of a run that was killed: its processes and mounts ended with it
    before = leftovers.take()
    work = Path(tempfile.mkdtemp(dir=CACHE, prefix=WORK_PREFIX))
    try:
        status = part("--build", work, choice) or part("--inside", work, choice)
    except SystemExit as ended:
        status = int(str(ended.code))
    finally:
        shutil.rmtree(work)
    left = leftovers.new_since(before, work)
    for line in left:
        print(f"smoke: left behind: {line}", file=sys.stderr)
    return status or bool(left)


@contextmanager
def only_one(cache: Path) -> Iterator[None]:
    """Two would build the same trees, and remove each other's files. Raises Failed."""
    with (cache / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Failed(
                f"`make vagrant-smoke` runs already, as process {file.read()}: let it end, or end "
                f"it, or set XDG_CACHE_HOME to another directory than {cache.parents[1]}"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave every block, once: what is being undone is undone to the end."""
    for one in ENDINGS:
        signal.signal(one, signal.SIG_IGN)
    print(f"\nsmoke: {signal.Signals(number).name}: ending", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def part(name: str, work: Path, choice: str) -> int:
    """A part of this program, in namespaces that end with it; only one reaches the network."""
    return namespaces.run(
        *(sys.executable, "-m", "smoke", name, work, choice),
        network=name == "--build",
        env=dict(os.environ) | {"PYTHONPATH": str(PROJECT / "vagrant")},
    )


def build(work: Path, choice: str) -> int:
    """Fill the cache."""
    log = CACHE / "build.log"
    log.write_text("")
    try:
        with step("a system with Vagrant and libvirt"):
            tools = trees.tree(CACHE, "tools", cell.TOOLS, work=work, log=log)
        if choice == "up":
            with step("a box"):
                box.box(CACHE, tools, PROVISION, work=work, log=log)
    except Failed as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    return 0


def inside(work: Path, choice: str) -> int:
    """The lab, in the cell, by what is in the cache."""
    namespaces.adopt()
    log = CACHE / "run.log"
    log.write_text("")
    tools = trees.tree(CACHE, "tools", cell.TOOLS, work=work, log=log)
    room = cell.build(tools, work)
    copy_project(room.root / "pycni")
    try:
        if choice == "validate":
            with step("vagrant validate"):
                room.run("vagrant", "validate", directory=LAB, env=VAGRANT)
        else:
            made = box.box(CACHE, tools, PROVISION, work=work, log=log)
            with cell.libvirt(room, made.boot_files):
                bring_up(room, made, log)
    except Failed as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    return 0


def bring_up(room: cell.Cell, made: box.Box, log: Path) -> None:
    """The lab, from nothing to nothing."""
    shutil.copy(made.archive, room.root / "root")
    with step("vagrant box add"):
        room.run("vagrant", "--no-tty", "box", "add", "--name", box.NAME, f"/root/{box.BOX}",
                 env=VAGRANT, log=log)  # fmt: skip
    with step("vagrant up"):
        room.run("vagrant", "--no-tty", "up", directory=LAB, env=VAGRANT, log=log)
    try:
        print("smoke: make vagrant-test", flush=True)
        test = ["chroot", str(room.root), "env", f"--chdir={LAB}", "python3", "-m", "check"]
        done = subprocess.run(test, env=trees.ENVIRONMENT | VAGRANT, check=False)
    finally:
        with step("vagrant destroy"):
            room.run(
                "vagrant", "--no-tty", "destroy", "--force", directory=LAB, env=VAGRANT, log=log
            )
    domains = room.run("virsh", "--connect", "qemu:///system", "list", "--all", "--name").split()
    if domains:
        raise Failed(f"vagrant destroy left {' '.join(domains)}")
    if done.returncode != 0:
        raise Failed(f"the test ended with {done.returncode}")


def copy_project(target: Path) -> None:
    """What git knows of, as it is now, and the wheels."""
    listed = run("git", "-C", PROJECT, "ls-files", "-z", "--cached", "--others",
                 "--exclude-standard")  # fmt: skip
    for name in listed.split("\0"):
        if name and (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target / name)
    if WHEELS.is_dir():
        shutil.copytree(WHEELS, target / "dist" / "wheels")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    print(f"smoke: {what} ...", end="", flush=True)
    begin = time.monotonic()
    try:
        yield
    finally:
        print(f" {time.monotonic() - begin:.0f} s", flush=True)


PARTS = {"--build": build, "--inside": inside}


if __name__ == "__main__":
    sys.exit(main())
