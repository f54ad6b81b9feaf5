# SPDX-License-Identifier: Apache-2.0
"""How a check ends: passed, or failed with what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from cluster.scene import Scene
from pycni.errors import PycniError
from pycni.lab.checks import Check

Found = str | None
"""What a check that failed has seen; empty or None if it passed."""
Group = Callable[[Scene], Iterator[Check]]
AnyScene = TypeVar("AnyScene", bound=Scene)


def to_the_end(group: Callable[[AnyScene], Iterator[Check]], scene: AnyScene) -> Iterator[Check]:
    """A group that cannot go on is one failed check."""
    try:
        yield from group(scene)
    except PycniError as error:
        yield Check(group.__name__.replace("_", " "), passed=False, found=words(error))


def one(name: str, check: Callable[[], Found]) -> Check:
    """Run one; what raises PycniError has failed."""
    try:
        found = check()
    except PycniError as error:
        found = words(error)
    return Check(name, passed=not found, found=found or "")


def words(error: PycniError) -> str:
    return "; ".join(part for part in (error.message, error.details) if part)
