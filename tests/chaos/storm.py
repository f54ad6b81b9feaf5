# SPDX-License-Identifier: Apache-2.0
"""Damages to random nodes at random moments, each watched until it is named and mended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from pycni.cluster import IPNetwork
from pycni.dataplane import maps
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.node.record import Node
from pycni.settings import load
from pycni.upkeep import book
from support.asking import Heard, Traffic
from support.damages import DAMAGES, LOOK, Damage
from support.waiting import wait_until, wait_until_none
from support.wellness import faults

PAUSE = (0.2, 3.0)
"""Seconds between two damages, at least and at most."""
STEP = 0.02
LOG_LINES = 20
"""Of an agent that did not mend in time."""
AFTERMATH = 1.0
"""Seconds after a mend whose losses are the damage's: answers are on their way."""


@dataclass(frozen=True)
class Wound:
    """One damage, as it went. Times in seconds; moments of CLOCK_MONOTONIC."""

    damage: Damage
    node: str
    begin: float
    named: float
    """From its begin until agent or status named it."""
    mended: float
    """From its begin, or if only a person can mend it, from when that was done."""
    end: float
    lost: int = 0
    """Questions without an answer."""


def rage(
    lab: Lab, traffic: Traffic, *, seconds: float, seed: int,
    tell: Callable[[Wound], object] = lambda _: None,
) -> tuple[list[Wound], list[Heard]]:  # fmt: skip
    """Damage after damage until the time is over; each kind comes once before any comes again.

    Ends the traffic. AssertionError if something is not named or not mended in time.
    """
    chance = random.Random(seed)
    wounds: list[Wound] = []
    order = _endless(chance)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(*PAUSE))
        node = chance.choice(lab.layout.nodes)
        damage = next(order)
        try:
            wounds.append(_suffer(lab, node, damage))
        except AssertionError as error:
            end = "".join(node.log_path.read_text().splitlines(keepends=True)[-LOG_LINES:])
            raise AssertionError(f"{error}; the log of {node.name} ends:\n{end}") from error
        tell(wounds[-1])
    heard = traffic.end()
    return [replace(wound, lost=_losses(wound, heard)) for wound in wounds], heard


def strays(wounds: list[Wound], heard: list[Heard]) -> list[tuple[str, float]]:
    """Lost questions that no damage explains: the way, and the moment."""
    return [
        (one.flow.way, moment)
        for one in heard
        for moment in one.failed
        if not any(_is_of(wound, one, moment) for wound in wounds)
    ]


def _endless(chance: random.Random) -> Iterator[Damage]:
    while True:
        yield from chance.sample(DAMAGES, len(DAMAGES))


def _suffer(lab: Lab, node: LabNode, damage: Damage) -> Wound:
    """Do it and wait. A person's `pycni setup` ends quarrels: the same thing may be hurt again."""
    book.close(load(node.settings_path))
    before = _told(node, damage)
    begin = time.monotonic()
    damage.do(lab, node)
    if damage.undo is None:
        wait_until(lambda: _told(node, damage) > before, f"{damage} on {node.name} is mended",
                   seconds=LOOK)  # fmt: skip
        named, since = time.monotonic() - begin, begin
    else:
        wait_until(lambda: any(row.name == damage.part for row in faults(node)),
                   f"{damage} on {node.name} is named", seconds=LOOK)  # fmt: skip
        named = time.monotonic() - begin
        damage.undo(lab, node)
        since = time.monotonic()
    _wait_until_well(node, damage)
    mended = time.monotonic() - since
    _wait_until_known(lab, node)
    end = time.monotonic()
    if damage.tidy is not None:
        damage.tidy(lab, node)
    return Wound(damage, node.name, begin, named, mended, end)


def _wait_until_well(node: LabNode, damage: Damage) -> None:
    try:
        wait_until_none(lambda: [f"{row.name}: {row.cause}" for row in faults(node)], seconds=LOOK)
    except AssertionError as error:
        raise AssertionError(f"{node.name} after {damage}: {error}") from error


def _wait_until_known(lab: Lab, node: LabNode) -> None:
    """A node whose record was gone is well as soon as the store has it again. The others send to it
    once they have heard of that."""
    cidr = Node.load(load(node.settings_path)).pod_cidrs[0]
    for other in lab.layout.nodes:
        if other is not node:
            wait_until(partial(_sends_to, other, cidr), f"{other.name} sends to {node.name}",
                       seconds=LOOK)  # fmt: skip


def _sends_to(node: LabNode, cidr: IPNetwork) -> bool:
    with maps.open_remotes(load(node.settings_path).pin_root) as remotes:
        return remotes.get(cidr) is not None


def _told(node: LabNode, damage: Damage) -> int:
    """Mends that the node's agent has logged. The loop that follows the store may come first to the
    entries of other nodes: it says how many it changed."""
    is_followed = damage.part in ("peers", "node addresses")
    words = (" mended part=", " entries_changed=") if is_followed else (" mended part=",)
    lines = node.log_path.read_text().splitlines()
    return sum(any(word in line for word in words) for line in lines)


def _losses(wound: Wound, heard: list[Heard]) -> int:
    return sum(_is_of(wound, one, moment) for one in heard for moment in one.failed)


def _is_of(wound: Wound, heard: Heard, moment: float) -> bool:
    touched = wound.node in heard.flow.nodes
    return touched and wound.begin - STEP <= moment <= wound.end + AFTERMATH
