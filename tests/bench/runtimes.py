"""What the kernel says of the time that BPF programs take, while somebody asks for it.

BPF_ENABLE_STATS counts for as long as its descriptor is open (bpf(2), linux/bpf.h); the sysctl
kernel.bpf_stats_enabled would stay on after a crash. Counting costs each run a few ns of its own.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loader import libbpf
from loader.bpf import Program

BPF_STATS_RUN_TIME = 0
RUN_TIME_OFFSET = 192
"""Of run_time_ns in struct bpf_prog_info; run_cnt follows it."""
COUNTERS = struct.Struct("=QQ")


@contextmanager
def counted(directories: Mapping[str, Path]) -> Iterator[dict[str, tuple[int, int]]]:
    """Count the runs of pinned programs during the `with`.

    `directories`: label to a directory of pins. Filled at the end: "label/program" to nanoseconds
    and runs.
    """
    with ExitStack() as close:
        programs = {
            f"{label}/{pin.name}": close.enter_context(Program.open_pinned(pin))
            for label, directory in directories.items()
            for pin in directory.iterdir()
        }
        enabled = libbpf.library().bpf_enable_stats(BPF_STATS_RUN_TIME)
        close.callback(os.close, libbpf.check(enabled, "BPF_ENABLE_STATS"))
        before = {name: _counters(program) for name, program in programs.items()}
        found: dict[str, tuple[int, int]] = {}
        yield found
        for name, program in programs.items():
            nanoseconds, runs = _counters(program)
            found[name] = nanoseconds - before[name][0], runs - before[name][1]


def _counters(program: Program) -> tuple[int, int]:
    info = libbpf.info(program.fd, RUN_TIME_OFFSET + COUNTERS.size)
    nanoseconds, runs = COUNTERS.unpack_from(info, RUN_TIME_OFFSET)
    return nanoseconds, runs
