# SPDX-License-Identifier: Apache-2.0
"""Which ranges of an array are free. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

Range = tuple[int, int]
"""The first index, and how many there are."""


class FreeRanges:
    """Those of an array of `size` that `used` leaves."""

    def __init__(self, size: int, used: Iterable[Range] = ()) -> None:
        self._gaps: list[Range] = []
        """In their order, none next to another."""
        end = 0
        for base, count in sorted(used):
            if base > end:
                self._gaps.append((end, base - end))
            end = max(end, base + count)
        if size > end:
            self._gaps.append((end, size - end))

    def take(self, count: int) -> int | None:
        """The first index of a range, from the first gap with room; None if there is none."""
        for number, (base, length) in enumerate(self._gaps):
            if length >= count:
                left = [(base + count, length - count)] if length > count else []
                self._gaps[number : number + 1] = left
                return base
        return None

    def give(self, base: int, count: int) -> None:
        """Take a range back."""
        if not count:
            return
        at = bisect_left(self._gaps, (base, 0))
        if at < len(self._gaps) and self._gaps[at][0] == base + count:
            count += self._gaps.pop(at)[1]
        if at and sum(self._gaps[at - 1]) == base:
            before = self._gaps.pop(at - 1)
            base, count, at = before[0], before[1] + count, at - 1
        self._gaps.insert(at, (base, count))
