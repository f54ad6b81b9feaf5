# SPDX-License-Identifier: Apache-2.0
"""The measurements. Whoever is compared takes turns, in an order that turns too, so that what else
the machine does meanwhile falls on all of them alike; ratios are taken within a round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from bench.calls import Command, seconds
from bench.nodes import Contender, Field
from bench.table import DIFFERENCE, RATIO, VALUE, Measurement, Target

INTERPRETER = Command(("/usr/bin/python3", "-I", "-S", "-c", "pass"))

AT_ONCE = 50
"""Pods of one burst."""
FEW, MANY = 10, 250
"""The pods of which an ADD's cost is compared: the tenth and the last."""

Series = dict[str, list[float]]
T = TypeVar("T")


def one_by_one(field: Field, rounds: int, *, label: str) -> Iterator[Measurement]:
    """ADD and DEL of one pod."""
    adds, deletes = _series(field.rivals), _series(field.rivals)
    for number in range(rounds):
        for one in turned(field.rivals, number):
            container = f"one{number}"
            pod = number % len(one.pods)
            adds[one.name].append(_milliseconds(one, [one.add(pod, container)]))
            deletes[one.name].append(_milliseconds(one, [one.delete(pod, container)]))
    yield Measurement(f"ADD, {label}", "ms", adds, "ptp", Target(RATIO, 1.0))
    yield Measurement(f"DEL, {label}", "ms", deletes, "ptp", Target(RATIO, 0.5))


def at_once(field: Field, rounds: int, *, label: str) -> Iterator[Measurement]:
    """AT_ONCE pods at once, until the last is attached, and detached."""
    adds, deletes = _series(field.rivals), _series(field.rivals)
    for number in range(rounds):
        for one in turned(field.rivals, number):
            names = [f"burst{number}-{pod}" for pod in range(AT_ONCE)]
            adds[one.name].append(_milliseconds(one, [*map(one.add, range(AT_ONCE), names)]))
            deletes[one.name].append(_milliseconds(one, [*map(one.delete, range(AT_ONCE), names)]))
    title = f"{AT_ONCE} at once, {label}"
    yield Measurement(f"ADD, {title}", "ms", adds, "ptp", Target(RATIO, 1.0))
    yield Measurement(f"DEL, {title}", "ms", deletes, "ptp")


def without_work(field: Field, rounds: int) -> Iterator[Measurement]:
    """VERSION, which asks nobody, beside an interpreter that does nothing at all."""
    commands = {"pycni": field.pycni.version(), "python3 -ISc pass": INTERPRETER}
    commands["ptp"] = field.ptp.version()
    took: Series = {name: [] for name in commands}
    for number in range(rounds):
        for name in turned(list(commands), number):
            took[name].append(1000 * seconds(field.pycni.node.netns, [commands[name]]))
    yield Measurement("VERSION", "ms", took, "python3 -ISc pass", Target(DIFFERENCE, 3.0))


def growth(field: Field, rounds: int) -> Iterator[Measurement]:
    """ADD and DEL of the tenth pod of a node and of the last, on two nodes that are alike."""
    for one, pods in ((field.pycni, FEW), (field.crowded, MANY)):
        for pod in range(pods - 1):
            _milliseconds(one, [one.add(pod, f"staying{pod}")])
    yield Measurement("agent's memory, 250 pods", "MB", _memory(field), None, Target(VALUE, 64.0))
    places = {f"pod {FEW}": (field.pycni, FEW - 1), f"pod {MANY}": (field.crowded, MANY - 1)}
    adds: Series = {name: [] for name in places}
    deletes: Series = {name: [] for name in places}
    for number in range(rounds):
        for name in turned(list(places), number):
            one, pod = places[name]
            container = f"last{number}"
            adds[name].append(_milliseconds(one, [one.add(pod, container)]))
            deletes[name].append(_milliseconds(one, [one.delete(pod, container)]))
    target = Target(RATIO, 1.2)
    yield Measurement("ADD, growth", "ms", adds, f"pod {FEW}", target, judged=f"pod {MANY}")
    yield Measurement("DEL, growth", "ms", deletes, f"pod {FEW}", judged=f"pod {MANY}")


def _memory(field: Field) -> Series:
    """Resident memory of the crowded node's agent, and of it what no other process can share."""
    text = Path(f"/proc/{field.agents['crowded']}/status").read_text()
    found = dict(line.split(":", 1) for line in text.splitlines())
    parts = {"pycni": "VmRSS", "of it anonymous": "RssAnon"}
    return {name: [int(found[key].split()[0]) / 1024] for name, key in parts.items()}


def _milliseconds(one: Contender, commands: Sequence[Command]) -> float:
    return 1000 * seconds(one.node.netns, commands)


def _series(rivals: Sequence[Contender]) -> Series:
    return {one.name: [] for one in rivals}


def turned(items: Sequence[T], number: int) -> list[T]:
    """The items in an order that is another in each round, and begins with each in turn."""
    at = number % len(items)
    return [*items[at:], *items[:at]]
