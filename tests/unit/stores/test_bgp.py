# SPDX-License-Identifier: Apache-2.0
"""pycni/stores/bgp: this node's place, and the others as they were learnt."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.bgp.learned import records
from pycni.errors import InvalidSettings, StoreError
from pycni.stores import Former, Put, Removed, Synced, open_store
from pycni.stores.bgp import BgpStore
from pycni.stores.existence import what_is_missing
from unit.stores.stores_in_tests import CLUSTER, MACHINE_ONE, NODE_ONE, VTEP_ONE

OWN = (ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64"))
FOURTH = ip_network("10.244.4.0/24")
ROUTER = ip_address("192.0.2.254")
OTHERS = records({FOURTH: ROUTER})


@pytest.fixture
def store(tmp_path: Path) -> BgpStore:
    found = open_store(f"bgp:{tmp_path}/bgp.db", CLUSTER)
    assert isinstance(found, BgpStore)
    found.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, had=Former(OWN))
    return found


def test_a_node_gets_the_networks_that_it_was_given(store):
    (own,) = store.nodes()

    assert (own.name, own.vtep, set(own.pod_cidrs)) == (NODE_ONE, VTEP_ONE, set(OWN))


def test_what_was_learnt_is_there_beside_it_and_outlives_the_process(store):
    assert store.learn(OTHERS)
    assert not store.learn(OTHERS)

    again = open_store(f"bgp:{store.own.path}", CLUSTER, create=False)
    assert {one.name for one in again.nodes()} == {NODE_ONE, *(one.name for one in OTHERS)}
    assert again.learned() == list(OTHERS)
    assert again.listing().liveness[OTHERS[0].name].alive


def test_a_watch_tells_what_comes_and_goes(store):
    stop = threading.Event()
    events = store.watch(stop)

    assert [type(next(events)) for _ in range(2)] == [Put, Synced]
    store.learn(OTHERS)
    assert list(until_synced(events)) == [Put(OTHERS[0].name, OTHERS[0])]
    store.learn(())
    assert list(until_synced(events)) == [Removed(OTHERS[0].name)]
    stop.set()
    assert list(events) == []


def until_synced(events: Iterator[object]) -> Iterator[object]:
    for event in events:
        if event == Synced():
            return
        yield event


def test_a_heartbeat_is_no_event(store):
    stop = threading.Event()
    events = store.watch(stop)
    list(until_synced(events))
    store.heartbeat(NODE_ONE)
    store.learn(OTHERS)

    assert list(until_synced(events)) == [Put(OTHERS[0].name, OTHERS[0])]


def test_an_address_behind_a_next_hop_is_no_pods_of_this_node(store):
    store.learn(OTHERS)
    inside = ip_network(FOURTH.network_address + 7)
    outside = ip_network("192.0.2.77")

    assert store.publish(NODE_ONE, inside) == OTHERS[0].name
    assert store.publish(NODE_ONE, outside) == NODE_ONE
    store.withdraw(NODE_ONE, outside)
    assert store.nodes()[1].extra == () or store.nodes()[0].extra == ()


def test_it_can_be_removed_by_name(store):
    store.learn(OTHERS)

    assert store.remove(OTHERS[0].name)
    assert not store.remove(OTHERS[0].name)
    assert store.remove(NODE_ONE)
    assert store.nodes() == ()


def test_a_record_that_nobody_learnt_is_an_error(store):
    with closing(sqlite3.connect(store.own.path, isolation_level=None)) as db:
        db.execute("INSERT INTO learned VALUES ('x', '{}')")

    with pytest.raises(StoreError, match="nobody can have learnt") as caught:
        store.nodes()

    assert caught.value.hint


def test_a_file_that_goes_ends_the_watch(store):
    events = store.watch(threading.Event())
    list(until_synced(events))
    store.own.path.unlink()

    with pytest.raises(StoreError, match="removed while in use"):
        next(events)


def test_nobody_else_could_have_got_its_place(store):
    assert store.keeps(NODE_ONE, Former(OWN)) is True
    assert store.blocks() is None
    assert store.warnings() == []
    assert what_is_missing(f"bgp:{store.own.path}", CLUSTER) == ""


def test_a_path_that_is_not_absolute_is_refused():
    with pytest.raises(InvalidSettings, match="not absolute"):
        open_store("bgp:here", CLUSTER)
