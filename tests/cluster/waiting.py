# SPDX-License-Identifier: Apache-2.0
"""Waiting for what others do."""

from __future__ import annotations

import time
from collections.abc import Callable

from pycni.errors import PycniError

PAUSE_SECONDS = 0.1


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Look until it holds. Raises PycniError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PycniError(
                f"not within {seconds:g} s: {what}",
                hint="see the logs (python -m cluster logs); on a busy machine, try again",
            )
        time.sleep(PAUSE_SECONDS)


def remaining(look: Callable[[], str], seconds: float, *, pause: float = PAUSE_SECONDS) -> str:
    """What is still wrong after so many seconds; empty as soon as nothing is."""
    deadline = time.monotonic() + seconds
    while (wrong := look()) and time.monotonic() < deadline:
        time.sleep(pause)
    return wrong
