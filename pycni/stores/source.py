# SPDX-License-Identifier: Apache-2.0
"""What can be followed: a list of things by name, complete at some moment, and then each change.

Pure types. Nodes are followed this way; so will be Services, policies and pods.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Put(Generic[T_co]):
    """This name has this value now. If it was rejected before, it is valid again."""

    name: str
    value: T_co


@dataclass(frozen=True)
class Removed:
    """This name is gone. The next event may give what it had to another name."""

    name: str


@dataclass(frozen=True)
class Rejected:
    """The record of this name is not valid, for this reason. Act as if it were removed.

    The reason completes the sentence "NAME: ...". Name and reason are printable ASCII, whatever
    stands in the store.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Synced:
    """All events up to here hold, together.

    The first Synced ends the list of all that there was: from then on, what was not listed does
    not exist. Each later one ends a batch of changes. In the middle of a batch, something may seem
    to belong to nobody, or to two.
    """


Event = Put[T] | Removed | Rejected | Synced


class Source(Protocol[T_co]):
    """Something that can be followed."""

    def watch(self, stop: threading.Event) -> Iterator[Event[T_co]]:
        """A Put or Rejected for each name, then Synced, then every change, until `stop` is set.

        In a batch, Removed and Rejected come before Put. A bad record never ends the watch. A
        failure to read raises StoreError: watch again, and delete nothing before the next Synced.
        """
        ...
