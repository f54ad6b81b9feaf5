# SPDX-License-Identifier: Apache-2.0
"""The maps of Services in memory, written as an agent does."""

from __future__ import annotations

from dataclasses import dataclass, field

from pycni.dataplane.service_maps import Backend, FrontendKey, ServiceEntry
from pycni.services.table import Changes, Have
from pycni.services.wanted import End


@dataclass
class Maps:
    """The maps, written step by step; each step is checked as a packet would meet it."""

    services: dict[FrontendKey, ServiceEntry] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    backends: dict[int, Backend] = field(default_factory=dict)
    history: set[tuple[int, int, object]] = field(default_factory=set)
    """Index, generation and endpoint: one generation is of one endpoint only (S-088, S-164)."""

    def write(self, made: Changes) -> None:
        for index, backend in made.backends.items():
            self.backends[index] = backend
            self.check()
        for index, slot in made.slots.items():
            assert index not in self.named(), "a range in use is never changed (S-163)"
            self.slots[index] = slot
        for key, entry in made.services.items():
            self.services[key] = entry
            self.check()
        for key in made.removed:
            del self.services[key]
            self.check()
        for index, backend in made.gone.items():
            self.backends[index] = backend
            self.check()

    def named(self) -> set[int]:
        return {
            number
            for entry in self.services.values()
            for number in range(
                entry.all_base, entry.all_base + entry.all_count + entry.local_count
            )
        }

    def chosen(self, key: FrontendKey, *, local: bool = False) -> set[End]:
        entry = self.services[key]
        base, size = (
            (entry.local_base, entry.local_count) if local else (entry.all_base, entry.all_count)
        )
        found = [self.backends[self.slots[number]] for number in range(base, base + size)]
        return {(one.addr, one.port) for one in found}

    def check(self) -> None:
        """Whoever is named is an endpoint of that service port (S-165)."""
        for entry in self.services.values():
            for number in range(entry.all_base, entry.all_base + entry.all_count):
                assert self.backends[self.slots[number]].service == entry.id
        for index, one in self.backends.items():
            assert index > 0, "0 means: no endpoint"
            if one.service:
                self.history.add((index, one.generation, (one.service, one.addr, one.port)))
        assert len({key[:2] for key in self.history}) == len(self.history)

    def have(self) -> Have:
        return Have(dict(self.services), dict(self.backends), dict(self.slots))
