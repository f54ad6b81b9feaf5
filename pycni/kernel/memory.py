# SPDX-License-Identifier: Apache-2.0
"""How the C library keeps memory for a process with many threads."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""malloc.h of the GNU C library."""


def give_back() -> None:
    """Return freed memory to the kernel, malloc_trim(3): after work that took much for a moment.

    Another C library may not have it: then nothing happens.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def share_one_arena() -> None:
    """Have all threads allocate from one pool, mallopt(3).

    By default each thread gets a pool of its own, which keeps what the thread has freed. Threads of
    Python take turns anyway. Another C library may not know the parameter: then nothing changes.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)
