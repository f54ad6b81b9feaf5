# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/surroundings.py: what of a node decides about Services, and when it is looked at."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import surroundings
from pycni.agent.known import Known
from pycni.agent.surroundings import ZONE_SECONDS, Surroundings
from pycni.errors import StoreError
from pycni.services.catalog import Catalog
from pycni.services.objects import read_one
from pycni.settings import Settings
from unit.services.objects_made import CLUSTER_IP, endpoint, endpoint_slice, service

SETTINGS = Settings(node_name="node1")
EAST, WEST = "10.244.2.7", "10.244.3.7"


class Node:
    """A node with addresses, of which an event tells; `events` is what the next look gets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.own = {"192.0.2.1"}
        self.events: list[object] | None = []
        self.zone: str | StoreError = "east"
        self.asked = 0

    def take(self) -> list[object] | None:
        taken, self.events = self.events, []
        return taken

    def close(self) -> None:
        """Nothing is open."""

    def ask_zone(self) -> str:
        self.asked += 1
        if isinstance(self.zone, StoreError):
            raise self.zone
        return self.zone


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(surroundings, "EventSocket", lambda _: made)
    monkeypatch.setattr(surroundings, "own_addresses", lambda: frozenset(map(ip_address, made.own)))
    return made


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def around(node: Node, known: Known) -> Surroundings:
    return Surroundings(SETTINGS, known, node.ask_zone, lambda: node.now)


@pytest.fixture
def catalog(around: Surroundings) -> Catalog:
    """A Service with an endpoint for each of two zones."""
    made = Catalog(around.place, around.owner)
    ends = [endpoint(EAST, zones=["east"]), endpoint(WEST, zones=["west"])]
    made.change("Service", {"shop/web": read_one("Service", service())})
    made.change("EndpointSlice", {"shop/web-1": read_one("EndpointSlice", endpoint_slice(*ends))})
    return made


def chosen(catalog: Catalog) -> set[str]:
    """Of the one Service port that changed; fails if none did."""
    (wanted,) = catalog.changes().values()
    assert wanted is not None
    return {str(address) for (address, _), use in wanted.ends.items() if use.all}


def test_another_zone_chooses_other_endpoints(
    node: Node, around: Surroundings, catalog: Catalog
) -> None:
    """S-038"""
    assert chosen(catalog) == {EAST}
    node.zone, node.now = "west", ZONE_SECONDS

    assert around.look(catalog)

    assert chosen(catalog) == {WEST}


def test_the_zone_is_asked_for_once_a_minute(
    node: Node, around: Surroundings, catalog: Catalog
) -> None:
    catalog.changes()
    asked = node.asked
    for node.now in (1.0, ZONE_SECONDS - 1, ZONE_SECONDS, ZONE_SECONDS + 1):
        assert not around.look(catalog)

    assert node.asked == asked + 1


def test_without_hints_for_zones_it_is_not_asked_for(node: Node, around: Surroundings) -> None:
    node.now, asked = ZONE_SECONDS, node.asked

    assert not around.look(Catalog(around.place, around.owner))
    assert node.asked == asked


def test_a_zone_that_cannot_be_read_stays(
    node: Node, around: Surroundings, catalog: Catalog
) -> None:
    """S-154: the API server does not answer."""
    catalog.changes()
    node.zone, node.now = StoreError("it does not answer"), ZONE_SECONDS

    assert not around.look(catalog)
    assert catalog.changes() == {}


@pytest.mark.parametrize("lost", [False, True], ids=["an event", "events lost"])
def test_an_address_that_comes_takes_its_service_and_gives_it_back(
    node: Node, around: Surroundings, catalog: Catalog, lost: bool
) -> None:
    """S-073"""
    happened = None if lost else [object()]
    (web,) = catalog.changes()
    node.own.add(CLUSTER_IP)
    assert not around.look(catalog), "nothing happened yet"

    node.events = happened
    assert around.look(catalog)
    assert catalog.changes() == {web: None}
    assert "this node's" in catalog.set_aside[0].reason
    node.own.remove(CLUSTER_IP)
    node.events = happened
    assert around.look(catalog)

    assert chosen(catalog) == {EAST}


def test_events_of_addresses_that_change_nothing_decide_nothing(
    node: Node, around: Surroundings, catalog: Catalog
) -> None:
    node.events = [object()]

    assert not around.look(catalog)


def test_an_address_of_another_node_is_no_services(
    known: Known, around: Surroundings, catalog: Catalog
) -> None:
    (web,) = catalog.changes()
    other: Any = SimpleNamespace(vtep=ip_address("192.0.2.2"), addresses=[ip_address(CLUSTER_IP)])

    known.tell([other])
    assert around.look(catalog)
    assert catalog.changes() == {web: None}
    known.tell([other])

    assert not around.look(catalog)
