# SPDX-License-Identifier: Apache-2.0
"""Asking for the paths to thousands of nodes, without a kernel."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, cast

from pycni.kernel.fib import ASKED, ask_paths

SOURCE = ip_address("192.0.2.1")


class Asker:
    """A kernel without routes."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def requests(self, _kind: int, _flags: int, bodies: list[bytes]) -> list[bytes | None]:
        self.asked.append(len(bodies))
        return [None] * len(bodies)


def test_of_thousands_of_paths_some_are_asked_for_at_a_time() -> None:
    asker = Asker()
    nodes = [SOURCE + number for number in range(1, 2 * ASKED + 2)]
    assert ask_paths(cast("Any", asker), nodes, SOURCE) == {}
    assert asker.asked == [ASKED, ASKED, 1]
