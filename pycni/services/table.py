# SPDX-License-Identifier: Apache-2.0
"""What changes in the maps of Services, so that they become as wanted. Pure.

A service port has an id, and each endpoint of it an index with a generation. Both are kept as long
as the port and the endpoint are there, also over a restart: what is in the maps is read back, and
flows go on. Whoever gets an index after another gets another generation, so that no flow of the
former is taken for one of his.

A range of slots is never changed: a new one is written beside it, then the service names it. What
is no longer named may still be read by a packet that is on its way. So ranges and indices are used
again only after `release` was called twice, a second apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from pycni.dataplane.service_maps import Backend, FrontendKey, ServiceEntry
from pycni.services.endpoints import PortKey
from pycni.services.ranges import FreeRanges, Range
from pycni.services.wanted import End, Use, WantedPort

MARKER = ServiceEntry()
"""The value that says that an address is a Service's."""


@dataclass(frozen=True)
class Room:
    """How many entries the maps have room for."""

    services: int
    slots: int
    backends: int


@dataclass(frozen=True)
class Have:
    """What is in the maps."""

    services: Mapping[FrontendKey, ServiceEntry]
    backends: Mapping[int, Backend]
    """Those that are gone, too: their generations count."""
    slots: Mapping[int, int] = field(default_factory=dict)


@dataclass
class Changes:
    """What to write, in this order: `backends`, `slots`, `services`; then `removed` to delete; then
    `gone` to write."""

    backends: dict[int, Backend] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    services: dict[FrontendKey, ServiceEntry] = field(default_factory=dict)
    removed: dict[FrontendKey, None] = field(default_factory=dict)
    gone: dict[int, Backend] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.backends, self.slots, self.services, self.removed, self.gone))


@dataclass
class _Placed:
    """A service port as it is in the maps."""

    id: int
    entries: dict[FrontendKey, ServiceEntry] = field(default_factory=dict)
    indices: dict[End, int] = field(default_factory=dict)
    slots: tuple[int, ...] = ()
    base: int = 0


@dataclass
class _Retired:
    """What nothing names any more, but a packet on its way may have read."""

    slots: list[Range] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.slots or self.indices)


class ServiceTable:
    """The maps of Services as they were written last."""

    def __init__(self, have: Have, room: Room) -> None:
        self._room = room
        self._backends = dict(have.backends)
        self._ports: dict[PortKey, _Placed] = {}
        self._addresses = Counter(key.address for key in have.services if key.port)
        self._marked = {key.address for key in have.services if not key.port}
        self._touched = set(self._marked)
        """Addresses of which it is to be seen whether they are still Services'."""
        self._found = _found(have)
        """Service ports that the maps have and nobody has claimed yet, by id."""
        self._owners = {
            key: entry.id for key, entry in have.services.items() if entry.id in self._found
        }
        ids = max(self._found, default=0)
        self._ids: Iterator[int] = count(ids + 1)
        self._free_slots = FreeRanges(room.slots, map(_range, self._found.values()))
        used = [(index, 1) for index, one in self._backends.items() if one.service]
        self._free_indices = FreeRanges(room.backends, [(0, 1), *used])
        self._retired, self._resting = _Retired(), _Retired()
        """What was given up since the last `release`, and before that."""
        self._waiting: dict[PortKey, WantedPort] = {}
        self.left_out: dict[PortKey, str] = {}
        """Service ports for which a map has no room, and which."""

    def release(self) -> None:
        """Another second has passed: what was given up before the last call may be used again."""
        for base, length in self._resting.slots:
            self._free_slots.give(base, length)
        for index in self._resting.indices:
            self._free_indices.give(index, 1)
        self._resting, self._retired = self._retired, _Retired()

    @property
    def has_retired(self) -> bool:
        """Whether `release` has something to do."""
        return bool(self._retired or self._resting)

    def plan(self, changed: Mapping[PortKey, WantedPort | None]) -> Changes:
        """What makes the maps be as wanted; from then on they count as written. `changed` has the
        service ports that are not as in the last call; None: gone. The first call is given all:
        what else the maps have goes away."""
        made = Changes()
        for key, wanted in changed.items():
            self.left_out.pop(key, None)
            self._waiting.pop(key, None)
            if wanted is None and key in self._ports:
                self._take_away(self._ports.pop(key), made)
        ones = self._waiting | {key: one for key, one in changed.items() if one is not None}
        for key, one in ones.items():
            self._claim(key, one)
        for number in list(self._found):
            self._take_away(self._found.pop(number), made)
        for key, one in ones.items():
            self._place(key, self._ports[key], one, made)
        self._mark(made)
        return made

    def _claim(self, key: PortKey, one: WantedPort) -> None:
        """Find what the maps have of a service port, by what leads to it."""
        placed = self._ports.get(key)
        for front in one.frontends:
            former = self._found.get(self._owners.get(front, 0))
            if placed is None and former is not None:
                placed = self._found.pop(former.id)
        if placed is None:
            placed = _Placed(next(self._ids))
        self._ports[key] = placed

    def _place(self, key: PortKey, placed: _Placed, one: WantedPort, made: Changes) -> None:
        found = {end: self._index(placed, end) for end in one.ends}
        indices = {end: index for end, index in found.items() if index is not None}
        if len(indices) < len(found) or not self._has_room(placed, one):
            self._leave_out(key, placed, one, indices)
            return
        self.left_out.pop(key, None)
        self._waiting.pop(key, None)
        self._write_backends(placed, one, indices, made)
        slots = tuple(placed.indices[end] for end in one.chosen())
        if slots != placed.slots:
            base = self._free_slots.take(len(slots)) if slots else 0
            assert base is not None, "_has_room saw to it"
            if placed.slots:
                self._retired.slots.append((placed.base, len(placed.slots)))
            placed.base, placed.slots = base, slots
            made.slots |= {base + number: index for number, index in enumerate(slots)}
        self._write_entries(placed, one, made)
        for end in placed.indices.keys() - one.ends.keys():
            self._free(placed.indices.pop(end), made)

    def _index(self, placed: _Placed, end: End) -> int | None:
        return placed.indices.get(end) or self._free_indices.take(1)

    def _has_room(self, placed: _Placed, one: WantedPort) -> bool:
        more = one.frontends.keys() - placed.entries.keys()
        addresses = {key.address for key in more if not self._addresses[key.address]}
        present = len(self._owners) + len(self._addresses)
        if present + len(more) + len(addresses) > self._room.services:
            return False
        slots = len(one.chosen())
        base = self._free_slots.take(slots) if slots else 0
        if base is not None and slots:
            self._free_slots.give(base, slots)
        return base is not None

    def _leave_out(
        self, key: PortKey, placed: _Placed, one: WantedPort, indices: Mapping[End, int]
    ) -> None:
        """It stays as it was, and is tried again."""
        for end in indices.keys() - placed.indices.keys():
            self._free_indices.give(indices[end], 1)
        full = "backends" if len(indices) < len(one.ends) else "services or slots"
        self.left_out[key] = f"there is no room in the map {full}"
        self._waiting[key] = one

    def _write_backends(
        self, placed: _Placed, one: WantedPort, indices: Mapping[End, int], made: Changes
    ) -> None:
        for end, index in indices.items():
            former = self._backends.get(index)
            is_new = end not in placed.indices
            generation = former.generation if former else 0
            backend = _backend(placed.id, end, one.ends[end], generation + is_new)
            if backend != former:
                self._backends[index] = made.backends[index] = backend
        placed.indices |= indices

    def _write_entries(self, placed: _Placed, one: WantedPort, made: Changes) -> None:
        anywhere = one.all_count
        entry = ServiceEntry(
            placed.id,
            placed.base,
            anywhere,
            placed.base + anywhere,
            len(placed.slots) - anywhere,
            one.affinity,
        )
        entries = {key: replace(entry, local=local) for key, local in one.frontends.items()}
        for key in placed.entries.keys() - entries.keys():
            self._remove(key, placed.id, made)
        for key, value in entries.items():
            if placed.entries.get(key) != value or self._owners.get(key) != placed.id:
                made.services[key] = value
                made.removed.pop(key, None)
            if key not in self._owners:
                self._addresses[key.address] += 1
                self._touched.add(key.address)
            self._owners[key] = placed.id
        placed.entries = entries

    def _remove(self, key: FrontendKey, owner: int, made: Changes) -> None:
        """Unless it leads to another service port by now."""
        if self._owners.get(key) != owner:
            return
        del self._owners[key]
        self._addresses[key.address] -= 1
        self._touched.add(key.address)
        made.removed[key] = None

    def _free(self, index: int, made: Changes) -> None:
        """Its flows end at once: they have another generation."""
        former = self._backends[index]
        gone = Backend(former.addr, former.port, generation=former.generation + 1)
        self._backends[index] = made.gone[index] = gone
        made.backends.pop(index, None)
        self._retired.indices.append(index)

    def _take_away(self, placed: _Placed, made: Changes) -> None:
        for key in placed.entries:
            self._remove(key, placed.id, made)
        for index in placed.indices.values():
            self._free(index, made)
        if placed.slots:
            self._retired.slots.append((placed.base, len(placed.slots)))

    def _mark(self, made: Changes) -> None:
        """Say which addresses are Services', after what leads to them is there."""
        gone: dict[FrontendKey, None] = {}
        for address in self._touched:
            if self._addresses[address] > 0:
                if address not in self._marked:
                    made.services[FrontendKey(address)] = MARKER
                self._marked.add(address)
            else:
                del self._addresses[address]
                if address in self._marked:
                    gone[FrontendKey(address)] = None
                self._marked.discard(address)
        made.removed = gone | made.removed
        self._touched.clear()


def _backend(service: int, end: End, use: Use, generation: int) -> Backend:
    return Backend(*end, use.all, use.local, generation, service)


def _range(placed: _Placed) -> Range:
    return placed.base, len(placed.slots)


def _found(have: Have) -> dict[int, _Placed]:
    """The service ports that the maps have, by id."""
    found: dict[int, _Placed] = {}
    for key, entry in have.services.items():
        if not entry.id:
            continue
        one = found.setdefault(entry.id, _Placed(entry.id, base=entry.all_base))
        one.entries[key] = entry
        span = range(entry.all_base, entry.all_base + entry.all_count + entry.local_count)
        one.slots = tuple(have.slots.get(number, 0) for number in span)
    for index, backend in have.backends.items():
        if backend.service:
            placed = found.setdefault(backend.service, _Placed(backend.service))
            placed.indices[backend.addr, backend.port] = index
    return found
