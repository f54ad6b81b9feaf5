# SPDX-License-Identifier: Apache-2.0
"""How the C library keeps memory for a process with many threads."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""malloc.h of the GNU C library."""
LARGE = 64 << 10
"""Bytes from which on a block is given back when it is freed."""


def give_back() -> None:
    """Return freed memory to the kernel, malloc_trim(3): after work that took much for a moment.

    Another C library may not have it: then nothing happens.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def keep_little() -> None:
    """Have all threads allocate from one pool, and large blocks from none, mallopt(3).

    By default each thread gets a pool of its own, which keeps what the thread has freed. Threads of
    Python take turns anyway. Large blocks, such as answers with thousands of nodes, leave holes in
    a pool. Another C library may not know the parameters: then nothing changes.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
