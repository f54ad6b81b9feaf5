# SPDX-License-Identifier: Apache-2.0
"""What the agent has mended, and what it has given up for a while: kept in a file for `status`.

The same thing undone three times within a minute is a quarrel with somebody. Then the agent stops
mending it, for five minutes at first, and twice as long each time it comes to that again. `pycni
setup` ends all quarrels.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycni.faults import Fault
from pycni.files import remove_file, replace_file
from pycni.settings import Settings

FILE = "upkeep.json"
MINUTE = 60.0
OFTEN = 3
"""Mends of one thing within a MINUTE, after which it is left alone."""
FIRST_REST = 300.0
LONGEST_REST = 6 * 3600.0
"""Seconds."""

Key = tuple[str, str]
"""Part and thing of a fault."""


def key_of(fault: Fault) -> Key:
    """By which a fault is known again, whatever was found."""
    return fault.part, fault.thing


@dataclass(frozen=True)
class Tally:
    """How often something of a part was mended."""

    count: int
    last: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Rest:
    """Something that is left alone."""

    until: float
    """Seconds since the epoch."""
    length: float
    by: str = ""
    """Who undid it last, if that is known."""

    def holds(self, now: float) -> bool:
        """Whether it has begun and has not ended: it never begins late, but clocks are set back."""
        return self.until - self.length <= now < self.until

    @property
    def words(self) -> str:
        """For a table: what happened."""
        who = f", last by {self.by}" if self.by else ""
        return f"undone {OFTEN} times in a minute{who}, so the agent leaves it for now"


@dataclass
class Book:
    """All times are given by the caller, in seconds since the epoch."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    """By part."""
    rests: dict[Key, Rest] = field(default_factory=dict)
    _mends: dict[Key, deque[float]] = field(default_factory=dict)

    def is_resting(self, fault: Fault, *, now: float) -> bool:
        """Whether to leave a fault alone."""
        rest = self.rests.get(key_of(fault))
        return rest is not None and rest.holds(now)

    def is_undone_often(self, fault: Fault, *, now: float) -> bool:
        """Whether a fault that is here again was mended OFTEN within a MINUTE."""
        mends = self._mends.get(key_of(fault), deque())
        return sum(now - MINUTE < when <= now for when in mends) >= OFTEN

    def rest(self, fault: Fault, *, now: float, by: str) -> Rest:
        """Leave something alone from now on."""
        before = self.rests.get(key_of(fault))
        length = FIRST_REST if before is None else min(2 * before.length, LONGEST_REST)
        self._mends.pop(key_of(fault), None)
        self.rests[key_of(fault)] = made = Rest(now + length, length, by)
        return made

    def mended(self, fault: Fault, *, now: float) -> None:
        """Note that a fault is mended."""
        self._mends.setdefault(key_of(fault), deque(maxlen=OFTEN)).append(now)
        before = self.tallies.get(fault.part)
        self.tallies[fault.part] = Tally(1 if before is None else before.count + 1, now)

    def forget_old(self, *, now: float) -> None:
        """Forget quarrels that ended long ago, and things that were mended before."""
        self.rests = {
            key: rest for key, rest in self.rests.items() if now < rest.until + rest.length
        }
        self._mends = {
            key: mends for key, mends in self._mends.items() if abs(now - mends[-1]) < MINUTE
        }

    def forgive(self) -> None:
        """End all quarrels: a person has put things right."""
        self.rests.clear()
        self._mends.clear()

    def save(self, settings: Settings) -> None:
        """Write it for readers. Raises FileError."""
        document = {
            "mended": {part: vars(tally) for part, tally in self.tallies.items()},
            "resting": [
                {"part": part, "thing": thing, **vars(rest)}
                for (part, thing), rest in self.rests.items()
            ],
        }
        replace_file(path_of(settings), json.dumps(document).encode(), durable=False)

    @classmethod
    def load(cls, settings: Settings) -> Book:
        """What an agent has written; an empty book if there is none that can be read."""
        try:
            document: dict[str, Any] = json.loads(path_of(settings).read_bytes())
            return cls(
                {part: Tally(**one) for part, one in document["mended"].items()},
                {
                    (one["part"], one["thing"]): Rest(one["until"], one["length"], one["by"])
                    for one in document["resting"]
                },
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()


def close(settings: Settings) -> None:
    """Remove the file, which tells the agent to end all quarrels. Raises FileError."""
    remove_file(path_of(settings))


def path_of(settings: Settings) -> Path:
    """Where an agent keeps its book; there may be none."""
    return settings.run_dir / FILE
