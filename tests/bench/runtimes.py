# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of the time that BPF programs take, while somebody asks for it.

BPF_ENABLE_STATS counts for as long as its descriptor is open (bpf(2), linux/bpf.h); the sysctl
kernel.bpf_stats_enabled would stay on after a crash. A part of what reading the clock takes is
counted, too: `counting_cost` says how much.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loader import libbpf
from loader.bpf import Program, load_instructions

BPF_STATS_RUN_TIME = 0
RUN_TIME_OFFSET = 192
"""Of run_time_ns in struct bpf_prog_info; run_cnt follows it."""
COUNTERS = struct.Struct("=QQ")


NOTHING = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
"""r0 = 0; exit"""
RUNS = 20_000


def counting_cost() -> float:
    """Nanoseconds that are counted for a run of a program that does nothing: reading the clock."""
    with load_instructions("nothing", NOTHING) as program, _counting():
        before = _counters(program)
        program.test_run(bytes(64), repeat=RUNS)
        nanoseconds, runs = _counters(program)
    return (nanoseconds - before[0]) / (runs - before[1])


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
        close.enter_context(_counting())
        before = {name: _counters(program) for name, program in programs.items()}
        found: dict[str, tuple[int, int]] = {}
        yield found
        for name, program in programs.items():
            nanoseconds, runs = _counters(program)
            found[name] = nanoseconds - before[name][0], runs - before[name][1]


@contextmanager
def _counting() -> Iterator[None]:
    enabled = libbpf.library().bpf_enable_stats(BPF_STATS_RUN_TIME)
    libbpf.check(enabled, "BPF_ENABLE_STATS")
    try:
        yield
    finally:
        os.close(enabled)


def _counters(program: Program) -> tuple[int, int]:
    info = libbpf.info(program.fd, RUN_TIME_OFFSET + COUNTERS.size)
    nanoseconds, runs = COUNTERS.unpack_from(info, RUN_TIME_OFFSET)
    return nanoseconds, runs
