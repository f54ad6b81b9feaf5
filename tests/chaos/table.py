# SPDX-License-Identifier: Apache-2.0
"""What a chaos run found, as Markdown tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from statistics import median

from chaos.storm import Wound
from support.asking import Heard


def by_damage(wounds: Iterable[Wound]) -> Iterator[str]:
    """A line for each kind of damage."""
    kinds: dict[str, list[Wound]] = defaultdict(list)
    for wound in wounds:
        kinds[str(wound.damage)].append(wound)
    yield "| damage | times | named after, s | mended after, s | packets lost |"
    yield "|---|---|---|---|---|"
    for name, some in sorted(kinds.items()):
        by_hand = " (by a person)" if some[0].damage.undo else ""
        yield (
            f"| {name}{by_hand} | {len(some)} | {_spread([one.named for one in some])} "
            f"| {_spread([one.mended for one in some])} "
            f"| {median(one.lost for one in some):.0f}, at most {max(one.lost for one in some)} |"
        )


def by_way(heard: Iterable[Heard]) -> Iterator[str]:
    """A line for each way that packets take."""
    ways: dict[str, list[Heard]] = defaultdict(list)
    for one in heard:
        ways[one.flow.way].append(one)
    yield "| way | packets | lost |"
    yield "|---|---|---|"
    for way, some in sorted(ways.items()):
        failed = sum(len(one.failed) for one in some)
        yield f"| {way} | {sum(one.asked for one in some)} | {failed} |"


def _spread(seconds: list[float]) -> str:
    return f"{median(seconds):.2f}, at most {max(seconds):.2f}"
