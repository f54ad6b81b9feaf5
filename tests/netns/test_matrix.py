# SPDX-License-Identifier: Apache-2.0
"""Pod to pod over nodes, in every combination of what makes a difference there: the bytes arrive,
all of them, once, and their checksums are right.

PYCNI_MATRIX=whole runs all cells (`make test-matrix`), otherwise a cut that has each value of each
dimension.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from pycni.lab.cluster import Lab
from support.matrix import (
    FAMILIES,
    OFFLOADS,
    UNDERLAY_MTU,
    WAYS,
    Surroundings,
    choose_offloads,
    choose_way,
    exchange,
    overlay_counted,
    plan,
    surrounded,
)

WHOLE = [
    (Surroundings(underlay, mtu), way, offload)
    for underlay in FAMILIES
    for mtu in UNDERLAY_MTU
    for way in WAYS
    for offload in OFFLOADS
]
CUT = [
    (Surroundings(4, 1500), ("ebpf", "ebpf"), "on"),
    (Surroundings(4, 1500), ("ebpf", "ebpf"), "off"),
    (Surroundings(4, 1500), ("ebpf", "ebpf"), "simple NIC"),
    (Surroundings(4, 1500), ("kernel", "ebpf"), "simple NIC"),
    (Surroundings(6, 9000), ("ebpf", "ebpf"), "simple NIC"),
    (Surroundings(6, 1280), ("ebpf", "kernel"), "simple NIC"),
]
CELLS = WHOLE if os.environ.get("PYCNI_MATRIX") == "whole" else CUT


class Stage:
    """The lab in use: kept from cell to cell while it fits."""

    def __init__(self) -> None:
        self._lab = ExitStack()
        self._surroundings: Surroundings | None = None
        self._way: tuple[str, str] | None = None
        self._made: Lab | None = None

    def set(self, surroundings: Surroundings, way: tuple[str, str]) -> Lab:
        if self._made is None or surroundings != self._surroundings:
            self.close()
            self._made = self._lab.enter_context(surrounded(surroundings))
            self._surroundings = surroundings
        if way != self._way:
            choose_way(self._made, way)
            self._way = way
        return self._made

    def close(self) -> None:
        self._made = self._way = None
        self._lab.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with closing(Stage()) as made:
        yield made


@pytest.mark.parametrize(
    ("surroundings", "way", "offload"),
    [pytest.param(s, w, o, id=f"{s}, {'-'.join(w)}, offloads {o}") for s, w, o in CELLS],
)
def test_what_is_sent_arrives(
    stage: Stage, surroundings: Surroundings, way: tuple[str, str], offload: str
) -> None:
    lab = stage.set(surroundings, way)
    choose_offloads(lab, offload)
    for family in FAMILIES:
        rows = plan(family, surroundings.overlay_mtu)
        with overlay_counted(lab) as through_devices:
            done = exchange(lab, family, rows)
            sent, received = through_devices()

        assert done.came == done.sent, f"IPv{family} pods"
        assert done.bad == []
        if offload == "off":
            assert done.checked > len(done.sent)
        # that the cell is what it says: next to nothing is refused by the programs
        if way[0] == "ebpf":
            assert sent < len(rows) / 10
        else:
            assert sent > len(rows)
        if way[1] == "ebpf":
            segments = sum(kind == "segments" for kind, _, _ in rows)
            assert received <= sent + (segments if offload == "on" else 0) + len(rows) / 10
        else:
            assert received > len(rows)
