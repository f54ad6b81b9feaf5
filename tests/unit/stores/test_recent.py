# SPDX-License-Identifier: Apache-2.0
"""pycni/stores/recent.py: what was read is given once, while it is fresh."""

from __future__ import annotations

from pycni.stores.recent import LASTS, Recent


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_is_kept_is_given_once() -> None:
    recent = Recent[str](Clock())

    assert recent.take() is None
    assert recent.keep("list") == "list"
    assert [recent.take(), recent.take()] == ["list", None]


def test_what_is_kept_last_counts() -> None:
    recent = Recent[str](Clock())
    recent.keep("old")
    recent.keep("new")

    assert [recent.take(), recent.take()] == ["new", None]


def test_what_is_old_is_not_given() -> None:
    clock = Clock()
    recent = Recent[str](clock)
    recent.keep("list")
    clock.now += LASTS + 1

    assert recent.take() is None
