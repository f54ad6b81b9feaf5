# SPDX-License-Identifier: Apache-2.0
"""When a node moves to another address, and when it does not."""

from __future__ import annotations

import logging
from ipaddress import ip_address, ip_interface
from types import SimpleNamespace

import pytest

from pycni.agent import own_address
from pycni.errors import SetupError
from pycni.kernel.addresses import Address
from pycni.node.uplink import Uplink
from pycni.settings import Settings
from unit.agent.runs import OneRun

VTEP = ip_address("192.0.2.1")
NEW = ip_address("192.0.2.99")
NEW6 = ip_address("2001:db8::99")
SETTINGS = Settings(node_name="one")


class World:
    """A node whose interfaces have `held`, and where setup would choose `found`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = [VTEP]
        self.found: Uplink | SetupError = Uplink("eth0", 2, 1500, NEW)
        self.setups = 0
        self.moves = 0
        self.run = OneRun()
        node = SimpleNamespace(vtep=VTEP)
        monkeypatch.setattr(own_address, "Fib", lambda _: self)
        monkeypatch.setattr(own_address, "Rtnl", lambda: self)
        monkeypatch.setattr(own_address.Node, "load", lambda _: node)
        monkeypatch.setattr(own_address.uplink, "find", lambda *_, **__: self._find())
        monkeypatch.setattr(own_address.provision, "setup", lambda _: self._setup())

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def changes(self) -> list[object]:
        return []

    def wait(self, _: float) -> None:
        self.run.end()

    def addresses(self) -> list[Address]:
        return [Address(2, ip_interface(address)) for address in self.held]

    def follow(self) -> None:
        own_address.follow(SETTINGS, self.run, moved=self._moved)

    def _find(self) -> Uplink:
        if isinstance(self.found, SetupError):
            raise self.found
        return self.found

    def _setup(self) -> None:
        self.setups += 1

    def _moved(self) -> None:
        assert self.setups, "told before it was done"
        self.moves += 1


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_node_stays_as_long_as_its_address_does(world: World) -> None:
    world.held.append(NEW)

    world.follow()

    assert (world.setups, world.moves) == (0, 0)


def test_a_node_moves_when_its_address_is_gone(world: World) -> None:
    world.held = [NEW]

    world.follow()

    assert (world.setups, world.moves) == (1, 1)


def test_a_node_does_not_move_to_the_other_family(world: World) -> None:
    world.held = [NEW6]
    world.found = Uplink("eth0", 2, 1500, NEW6)

    world.follow()

    assert world.setups == 0


def test_a_node_with_no_address_at_all_says_so_and_waits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.held = []
    world.found = SetupError("the uplink eth0 has no global address")

    with caplog.at_level(logging.WARNING):
        world.follow()

    assert world.setups == 0
    assert "no global address" in caplog.text
