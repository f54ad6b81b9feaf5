# SPDX-License-Identifier: Apache-2.0
"""Waiting for what happens by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

DEADLINE = 15.0
"""Seconds that something may take which happens by itself."""


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = DEADLINE) -> None:
    """Look until it holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def wait_until_none(look: Callable[[], Collection[str]], *, seconds: float = DEADLINE) -> None:
    """Look until nothing is found; fails after the deadline with what is still found."""
    deadline = time.monotonic() + seconds
    while found := look():
        assert time.monotonic() < deadline, f"still there after {seconds} s: {found}"
        time.sleep(0.02)
