# SPDX-License-Identifier: Apache-2.0
"""When a node is set up again because of its underlay, and when it is not."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import own_address
from pycni.agent.known import Known
from pycni.agent.own_address import PATIENCE, REVIEW, Place
from pycni.errors import StoreError
from pycni.node.underlay import Underlay
from pycni.settings import Settings
from pycni.stores import Former, NodeRecord
from unit.agent.runs import OneRun
from unit.node.around import ETH0, ETH1, WIREGUARD, around, held, route, way

ADDRESS, OTHER_ADDRESS = held(ETH0, "192.0.2.1/24"), held(ETH0, "192.0.2.99/24")
ADDRESS6 = held(ETH0, "2001:db8::1/64")
VTEP = ADDRESS.ip
DEFAULT = route("default", way(ETH0, "192.0.2.254"))
SETTINGS = Settings.model_validate({"node_name": "one", "cluster_cidrs": ["10.244.0.0/16"]})
RECORD = NodeRecord("one", 1, VTEP, (ip_network("10.244.0.0/24"),))


class World:
    """A node, its kernel and its store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = SimpleNamespace(
            vtep=VTEP, uplink="eth0", mtu=1450, direct=False, routed=False, ipip=False
        )
        self.addresses = [ADDRESS]
        self.routes = [DEFAULT]
        self.links = [ETH0, ETH1, WIREGUARD]
        self.known = Known()
        self.known.tell([RECORD])
        self.store = SimpleNamespace(register=self._register)
        self.registered: list[list[str]] = []
        self.store_is_away = False
        replace = monkeypatch.setattr
        replace(own_address.Node, "load", lambda _: self.node)
        replace(own_address.underlay, "look", lambda _: self.around)
        replace(own_address, "open_store", lambda *_, **__: self._store())
        self.place = Place(SETTINGS, None, self.known)  # type: ignore[arg-type]

    @property
    def around(self) -> Underlay:
        return around(self.addresses, self.routes, self.links)

    def look(self, now: float = 0.0) -> str:
        """Where the node has to move: interface and address; empty if it stays."""
        found = self.place.look(now)
        return "" if found is None else f"{found.ifname} {found.vtep}"

    def _store(self) -> Any:
        if self.store_is_away:
            raise StoreError("the store does not answer")
        return self.store

    def _register(
        self, name: str, vtep: Any, *, identity: str, instance: str, reach: Any, had: Any
    ) -> None:
        assert (name, vtep, bool(identity), bool(instance)) == ("one", VTEP, True, True)
        assert had == Former(RECORD.pod_cidrs, stays=True)
        self.registered.append([*map(str, reach.addresses), *reach.accepts])


class NoSocket:
    """Rtnl, of which nothing is asked here."""

    def __enter__(self) -> NoSocket:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_node_stays_as_long_as_its_address_does(world: World) -> None:
    world.addresses = [OTHER_ADDRESS, ADDRESS]

    assert world.look() == ""
    assert world.place.patient_until is None


def test_a_node_moves_when_its_address_stays_away(world: World) -> None:
    world.addresses = [OTHER_ADDRESS]

    assert world.look(100.0) == ""
    assert world.place.next_look(100.0) == 100.0 + PATIENCE
    assert world.look(100.0 + PATIENCE - 0.1) == ""
    found = world.look(100.0 + PATIENCE)

    assert found == "eth0 192.0.2.99"


def test_an_address_that_comes_back_is_no_move(world: World) -> None:
    world.addresses = [OTHER_ADDRESS]
    world.look(100.0)
    world.addresses = [OTHER_ADDRESS, ADDRESS]
    assert world.look(102.0) == ""
    world.addresses = [OTHER_ADDRESS]

    assert world.look(100.0 + PATIENCE) == ""
    assert world.look(100.0 + 2 * PATIENCE) != ""


def test_a_node_does_not_move_to_the_other_family(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.addresses = [ADDRESS6]

    assert [world.look(now) for now in (0.0, PATIENCE, 3 * PATIENCE)] == ["", "", ""]
    assert len(caplog.messages) == 1
    assert "no IPv4 address to move to" in caplog.text

    world.addresses = [ADDRESS6, ADDRESS]
    with caplog.at_level(logging.INFO):
        assert [world.look(4 * PATIENCE), world.look(5 * PATIENCE)] == ["", ""]

    assert caplog.messages[1:] == [f"address is back vtep={VTEP}"]


def test_a_node_with_no_address_at_all_says_so_once_and_waits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.addresses = []

    with caplog.at_level(logging.WARNING):
        assert [world.look(now) for now in (0.0, 1.0, 2.0)] == ["", "", ""]

    assert len(caplog.messages) == 1
    assert "no global address" in caplog.text
    assert "vtep=" in caplog.text
    world.addresses = [OTHER_ADDRESS]
    assert world.look(PATIENCE) != ""  # it has been away for long enough


def test_addresses_that_come_and_go_are_told(world: World) -> None:
    world.look()
    world.place.announce()
    world.addresses = [ADDRESS, ADDRESS6]
    world.look()
    world.place.announce()
    world.place.announce()

    assert world.registered == [["192.0.2.1"], ["192.0.2.1", "2001:db8::1"]]


def test_addresses_that_the_store_knows_are_not_told_again(world: World) -> None:
    world.known.tell([NodeRecord("one", 1, VTEP, RECORD.pod_cidrs, (), (VTEP, ADDRESS6.ip))])
    world.addresses = [ADDRESS, ADDRESS6]
    world.look()

    world.place.announce()

    assert world.registered == []


def test_what_a_node_accepts_is_told(world: World) -> None:
    world.known.tell([NodeRecord("one", 1, VTEP, RECORD.pod_cidrs, (), (VTEP,))])
    world.node.direct = True
    world.look()

    world.place.announce()
    world.place.announce()

    assert world.registered == [["192.0.2.1", "direct"]]


def test_addresses_wait_for_the_store_and_for_the_vtep(world: World) -> None:
    world.look()
    world.store_is_away = True
    with pytest.raises(StoreError):
        world.place.announce()
    world.store_is_away = False
    world.addresses = [OTHER_ADDRESS]
    world.look()
    world.place.announce()
    assert world.registered == []

    world.addresses = [ADDRESS]
    world.look()
    world.place.announce()

    assert world.registered == [["192.0.2.1"]]


def test_addresses_wait_for_the_list_of_all_nodes(world: World) -> None:
    """To ask for it once more would cost as much as the agent has."""
    world.known.nodes = None
    world.look()
    world.place.announce()
    assert world.registered == []
    assert world.place.next_look(0.0) < own_address.REVIEW

    world.known.tell([RECORD])
    world.place.announce()

    assert world.registered == [["192.0.2.1"]]


def test_a_node_that_the_store_does_not_know_is_not_registered_by_the_way(world: World) -> None:
    world.known.tell([])
    world.look()

    world.place.announce()

    assert world.registered == []


def test_who_is_told_of_a_setup_is_told_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And setup runs again only if there is a reason again."""
    world.addresses = [OTHER_ADDRESS]
    world.place.patient_until = 0.0
    run = OneRun()
    events: list[str] = []

    def setup(_: Settings) -> None:
        events.append("setup")
        world.node.vtep = OTHER_ADDRESS.ip

    class Fib:
        def __init__(self, _: int) -> None:
            self.waits = 0

        def __enter__(self) -> Fib:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def changes(self) -> list[object]:
            return []

        def wait(self, _: float) -> None:
            run.end()

    monkeypatch.setattr(own_address, "Fib", Fib)
    monkeypatch.setattr(own_address, "Rtnl", NoSocket)
    monkeypatch.setattr(own_address, "Place", lambda *_: world.place)
    monkeypatch.setattr(own_address.provision, "setup", setup)
    monkeypatch.setattr(run, "wait", lambda _: None)

    own_address.follow(SETTINGS, run, known=world.known, moved=lambda: events.append("moved"))

    assert events == ["setup", "moved"]
    assert run.rounds == 1


def test_without_events_the_kernel_is_asked_now_and_then(world: World) -> None:
    world.look(7.0)

    assert world.place.next_look(7.0) == 7.0 + REVIEW
