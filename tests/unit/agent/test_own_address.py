# SPDX-License-Identifier: Apache-2.0
"""When a node is set up again because of its underlay, and when it is not."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import own_address
from pycni.agent.own_address import PATIENCE, REVIEW, Place
from pycni.errors import StoreError
from pycni.kernel.links import Link
from pycni.node.underlay import Underlay
from pycni.settings import Settings
from pycni.stores import NodeRecord
from unit.agent.runs import OneRun
from unit.node.around import ETH0, ETH1, UP, WIREGUARD, around, held, route, way

ADDRESS, OTHER_ADDRESS = held(ETH0, "192.0.2.1/24"), held(ETH0, "192.0.2.99/24")
ADDRESS6 = held(ETH0, "2001:db8::1/64")
VTEP = ADDRESS.ip
DEFAULT = route("default", way(ETH0, "192.0.2.254"))
SETTINGS = Settings.model_validate({"node_name": "one", "cluster_cidrs": ["10.244.0.0/16"]})
RECORD = NodeRecord("one", 1, VTEP, (ip_network("10.244.0.0/24"),))


class World:
    """A node, its kernel and its store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = SimpleNamespace(vtep=VTEP, uplink="eth0", mtu=1450)
        self.addresses = [ADDRESS]
        self.routes = [DEFAULT]
        self.links = [ETH0, ETH1, WIREGUARD]
        self.attached = {ETH0.ifindex}
        self.unwritten: dict[str, str] = {}
        self.record: NodeRecord = RECORD
        self.store = SimpleNamespace(nodes=lambda: [self.record], register=self._register)
        self.registered: list[list[str]] = []
        self.store_is_away = False
        replace = monkeypatch.setattr
        replace(own_address.Node, "load", lambda _: self.node)
        replace(own_address.underlay, "look", lambda _: self.around)
        replace(own_address.maps, "open_vteps", lambda _: NoOthers())
        replace(own_address.overlay, "parameters_before", lambda _: self.unwritten)
        replace(own_address.attach, "attached", lambda _, index: self._programs(index))
        replace(own_address, "open_store", lambda *_, **__: self._store())
        self.place = Place(SETTINGS, None)  # type: ignore[arg-type]

    @property
    def around(self) -> Underlay:
        return around(self.addresses, self.routes, self.links)

    def look(self, now: float = 0.0) -> str:
        return self.place.look(now)

    def _programs(self, ifindex: int) -> dict[str, str]:
        return {"from_underlay": "abc"} if ifindex in self.attached else {}

    def _store(self) -> Any:
        if self.store_is_away:
            raise StoreError("the store does not answer")
        return self.store

    def _register(self, name: str, vtep: Any, *, identity: str, addresses: Any) -> None:
        assert (name, vtep, bool(identity)) == ("one", VTEP, True)
        self.registered.append([str(one) for one in addresses])


class NoOthers:
    """The map `vteps` of a node that is alone."""

    def __enter__(self) -> NoOthers:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def items(self) -> list[Any]:
        return []


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
    reason = world.look(100.0 + PATIENCE)

    assert reason == "the VTEP 192.0.2.1 is gone, 192.0.2.99 of eth0 is there"


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


def test_a_node_with_no_address_at_all_says_so_once_and_waits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.addresses = []

    with caplog.at_level(logging.WARNING):
        assert [world.look(now) for now in (0.0, 1.0, 2.0)] == ["", "", ""]

    assert len(caplog.messages) == 1
    assert "no global address" in caplog.text
    world.addresses = [OTHER_ADDRESS]
    assert world.look(PATIENCE) != ""  # it has been away for long enough


@pytest.mark.parametrize(("mtu", "pods"), [(1400, 1350), (9000, 8950)])
def test_another_mtu_of_the_uplink_is_followed(world: World, mtu: int, pods: int) -> None:
    world.links = [ETH0._replace(mtu=mtu)]

    assert world.look() == f"the uplink eth0 leaves pods an MTU of {pods}, not 1450"


def test_an_mtu_that_pods_cannot_have_is_said_and_the_node_stays(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.links = [ETH0._replace(mtu=500)]

    assert world.look() == ""
    assert "leaves 450 bytes" in caplog.text
    assert world.place.patient_until is None


def test_an_address_that_moves_to_another_interface_is_followed(world: World) -> None:
    world.addresses = [held(ETH1, "192.0.2.1/24")]
    world.routes = [route("default", way(ETH1, "192.0.2.254"))]

    assert world.look() == "the uplink is eth1, not eth0"


def test_an_uplink_that_is_made_anew_gets_its_program(world: World) -> None:
    assert world.look() == ""
    anew = Link(22, UP, "eth0", mtu=1500)
    world.links = [anew]
    world.addresses = [held(anew, "192.0.2.1/24")]
    world.routes = [route("default", way(anew, "192.0.2.254"))]

    assert world.look() == "an interface came without from_underlay"

    world.attached.add(anew.ifindex)
    assert world.look() == ""


def test_one_more_interface_has_packets_forwarded(world: World) -> None:
    assert world.look() == ""
    world.addresses = [ADDRESS, held(ETH1, "198.51.100.1/24")]
    world.attached.add(ETH1.ifindex)
    world.unwritten = {"net/ipv4/conf/eth1/forwarding": "0"}

    assert world.look() == "packets are not forwarded on every interface"
    assert world.look() == "", "somebody else switches it off: not ours to fight over"


def test_a_tunnel_without_ethernet_needs_no_program(world: World) -> None:
    world.addresses = [ADDRESS, held(WIREGUARD, "198.51.100.1/24")]

    assert world.look() == ""


def test_addresses_that_come_and_go_are_told(world: World) -> None:
    world.look()
    world.place.announce()
    world.addresses = [ADDRESS, ADDRESS6]
    world.look()
    world.place.announce()
    world.place.announce()

    assert world.registered == [["192.0.2.1"], ["192.0.2.1", "2001:db8::1"]]


def test_addresses_that_the_store_knows_are_not_told_again(world: World) -> None:
    world.record = NodeRecord("one", 1, VTEP, RECORD.pod_cidrs, (), (VTEP, ADDRESS6.ip))
    world.addresses = [ADDRESS, ADDRESS6]
    world.look()

    world.place.announce()

    assert world.registered == []


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


def test_a_node_that_the_store_does_not_know_is_not_registered_by_the_way(world: World) -> None:
    world.store.nodes = list
    world.look()

    world.place.announce()

    assert world.registered == []


def test_who_is_told_of_a_setup_is_told_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And setup runs again only if there is a reason again."""
    world.links = [ETH0._replace(mtu=1400)]
    run = OneRun()
    events: list[str] = []

    def setup(_: Settings) -> None:
        events.append("setup")
        world.node.mtu = 1350

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
    monkeypatch.setattr(own_address, "Rtnl", NoOthers)
    monkeypatch.setattr(own_address.provision, "setup", setup)
    monkeypatch.setattr(run, "wait", lambda _: None)

    own_address.follow(SETTINGS, run, moved=lambda: events.append("moved"))

    assert events == ["setup", "moved"]
    assert run.rounds == 1


def test_without_events_the_kernel_is_asked_now_and_then(world: World) -> None:
    world.look(7.0)

    assert world.place.next_look(7.0) == 7.0 + REVIEW
