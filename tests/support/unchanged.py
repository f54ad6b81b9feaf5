# SPDX-License-Identifier: Apache-2.0
"""That a node is after a test what it was before."""

from __future__ import annotations

from collections.abc import Callable

from pycni.lab.layout import LabNode
from support import snapshot
from support.waiting import wait_until

MOVING = ("neighbours", "sysctls")
"""Sections of a snapshot that change while packets flow, or that say what `links` says."""

SOON = 5.0
"""Seconds within which the kernel and the agent clear what nobody deleted."""


def since_now(node: LabNode) -> Callable[[], None]:
    """A function that asserts that the node is as it is now, or will be at once."""
    before = snapshot.take(node)

    def check() -> None:
        found: list[str] = []

        def as_before() -> bool:
            found[:] = snapshot.differences(before, snapshot.take(node), without=MOVING)
            return not found

        try:
            wait_until(as_before, "the node is as it was", seconds=SOON)
        except AssertionError:
            raise AssertionError("\n".join(found)) from None

    return check
