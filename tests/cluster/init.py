# SPDX-License-Identifier: Apache-2.0
"""`init.py DIRECTORY NAME PAUSE`: the first process of a machine, in namespaces of its own.

Gives the machine its host name and its mounts, and becomes the program PAUSE. The standard library
only: it runs outside of any environment.

/run and /var/lib are empty, and in memory: images are there in seconds, and gone at once. /var/log
and /opt are the machine's own; /etc is this computer's, and what the machine writes there is its
own (an overlay).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OWN = {"log": "/var/log", "opt": "/opt"}
IN_MEMORY = ("/run", "/var/lib")
PARAMETERS = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
"""What kubelet writes into parameters of the whole computer, unless they have these values. Files
with the values take their places, so it finds them, and writes none."""


BARE_PROC = "proc"
"""A directory with a /proc that nothing stands in: without one, the kernel lets no user namespace
mount a /proc of its own (mount_too_revealing, fs/namespace.c), as pods with `hostUsers: false`
do."""


def prepare(directory: Path) -> None:
    """The directories and files that are mounted."""
    for name in (*OWN, "etc", "etc-work", "parameters", BARE_PROC):
        (directory / name).mkdir(exist_ok=True)
    for parameter, value in PARAMETERS.items():
        _stand_in(directory, parameter).write_text(f"{value}\n")


def mounts(directory: Path) -> Iterator[list[str]]:
    """The commands in their order."""
    for target in IN_MEMORY:
        yield ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", target]
    for name, target in OWN.items():
        yield ["mount", "--bind", str(directory / name), target]
    layers = f"lowerdir=/etc,upperdir={directory}/etc,workdir={directory}/etc-work"
    yield ["mount", "-t", "overlay", "-o", layers, "overlay", "/etc"]
    yield ["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]
    yield ["mount", "-t", "proc", "proc", str(directory / BARE_PROC)]
    for parameter in PARAMETERS:
        yield ["mount", "--bind", str(_stand_in(directory, parameter)), f"/proc/sys/{parameter}"]
    yield ["mount", "--make-rshared", "/"]


def below_run(table: str) -> list[str]:
    """Mount points below /run in a table of mounts (proc(5)), the last mounted first.

    A copy of a mounted namespace, which every new mount namespace has, would keep that alive.
    """
    points = [line.split()[1] for line in table.splitlines()]
    return [point for point in reversed(points) if point.startswith("/run/")]


def _stand_in(directory: Path, parameter: str) -> Path:
    return directory / "parameters" / parameter.replace("/", ".")


def main(directory: Path, name: str, pause: str) -> None:
    socket.sethostname(name)
    prepare(directory)
    for point in filter(os.path.ismount, below_run(Path("/proc/mounts").read_text())):
        # what another mount hides cannot be reached, and goes with this machine
        subprocess.run(["umount", "--lazy", point], check=True)
    for command in mounts(directory):
        subprocess.run(command, check=True)
    for needed in ("netns", "lock"):
        Path("/run", needed).mkdir()
    if not os.access(pause, os.X_OK):
        sys.exit(f"there is no program {pause} in the machine")
    (directory / "ready").touch()
    os.execv(pause, [f"pycni-cluster: {name}"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
