# SPDX-License-Identifier: Apache-2.0
"""What this process knows of its own NodeNetwork, so that a heartbeat asks seldom.

The watch tells when the object changed or went; without that it is read every CHECK seconds.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from pycni.stores.kube import objects
from pycni.stores.kube.objects import RIVAL, Document
from pycni.stores.records import printable
from pycni.stores.registry import Rival

CHECK = 300.0
"""Seconds between two looks at the own object, give or take a fifth by chance."""
RIVAL_LASTS = 900.0
"""Seconds after which a machine that gave no sign again is no rival any more."""
NOTE_MAX = 400
"""Characters of a note that is read; pycni writes less."""


@dataclass
class Own:
    """One node that this process gives heartbeats of."""

    due_at: float = 0.0
    """When to look next."""
    in_doubt: bool = True
    """The watch told of it."""
    rival: Rival | None = None
    spec: Document = field(default_factory=dict)
    """As it was last seen; empty: never."""

    def is_due(self, now: float) -> bool:
        """Also when the clock was set back."""
        return self.in_doubt or not self.due_at - 2 * CHECK < now < self.due_at

    def looked(self, now: float) -> None:
        self.due_at = now + CHECK * random.uniform(0.8, 1.2)


_owns: dict[tuple[str, str, str], Own] = {}
_lock = threading.Lock()


def own_of(where: str, name: str, instance: str) -> Own:
    """What is known of a node in the cluster that `where` names."""
    with _lock:
        return _owns.setdefault((where, name, instance), Own())


def doubt(where: str, names: Iterable[str]) -> None:
    """Say that these objects changed or went."""
    changed = set(names)
    with _lock:
        for (place, name, _), own in _owns.items():
            if place == where and name in changed:
                own.in_doubt = True


def note(rival: Rival, now: float) -> str:
    """The value of the annotation that names a rival."""
    return json.dumps({"instance": rival.instance, "vtep": rival.vtep, "seen": int(now)})


def has_note(document: Document, rival: Rival, now: float) -> bool:
    """Whether an object names this rival, and will for a while."""
    noted = read_note(document, now + RIVAL_LASTS / 2)
    return noted is not None and noted.instance == rival.instance


def read_note(document: Document, now: float) -> Rival | None:
    """The rival that an object names; None where there is none, or it is long ago."""
    notes = objects.fields(objects.metadata(document).get("annotations"))
    text = objects.text(notes, RIVAL)
    found = objects.decode(text) if text and len(text) <= NOTE_MAX else None
    if found is None:
        return None
    seen = found.get("seen")
    if not isinstance(seen, int) or not abs(now - seen) < RIVAL_LASTS:
        return None
    return Rival(*(printable(objects.text(found, field)) for field in ("instance", "vtep")))
