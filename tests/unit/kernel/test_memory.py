# SPDX-License-Identifier: Apache-2.0
"""Threads share one pool of memory, and it keeps no large blocks."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
from pycni.kernel import memory
if {share}:
    memory.keep_little()
barrier = threading.Barrier(9)
def work():
    kept = [bytearray(100_000) for _ in range(3)]
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[one.start() for one in threads]
barrier.wait()
pools = sum(1 for line in open("/proc/self/maps") if line.split()[1] == "---p" and
            int(line.split()[0].split("-")[0], 16) > 0x700000000000)
barrier.wait()
print(pools)
"""


def pools(*, share: bool) -> int:
    """Address ranges that are reserved and not used: each pool but the first has one."""
    program = PROGRAM.format(share=share)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


def test_threads_share_a_pool() -> None:
    assert pools(share=True) < pools(share=False)


HOLES = """
from pycni.kernel import memory
if {keep_little}:
    memory.keep_little()
def resident():
    return int(open("/proc/self/statm").read().split()[1])
before = resident()
blocks = [bytearray(b"x" * 100_000) for _ in range(200)]
kept = blocks[::10]
del blocks
print(resident() - before)
"""


def left(*, keep_little: bool) -> int:
    """Pages that stay when nine of ten large blocks are freed."""
    program = HOLES.format(keep_little=keep_little)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


def test_large_blocks_leave_no_holes() -> None:
    assert left(keep_little=True) < left(keep_little=False) / 2
