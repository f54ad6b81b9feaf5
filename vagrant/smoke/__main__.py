"""`python3 -m smoke`: build what is missing; in a cell bring the lab up, test it, destroy it."""

from __future__ import annotations

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

from smoke import box, cell, leftovers, trees
from smoke.commands import Failed, run

PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pycni" / "box"
WHEELS = PROJECT / "dist" / "wheels"
WORK_PREFIX = "work-"

VAGRANT = {
    "VAGRANT_CHECKPOINT_DISABLE": "1",
    "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    "VAGRANT_HOME": "/root/.vagrant.d",
    "PYCNI_BOX": box.NAME,
}
NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--propagation", "private", "--mount-proc")
LAB = "/pycni/vagrant"
CHOICES = {"validate", "up"}


def main() -> int:
    """Of the whole: 0 if everything passed and nothing is left."""
    choice = sys.argv[1] if len(sys.argv) > 1 else "up"
    if choice in PARTS:
        return PARTS[choice](Path(sys.argv[2]), sys.argv[3])
    if choice not in CHOICES:
        sys.exit(f"usage: python3 -m smoke [{' | '.join(sorted(CHOICES))}]")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    CACHE.mkdir(parents=True, exist_ok=True)
    for stale in CACHE.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(stale)  # of a run that was killed: its processes and mounts ended with it
    before = leftovers.take()
    work = Path(tempfile.mkdtemp(dir=CACHE, prefix=WORK_PREFIX))
    try:
        status = outside(work, choice)
    except KeyboardInterrupt:
        print("smoke: interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    finally:
        shutil.rmtree(work)
    left = leftovers.new_since(before, work)
    for line in left:
        print(f"smoke: left behind: {line}", file=sys.stderr)
    return status or bool(left)


def outside(work: Path, choice: str) -> int:
    """Both parts, each in namespaces that end with it; only the first reaches the network."""
    return part("--build", work, choice) or part("--inside", work, choice, "--net")


def part(name: str, work: Path, choice: str, *namespaces: str) -> int:
    """Run a part of this program as the first process of new namespaces; its exit status."""
    command = (sys.executable, "-m", "smoke", name, str(work), choice)
    process = subprocess.Popen(
        ["unshare", *NAMESPACES, *namespaces, "--fork", "--kill-child", "--", *command],
        env=dict(os.environ) | {"PYTHONPATH": str(PROJECT / "vagrant")},
    )
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def build(_work: Path, choice: str) -> int:
    """Fill the cache."""
    log = CACHE / "build.log"
    log.write_text("")
    try:
        with step("a system with Vagrant and libvirt"):
            tools = trees.tree(CACHE, "tools", cell.TOOLS, log=log)
        if choice == "up":
            with step("a box"):
                box.box(CACHE, tools, PROJECT / "vagrant" / "provision.sh", log=log)
    except Failed as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    return 0


def inside(work: Path, choice: str) -> int:
    log = CACHE / "run.log"
    log.write_text("")
    tools = trees.tree(CACHE, "tools", cell.TOOLS, log=log)
    room = cell.build(tools, work)
    copy_project(room.root / "pycni")
    try:
        if choice == "validate":
            with step("vagrant validate"):
                room.run("vagrant", "validate", directory=LAB, env=VAGRANT)
        else:
            made = box.box(CACHE, tools, PROJECT / "vagrant" / "provision.sh", log=log)
            with cell.libvirt(room, made.boot_files):
                bring_up(room, made, log)
    except (Failed, KeyboardInterrupt) as error:
        print(f"smoke: {error or 'interrupted'}", file=sys.stderr)
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
