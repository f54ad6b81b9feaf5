# SPDX-License-Identifier: Apache-2.0
"""What proc(5) says of processes, as this process sees them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pycni.lab.processes import Kept, start_time


def kept(pid: int) -> Kept:
    """A process by its number and start."""
    return Kept(pid, start_time(pid) or 0)


def first_child(pid: int) -> int | None:
    """The process that a process of one thread started first (proc(5), children)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def parent(pid: int) -> Kept | None:
    """The parent of a process; None if there is no such process (proc(5), stat, field 4)."""
    with suppress(OSError):
        return kept(int(_fields(pid)[1]))
    return None


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process, all its threads (proc(5), stat, field 3)."""
    with suppress(OSError):
        return _fields(pid)[0] == "T"
    return False


def _fields(pid: int) -> list[str]:
    """Of proc(5), stat, from the third on: the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def pid_namespace(pid: int) -> str:
    """The kernel's name of a process' PID namespace; empty if there is no such process."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return ""


def words(pid: int) -> list[str]:
    """Its command line; empty for a thread of the kernel, and if there is no such process."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return line.decode(errors="replace").split("\0")[:-1]


def control_groups(pid: int) -> str:
    """Where it is, a line for each hierarchy; empty if there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cgroup").read_text()
    return ""


def everybody() -> list[int]:
    """The numbers of all processes."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def is_first(pid: int) -> bool:
    """Whether it is the first process of a PID namespace other than ours."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) > 1 and numbers[-1] == "1"
    return False
