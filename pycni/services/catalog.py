# SPDX-License-Identifier: Apache-2.0
"""All Services and EndpointSlices that were heard of, and what changed of them. Pure.

Only what a change concerns is decided again: the endpoints of one Service, when a slice of it
changes; all addresses, when a Service does, since two may claim one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pycni.cluster import IPAddress
from pycni.services.announced import Choice, announced
from pycni.services.endpoints import Endpoint, Part, PortKey, merge, read_slice
from pycni.services.frontends import Frontend, Kind, Owned, frontends
from pycni.services.objects import EndpointSlice, Objects, Service, SetAside
from pycni.services.overview import untranslatable
from pycni.services.selection import Place, select
from pycni.services.wanted import NO_ENDPOINT, WantedPort, wanted

News = Mapping[str, Objects | None]
"""Objects of one kind by namespace and name, each as `read_one` understood it; None: deleted."""
NOTHING = Objects()
NO_CHOICE = Choice()


class Catalog:
    """As the node at `place` sees it. `owned` as in `frontends`; `choice` may be announced."""

    def __init__(self, place: Place, owned: Owned, choice: Choice = NO_CHOICE) -> None:
        self._place = place
        self._owned = owned
        self._choice = choice
        self._services: dict[str, Service] = {}
        self._slices: dict[str, Part] = {}
        self._of_service: defaultdict[str, dict[str, Part]] = defaultdict(dict)
        self._fronts: dict[PortKey, tuple[Frontend, ...]] = {}
        self._announceable: tuple[Frontend, ...] = ()
        self._endpoints: dict[str, dict[PortKey, tuple[Endpoint, ...]]] = {}
        self._told: dict[PortKey, WantedPort] = {}
        self._dirty: set[str] = set()
        """Services whose endpoints changed."""
        self._is_dirty = True
        """Whether a Service changed, or who has addresses."""
        self._has_moved = False
        """Whether the node is in another zone."""
        self._unread: dict[str, SetAside] = {}
        """By kind and name."""
        self._refused: list[SetAside] = []

    @property
    def frontends(self) -> int:
        """How many addresses and ports lead to Services."""
        return sum(map(len, self._fronts.values()))

    @property
    def set_aside(self) -> list[SetAside]:
        """What is not used, and why, as of the last `changes`."""
        unfit = (one for part in self._slices.values() for one in part.set_aside)
        return [*self._unread.values(), *self._refused, *unfit, *self._untranslatable()]

    @property
    def announced(self) -> frozenset[IPAddress]:
        """The addresses that routers are to be told of, as of the last `changes`."""
        return announced(
            self._announceable,
            lambda key: self._endpoints.get(key.service, {}).get(key, ()),
            self._place.node,
        )

    def change(self, kind: str, news: News) -> None:
        """Some objects of a kind are like this now."""
        for name, told in news.items():
            found = told or NOTHING
            self._unread.pop(f"{kind} {name}", None)
            for one in found.set_aside:
                self._unread[f"{kind} {name}"] = one
            if kind == "Service":
                self._put_service(name, next(iter(found.services), None))
            else:
                self._put_slice(name, next(iter(found.slices), None))

    def retain(self, kind: str, names: Iterable[str]) -> None:
        """The list of a kind is complete: there are no others."""
        known = self._services if kind == "Service" else self._slices
        unread = {one.removeprefix(f"{kind} ") for one in self._unread if one.startswith(kind)}
        self.change(kind, dict.fromkeys((known.keys() | unread) - set(names)))

    def owners_changed(self) -> None:
        """`owned` has other answers: all addresses are decided again."""
        self._is_dirty = True

    def change_zone(self, zone: str) -> bool:
        """The node is in another zone: all endpoints are chosen again. Whether it is another."""
        if zone == self._place.zone:
            return False
        self._place = replace(self._place, zone=zone)
        self._has_moved = True
        return True

    @property
    def asks_for_zones(self) -> bool:
        """Whether any endpoint has a hint for zones."""
        ports = (ports for ones in self._endpoints.values() for ports in ones.values())
        return any(one.zones for ones in ports for one in ones)

    def all(self) -> dict[PortKey, WantedPort | None]:
        """All service ports as of the last `changes`."""
        return dict(self._told)

    def changes(self) -> dict[PortKey, WantedPort | None]:
        """The service ports that are not as in the last call; None: gone."""
        dirty = {name: self._collect(name) for name in self._dirty}
        keys = {key for before, after in dirty.values() for key in before | after}
        if self._is_dirty:
            before = self._fronts
            self._fronts = self._all_frontends()
            keys |= {
                key
                for key in before.keys() | self._fronts.keys()
                if before.get(key) != self._fronts.get(key)
            }
        if self._has_moved:
            keys |= self._told.keys()
        self._dirty, self._is_dirty, self._has_moved = set(), False, False
        made: dict[PortKey, WantedPort | None] = {}
        for key in keys:
            one = self._wanted(key)
            if one == self._told.get(key):
                continue
            made[key] = one
            if one is None:
                del self._told[key]
            else:
                self._told[key] = one
        return made

    def _put_service(self, name: str, one: Service | None) -> None:
        if one != self._services.get(name):
            self._is_dirty = True
        if one is None:
            self._services.pop(name, None)
        else:
            self._services[name] = one

    def _put_slice(self, name: str, one: EndpointSlice | None) -> None:
        before, part = self._slices.pop(name, None), read_slice(one) if one else None
        if before is not None:
            self._of_service[before.service].pop(name, None)
        if part is not None:
            self._slices[name] = self._of_service[part.service][name] = part
        if part != before:
            self._dirty |= {each.service for each in (before, part) if each is not None}

    def _collect(self, service: str) -> tuple[set[PortKey], set[PortKey]]:
        """Decide the endpoints of a Service; its service ports before and after."""
        before = self._endpoints.pop(service, {})
        found = merge(self._of_service[service].values(), self._place.node)
        if found:
            self._endpoints[service] = found
        if not self._of_service[service]:
            del self._of_service[service]
        return set(before), set(found)

    def _all_frontends(self) -> dict[PortKey, tuple[Frontend, ...]]:
        found, self._refused = frontends(
            self._services.values(), external_ips=True, owned=self._owned
        )
        self._announceable = tuple(self._choice.of(found))
        made: defaultdict[PortKey, list[Frontend]] = defaultdict(list)
        for one in found:
            if one.kind is Kind.CLUSTER_IP:
                made[one.target].append(one)
        return {key: tuple(ones) for key, ones in made.items()}

    def _wanted(self, key: PortKey) -> WantedPort | None:
        endpoints = self._endpoints.get(key.service, {}).get(key, ())
        chosen = select(endpoints, self._place) if endpoints else NO_ENDPOINT
        return wanted(self._fronts.get(key, ()), endpoints, chosen)

    def _untranslatable(self) -> Iterable[SetAside]:
        sctp = [one for ones in self._fronts.values() for one in ones if one.protocol == "SCTP"]
        endpoints = {
            one.target: self._endpoints.get(one.target.service, {}).get(one.target, ())
            for one in sctp
        }
        return untranslatable(sctp, endpoints)
