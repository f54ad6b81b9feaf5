# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/provision.py: what is left in the store of a setup that fails, and what is said of a
store."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.errors import PlaceLost
from pycni.node.record import Node
from pycni.node.underlay import Underlay
from pycni.node.uplink import Uplink
from pycni.settings import Settings
from pycni.setup import provision
from pycni.setup.plan import Host
from pycni.setup.provision import Mending, Provisioning
from pycni.stores import Former, NodeRecord, Store, open_store

VTEP, OTHER_VTEP = ip_address("192.0.2.1"), ip_address("192.0.2.2")
CIDR, BLOCK = ip_network("10.244.9.0/24"), ip_network("10.244.10.0/24")
BEFORE = Node("one", 1, VTEP, (CIDR,), (ip_network("10.244.0.0/16"),), "eth0", 1450, 4789,
              blocks=(BLOCK,))  # fmt: skip
KERNEL: Any = SimpleNamespace(addresses=lambda: ())


class World:
    """A host, and a store."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings.model_validate(
            {"node_name": "one", "state_dir": directory, "cluster_cidrs": ["10.244.0.0/16"]}
        )
        self.pods: list[Any] = []
        monkeypatch.setattr(provision, "leases", lambda _: iter(self.pods))

    @property
    def store(self) -> Store:
        return open_store(self.settings.store_url, self.settings.cluster)

    def provisioning(
        self, undo: ExitStack, before: Node | None = None, mending: Mending | None = None
    ) -> Provisioning:
        uplink = Uplink("eth0", 2, 1500, VTEP)
        host = Host([], uplink, Underlay({}, (), ()), needs_bpffs=False, before=before)
        return Provisioning(self.settings, host, KERNEL, undo, lambda _: None, mending, True)

    def fail(self, before: Node | None = None, mending: Mending | None = None) -> None:
        """A setup that registers, and fails later."""
        with ExitStack() as undo:
            self.provisioning(undo, before, mending).join()

    def nodes(self) -> tuple[NodeRecord, ...]:
        return self.store.nodes()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    assert made.nodes() == ()
    return made


def test_a_host_that_was_no_node_leaves_the_store_as_it_was(world: World) -> None:
    world.fail()

    assert world.nodes() == ()


def test_a_node_whose_record_was_gone_keeps_its_place(world: World) -> None:
    """Its pods run: another node would get their addresses."""
    world.fail(BEFORE)

    (record,) = world.nodes()
    assert record.pod_cidrs == (CIDR,)


def test_so_does_a_host_with_pods_whose_own_record_cannot_be_read(world: World) -> None:
    world.pods = [SimpleNamespace(addresses=(CIDR[7],))]

    world.fail()

    assert [one.name for one in world.nodes()] == ["one"]


def test_a_node_with_pods_whose_place_is_anothers_changes_nothing(world: World) -> None:
    had = Former((CIDR,))
    heir = world.store.register("heir", OTHER_VTEP, identity="x", had=had)
    world.pods = [SimpleNamespace(addresses=(CIDR[7],))]

    with pytest.raises(PlaceLost, match="but its pods have addresses of"):
        world.fail(BEFORE)

    assert world.nodes() == (heir,)


def test_a_node_without_pods_may_get_another_place_but_not_from_its_agent(world: World) -> None:
    """While that serves, a pod may come at any moment."""
    world.store.register("heir", OTHER_VTEP, identity="x", had=Former((CIDR,)))

    with pytest.raises(PlaceLost, match="but its pods have addresses of"):
        world.fail(BEFORE, Mending(()))

    world.fail(BEFORE)
    assert [one.name for one in world.nodes()] == ["heir", "one"]


def test_an_agent_of_a_node_whose_place_is_anothers_begins_as_it_was(world: World) -> None:
    """It keeps up the pods that are here, and tells why it adds none."""
    heir = world.store.register("heir", OTHER_VTEP, identity="x", had=Former((CIDR,)))
    world.pods = [SimpleNamespace(addresses=(CIDR[7],))]

    with ExitStack() as undo:
        starting = replace(world.provisioning(undo, BEFORE), needs_store=False)
        record, _, unregistered = starting.join()

    assert (record.pod_cidrs, record.blocks) == ((CIDR,), (BLOCK,))
    assert isinstance(unregistered, PlaceLost)
    assert world.nodes() == (heir,)


def test_the_store_hears_what_the_host_had(world: World) -> None:
    pod = SimpleNamespace(addresses=(CIDR[7], BLOCK[7]))
    world.pods = [pod]

    with ExitStack() as undo:
        had = world.provisioning(undo, BEFORE)._had()

    assert had == Former((CIDR,), (BLOCK,), pod.addresses, stays=True)


def test_addresses_that_are_told_last_do_not_move_a_node(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Its record went meanwhile, and another node has its place."""
    heir = world.store.register("heir", OTHER_VTEP, identity="x", had=Former((CIDR,)))
    record = replace(heir, name="one", vtep=VTEP)

    with ExitStack() as undo:
        target: Any = SimpleNamespace(record=record, node=BEFORE)
        world.provisioning(undo, BEFORE).tell_the_rest(target)

    assert world.nodes() == (heir,)
    assert "addresses not told" in caplog.text


def test_a_store_that_anybody_may_write_to_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = "etcd answers without credentials"
    monkeypatch.setattr(type(world.store), "warnings", lambda _: [found])

    world.fail()

    assert f'store is not safe found="{found}"' in caplog.messages
