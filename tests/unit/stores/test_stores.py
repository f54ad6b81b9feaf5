# SPDX-License-Identifier: Apache-2.0
"""What every kind of cluster store does: registration, refusals, watching, several processes."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.cluster import Cluster
from pycni.errors import ClusterError, PlaceLost, StoreError
from pycni.stores import (
    DIRECT,
    HEARTBEAT_FRESH,
    Former,
    NodeRecord,
    Put,
    Reach,
    Rejected,
    Removed,
    Rival,
    Store,
    Synced,
    identity,
    machine_instance,
    open_store,
    places,
    resync_seconds,
)
from pycni.stores.etcd import EtcdStore
from pycni.stores.etcd.keys import put_key, to_base64
from pycni.stores.etcd.keyspace import ALIVE, NODES
from pycni.stores.kube import KubeStore, bucket
from pycni.stores.sqlite import SqliteStore
from pycni.stores.sqlite import store as sqlite_store
from unit.stores.etcds import Etcd
from unit.stores.kube_api import NODE_NETWORKS, Api, kubeconfig, serving
from unit.stores.kube_nodes import Nodes
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    IN_THE_NEXT_NODES,
    MACHINE_ONE,
    MACHINE_TWO,
    NODE_ONE,
    NODE_THREE,
    NODE_TWO,
    TINY_CLUSTER,
    VTEP_ONE,
    VTEP_THREE,
    VTEP_TWO,
    Clock,
    register_one,
    register_two,
    watch,
)

PROCESSES = 8
NODES_PER_PROCESS = 5


@dataclass(frozen=True)
class Kind:
    """A kind of store: where one is, and what happens to it from outside."""

    url: str
    clock: Clock
    silence: Callable[[str], None]
    """A node's agent gives no sign any more."""
    write: Callable[[str, dict[str, Any]], None]
    """Somebody writes a record, past all rules."""
    beat: float = 10.0
    """Seconds after which a heartbeat hears what is new."""

    def open(self, cluster: Cluster = CLUSTER, *, create: bool = True) -> Store:
        store = open_store(self.url, cluster, create=create)
        if isinstance(store, SqliteStore | KubeStore):
            return replace(store, clock=self.clock)
        return store


GIVES_PLACES = pytest.mark.parametrize("kind", ["sqlite", "etcd"], indirect=True)
"""Stores that choose pod CIDRs themselves. Kubernetes has given its own before."""
TAKES_HEARTBEATS = pytest.mark.parametrize("kind", ["sqlite", "etcd"], indirect=True)
"""Stores that learn from our heartbeats which node lives. Kubernetes has its kubelets' leases."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "etcd", "kube"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Kind:
    if request.param == "sqlite":

        def age(_name: str) -> None:
            clock.now += HEARTBEAT_FRESH

        def insert(name: str, document: dict[str, Any]) -> None:
            row = (name, document["node_id"], document["vtep"], *document["pod_cidrs"])
            with closing(sqlite3.connect(tmp_path / "store" / "cluster.db")) as db, db:
                db.execute("REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, '', 0.0)", row)
                db.execute("DELETE FROM extras WHERE node = ?", (name,))
                extras = [(prefix, name) for prefix in document["extra"]]
                db.executemany("REPLACE INTO extras VALUES (?, ?)", extras)

        return Kind(f"sqlite:{tmp_path}/store/cluster.db", clock, age, insert)
    if request.param == "kube":
        api: Api = request.getfixturevalue("api")
        nodes = Nodes(api)
        api.make_node = nodes.make
        file = kubeconfig(tmp_path, api)
        return Kind(f"kube:{file}", clock, nodes.silence, partial(write_node_network, api), 400.0)
    etcd: Etcd = request.getfixturevalue("etcd")
    url = etcd.url()

    def expire(name: str) -> None:
        gateway = EtcdStore.open(url, CLUSTER, create=False).keyspace.gateway
        key = to_base64(f"{gateway.location.prefix}{ALIVE}{name}")
        (alive,) = gateway.call("kv/range", {"key": key})["kvs"]
        gateway.call("lease/revoke", {"ID": alive["lease"]})

    def put(name: str, document: dict[str, Any]) -> None:
        gateway = EtcdStore.open(url, CLUSTER, create=False).keyspace.gateway
        key = to_base64(f"{gateway.location.prefix}{NODES}{name}")
        text = json.dumps(document | {"identity": ""})
        gateway.call("kv/txn", {"success": [put_key(key, text)]})

    return Kind(url, clock, expire, put)


def write_node_network(api: Api, name: str, document: dict[str, Any]) -> None:
    """As somebody with more rights than agents writes it, before there was a schema."""
    spec = {
        "nodeID": document["node_id"],
        "vtep": document["vtep"],
        "podCIDRs": document["pod_cidrs"],
        "extra": document["extra"],
        "machine": "",
    }
    api.objects.put(NODE_NETWORKS, name, {"kind": "NodeNetwork", "spec": spec})
    Nodes(api).renew(name)


@pytest.fixture
def api(clock: Clock) -> Iterator[Api]:
    with serving(clock=clock) as server:
        yield server


@pytest.fixture(autouse=True)
def unbounded_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "RATE", 1e6)
    monkeypatch.setattr(bucket, "SLOW_RATE", 1e6)


@pytest.fixture
def store(kind: Kind) -> Store:
    return kind.open()


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "POLL_INTERVAL", 0.001)


def test_the_first_node_gets_the_first_pod_cidrs(store: Store) -> None:
    record = register_one(store)

    assert record == NodeRecord(
        name=NODE_ONE,
        node_id=1,
        vtep=VTEP_ONE,
        pod_cidrs=(ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
    )


def test_the_second_node_gets_the_next_pod_cidrs(store: Store) -> None:
    one, two = register_one(store), register_two(store)

    assert two.node_id == 2
    assert two.pod_cidrs == (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64"))
    assert store.nodes() == (one, two)


def test_a_node_that_registers_again_keeps_its_cidrs_and_gets_its_new_vtep(store: Store) -> None:
    first = register_one(store)
    register_two(store)

    again = store.register(NODE_ONE, VTEP_THREE, identity=MACHINE_ONE)

    assert again == replace(first, vtep=VTEP_THREE)


def test_a_node_has_the_addresses_that_it_registered_last(store: Store) -> None:
    far6, virtual = ip_address("2001:db8::1"), ip_address("192.0.2.77")
    register_one(store)

    for addresses in ((VTEP_ONE, far6, virtual), (VTEP_ONE, virtual), ()):
        store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach(addresses))

        (record,) = store.nodes()
        assert record.addresses == addresses


def test_a_node_accepts_what_it_registered_last(store: Store) -> None:
    register_one(store)

    for accepts in ((DIRECT,), (), (DIRECT,)):
        store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach(accepts=accepts))

        (record,) = store.nodes()
        assert record.accepts == accepts


def test_who_follows_is_told_what_a_node_accepts(store: Store) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        while not isinstance(next(events), Synced):
            pass
        store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach(accepts=(DIRECT,)))

        told = next(events)

    assert isinstance(told, Put)
    assert told.value.accepts == (DIRECT,)


def test_who_follows_is_told_of_another_address(store: Store) -> None:
    register_one(store)
    virtual = ip_address("192.0.2.77")
    with closing(watch(store)) as events:
        while not isinstance(next(events), Synced):
            pass
        store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach((VTEP_ONE, virtual)))

        told = next(events)

    assert isinstance(told, Put)
    assert told.value.addresses == (VTEP_ONE, virtual)


def test_several_nodes_may_have_an_address(store: Store) -> None:
    """As that of Docker's bridge. Which one it leads to is not decided in the store."""
    bridge = ip_address("172.17.0.1")
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach((bridge,)))
    store.register(NODE_TWO, VTEP_TWO, identity=MACHINE_TWO, reach=Reach((bridge, VTEP_ONE)))

    assert [record.name for record in store.nodes()] == [NODE_ONE, NODE_TWO]


@pytest.mark.parametrize("bad", ["127.0.0.1", "fe80::1", "10.244.7.7"])
def test_an_address_that_no_node_can_have_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(StoreError, match=f"its address {bad} is"):
        store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach((ip_address(bad),)))

    assert store.nodes() == ()


@GIVES_PLACES
def test_a_removed_nodes_place_is_the_next_to_be_given(store: Store) -> None:
    one = register_one(store)
    register_two(store)

    assert store.remove(NODE_ONE)

    three = store.register(NODE_THREE, VTEP_THREE, identity=MACHINE_ONE)
    assert (three.node_id, three.pod_cidrs) == (one.node_id, one.pod_cidrs)


def test_removing_a_node_that_is_not_there_is_no_error(store: Store) -> None:
    assert not store.remove(NODE_ONE)


def test_a_cluster_of_one_family_gives_one_cidr(kind: Kind) -> None:
    record = register_one(kind.open(TINY_CLUSTER))

    assert record.pod_cidrs == (ip_network("10.244.0.0/24"),)


def test_another_nodes_vtep_is_refused_with_that_nodes_name(store: Store) -> None:
    register_one(store)

    with pytest.raises(
        StoreError,
        match=r"192\.0\.2\.1 of node node-two is already that of node node-one, .*alive",
    ) as caught:
        store.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

    assert "remove node node-one" in caught.value.hint
    assert [node.name for node in store.nodes()] == [NODE_ONE]


def test_moving_to_another_nodes_vtep_is_refused_and_changes_nothing(store: Store) -> None:
    before = (register_one(store), register_two(store))

    with pytest.raises(StoreError, match="is already that of node node-two"):
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE)

    assert store.nodes() == tuple(sorted(before, key=lambda node: node.name))


def test_the_name_of_another_living_machine_is_refused(store: Store) -> None:
    register_one(store)

    with pytest.raises(
        StoreError, match=r"node-one is in use by another machine with VTEP 192\.0\.2\.1, .*alive"
    ) as caught:
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO)

    assert "node_name" in caught.value.hint
    assert store.nodes()[0].vtep == VTEP_ONE


def test_a_machine_may_replace_one_that_is_silent(store: Store, kind: Kind) -> None:
    first = register_one(store)
    kind.silence(NODE_ONE)

    record = store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO)

    assert record.pod_cidrs == first.pod_cidrs
    assert record.vtep == VTEP_TWO


def test_a_node_that_is_silent_does_not_look_alive(store: Store, kind: Kind) -> None:
    register_one(store)
    assert store.listing().liveness[NODE_ONE].alive

    kind.silence(NODE_ONE)

    assert not store.listing().liveness[NODE_ONE].alive


def test_a_node_with_pods_in_another_place_is_refused_before_anything_is_written(
    store: Store,
) -> None:
    """The other nodes would forget where its pods are."""
    record = register_one(store)
    had = Former((ip_network("10.244.200.0/24"),), stays=True)

    with pytest.raises(PlaceLost, match=r"but its pods have addresses of 10\.244\.200\.0/24"):
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE, had=had)

    assert store.nodes() == (record,)


@GIVES_PLACES
def test_a_node_whose_record_is_gone_gets_its_place_and_not_the_first_free_one(
    store: Store,
) -> None:
    register_one(store)
    record = register_two(store)
    store.remove(NODE_ONE), store.remove(NODE_TWO)

    again = store.register(NODE_TWO, VTEP_TWO, identity=MACHINE_TWO, had=Former(record.pod_cidrs))

    assert again.pod_cidrs == record.pod_cidrs


@TAKES_HEARTBEATS
def test_a_silent_node_lives_again_with_its_next_heartbeat(store: Store, kind: Kind) -> None:
    register_one(store)
    kind.silence(NODE_ONE)

    store.heartbeat(NODE_ONE)

    assert store.listing().liveness[NODE_ONE].alive


@GIVES_PLACES
def test_a_full_cluster_says_how_many_nodes_fit(kind: Kind) -> None:
    store = kind.open(TINY_CLUSTER)
    register_one(store)
    register_two(store)

    with pytest.raises(StoreError, match=r"10\.244\.0\.0/23 cut into /24 is enough for 2 nodes"):
        store.register(NODE_THREE, VTEP_THREE, identity=MACHINE_ONE)

    assert len(store.nodes()) == 2


def test_a_heartbeat_of_an_unknown_node_is_an_error(store: Store) -> None:
    with pytest.raises(PlaceLost, match="node-one is not registered"):
        store.heartbeat(NODE_ONE)


def test_a_store_keeps_its_nodes_when_opened_again(store: Store, kind: Kind) -> None:
    record = register_one(store)

    assert kind.open().nodes() == (record,)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(CLUSTER, vni=8), "vni is 7 in the store and 8 here"),
        (replace(CLUSTER, port=8472), "port is 4789 in the store and 8472 here"),
        (replace(CLUSTER, node_prefix6=80), "node_prefix.ipv6 is 64 in the store and 80 here"),
        (
            replace(CLUSTER, cidrs=CLUSTER.cidrs[:1]),
            "cluster_cidr.ipv6 is fd00:10:244::/56 in the store and absent here",
        ),
    ],
)
def test_other_cluster_parameters_are_refused_with_both(
    store: Store, kind: Kind, other: Cluster, difference: str
) -> None:
    register_one(store)

    with pytest.raises(ClusterError) as caught:
        kind.open(other)

    assert difference in caught.value.message
    assert caught.value.message.startswith(("/", "etcd at 127.0.0.1:", "Kubernetes at 127.0.0.1:"))


def test_a_watch_lists_all_nodes_and_says_when_it_is_done(store: Store) -> None:
    one, two = register_one(store), register_two(store)

    with closing(watch(store)) as events:
        assert [next(events) for _ in range(3)] == [
            Put(one.name, one),
            Put(two.name, two),
            Synced(),
        ]


def test_an_empty_store_is_synced_at_once(store: Store) -> None:
    with closing(watch(store)) as events:
        assert next(events) == Synced()


def test_a_watch_sees_nodes_join_change_and_leave(store: Store) -> None:
    with closing(watch(store)) as events:
        assert next(events) == Synced()

        joined = register_one(store)
        assert [next(events), next(events)] == [Put(joined.name, joined), Synced()]

        moved = store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE)
        assert [next(events), next(events)] == [Put(moved.name, moved), Synced()]

        store.remove(NODE_ONE)
        assert [next(events), next(events)] == [Removed(NODE_ONE), Synced()]


def test_heartbeats_are_no_events(store: Store, clock: Clock) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        for _ in range(20):
            clock.now += 10
            store.heartbeat(NODE_ONE)
        two = register_two(store)

        assert next(events) == Put(two.name, two)


def test_a_place_that_changes_hands_is_removed_before_it_is_put(store: Store) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        store.remove(NODE_ONE)
        heir = store.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

        assert [next(events), next(events)] == [Removed(NODE_ONE), Put(heir.name, heir)]


def test_a_watch_ends_when_it_is_told_to(store: Store) -> None:
    stop = threading.Event()
    events = store.watch(stop)
    assert next(events) == Synced()

    stop.set()

    assert list(events) == []


def register_nodes(url: str, process: int) -> None:
    """What one of several processes does."""
    store = open_store(url, CLUSTER)
    for number in range(NODES_PER_PROCESS):
        serial = process * NODES_PER_PROCESS + number
        vtep = ip_address("192.0.2.1") + serial
        store.register(f"node-{serial}", vtep, identity=f"machine-{serial}")
        store.heartbeat(f"node-{serial}")


def test_processes_that_share_a_store_get_distinct_places(kind: Kind) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=register_nodes, args=(kind.url, process))
        for process in range(PROCESSES)
    ]

    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * PROCESSES
    nodes = kind.open().nodes()
    assert len(nodes) == PROCESSES * NODES_PER_PROCESS
    assert len({cidr for node in nodes for cidr in node.pod_cidrs}) == 2 * len(nodes)
    assert {node.node_id for node in nodes} == set(range(1, len(nodes) + 1))


def test_threads_that_share_a_store_get_distinct_places(store: Store) -> None:
    def register(serial: int) -> None:
        vtep = ip_address("192.0.2.1") + serial
        store.register(f"node-{serial}", vtep, identity=MACHINE_ONE)

    threads = [threading.Thread(target=register, args=(serial,)) for serial in range(20)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len({node.pod_cidrs for node in store.nodes()}) == 20


def test_a_published_prefix_is_the_nodes_until_it_is_withdrawn(store: Store) -> None:
    one = register_one(store)

    assert store.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
    assert store.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
    assert store.nodes() == (replace(one, extra=(ELSEWHERE,)),)

    store.withdraw(NODE_ONE, ELSEWHERE)
    store.withdraw(NODE_ONE, ELSEWHERE)
    assert store.nodes() == (one,)


def test_what_another_node_has_cannot_be_published(store: Store) -> None:
    register_one(store)
    register_two(store)
    store.publish(NODE_ONE, ELSEWHERE)

    assert store.publish(NODE_TWO, ELSEWHERE) == NODE_ONE
    assert store.publish(NODE_ONE, IN_THE_NEXT_NODES) == NODE_TWO

    store.withdraw(NODE_TWO, ELSEWHERE)
    assert store.nodes()[0].extra == (ELSEWHERE,)


def test_only_a_registered_node_publishes(store: Store) -> None:
    with pytest.raises(StoreError, match="not registered"):
        store.publish(NODE_ONE, ELSEWHERE)


@GIVES_PLACES
def test_a_pod_cidr_with_a_published_address_in_it_is_not_given_to_another(
    store: Store,
) -> None:
    register_one(store)
    store.publish(NODE_ONE, ELSEWHERE)
    store.publish(NODE_ONE, IN_THE_NEXT_NODES)

    assert register_two(store).pod_cidrs[0] == ip_network("10.244.2.0/24")


def test_a_node_that_leaves_takes_its_prefixes_along(store: Store) -> None:
    register_one(store)
    register_two(store)
    store.publish(NODE_ONE, ELSEWHERE)

    store.remove(NODE_ONE)

    assert store.publish(NODE_TWO, ELSEWHERE) == NODE_TWO


def test_publishing_is_an_event(store: Store) -> None:
    one = register_one(store)
    events = watch(store)
    assert [next(events), next(events)] == [Put(one.name, one), Synced()]

    store.publish(NODE_ONE, ELSEWHERE)

    assert next(events) == Put(NODE_ONE, replace(one, extra=(ELSEWHERE,)))
    events.close()


# Records that somebody else wrote

STRANGER = "stranger"
OTHER_VTEP = "192.0.2.99"


def document(number: int, **change: object) -> dict[str, Any]:
    """A record with a place that no node has yet, changed."""
    return {
        "node_id": number,
        "vtep": OTHER_VTEP,
        "pod_cidrs": [f"10.244.{number}.0/24", f"fd00:10:244:{number:x}::/64"],
        "extra": [],
    } | change


BAD_RECORDS = [
    (document(9, vtep="::ffff:192.0.2.1"), "v4-mapped"),
    (document(9, pod_cidrs=["::ffff:10.244.0.0/120", "fd00:10:244:9::/64"]), "v4-mapped"),
    (document(9, vtep="nowhere"), "its VTEP 'nowhere' is not a valid one"),
    (document(9, pod_cidrs=["10.244.0.0/16", "fd00:10:244:9::/64"]), "is not a /24"),
    (document(9, extra=["10.244.0.7/32"]), "overlaps 10.244.0.0/24"),
    (document(9, extra=["192.0.2.1/32"]), "is the VTEP of node-one"),
    (document(2**40), "its node_id is 1099511627776"),
]


@pytest.mark.parametrize(("written", "reason"), BAD_RECORDS)
def test_a_bad_record_is_set_aside_and_all_others_are_followed(
    store: Store, kind: Kind, written: dict[str, Any], reason: str
) -> None:
    one = register_one(store)
    with closing(watch(store)) as events:
        assert [next(events), next(events)] == [Put(NODE_ONE, one), Synced()]

        kind.write(STRANGER, written)
        rejected = next(events)
        assert isinstance(rejected, Rejected)
        assert rejected.name == STRANGER
        assert reason in rejected.reason
        assert next(events) == Synced()

        two = register_two(store)
        assert [next(events), next(events)] == [Put(NODE_TWO, two), Synced()]

        store.remove(STRANGER)
        assert [next(events), next(events)] == [Removed(STRANGER), Synced()]
    assert store.nodes() == (one, two)


@pytest.mark.parametrize(("written", "reason"), BAD_RECORDS)
def test_a_bad_record_is_listed_with_its_reason_and_without_the_others(
    store: Store, kind: Kind, written: dict[str, Any], reason: str
) -> None:
    one = register_one(store)
    kind.write(STRANGER, written)

    listing = store.listing()

    assert listing.nodes == (one,)
    assert list(listing.rejected) == [STRANGER]
    assert reason in listing.rejected[STRANGER]


@pytest.mark.parametrize("written", [written for written, _ in BAD_RECORDS])
def test_nodes_join_move_and_publish_beside_a_bad_record(
    store: Store, kind: Kind, written: dict[str, Any]
) -> None:
    one = register_one(store)
    kind.write(STRANGER, written)

    two = register_two(store)
    moved = store.register(NODE_TWO, VTEP_THREE, identity=MACHINE_TWO)
    assert store.publish(NODE_TWO, ELSEWHERE) == NODE_TWO
    assert register_one(store) == one

    assert moved == replace(two, vtep=VTEP_THREE)
    assert store.nodes() == (one, replace(moved, extra=(ELSEWHERE,)))


def test_a_record_that_is_mended_is_followed_again(store: Store, kind: Kind) -> None:
    register_one(store)
    kind.write(STRANGER, document(9, vtep="nowhere"))
    with closing(watch(store)) as events:
        assert [type(next(events)) for _ in range(3)] == [Rejected, Put, Synced]

        kind.write(STRANGER, document(9))

        put = next(events)
        assert isinstance(put, Put)
        assert str(put.value.vtep) == OTHER_VTEP


def test_a_node_mends_its_own_record_by_registering(store: Store, kind: Kind) -> None:
    one = register_one(store)
    register_two(store)
    kind.write(NODE_ONE, document(1, pod_cidrs=["10.244.0.0/24", "odd"], extra=["192.0.2.2/32"]))
    assert NODE_ONE in store.listing().rejected

    again = register_one(store)

    assert again == one
    assert store.listing().rejected == {}


@GIVES_PLACES
def test_a_place_of_a_record_that_is_set_aside_is_not_given_away(store: Store, kind: Kind) -> None:
    kind.write(STRANGER, document(1, pod_cidrs=["10.244.0.0/24", "odd"]))

    one = register_one(store)

    assert one.node_id == 2
    assert one.pod_cidrs[0] == ip_network("10.244.1.0/24")


def test_a_vtep_of_a_record_that_is_set_aside_is_not_given_away(store: Store, kind: Kind) -> None:
    kind.write(STRANGER, document(2**40, vtep="192.0.2.1"))

    with pytest.raises(
        StoreError, match="already that of node stranger, whose record is set aside: its node_id"
    ):
        register_one(store)


def test_an_address_of_a_record_that_is_set_aside_is_not_given_away(
    store: Store, kind: Kind
) -> None:
    register_one(store)
    kind.write(STRANGER, document(9, vtep="nowhere", extra=[str(ELSEWHERE)]))

    assert store.publish(NODE_ONE, ELSEWHERE) == STRANGER


def test_a_bad_record_can_be_removed(store: Store, kind: Kind) -> None:
    one = register_one(store)
    kind.write(STRANGER, document(9, vtep="nowhere"))

    assert store.remove(STRANGER)

    assert store.nodes() == (one,)
    assert store.listing().rejected == {}


def test_a_node_whose_record_could_not_be_valid_is_not_registered(store: Store) -> None:
    with pytest.raises(StoreError, match=r"cannot be registered: its VTEP 127\.0\.0\.1 is not"):
        store.register(NODE_ONE, ip_address("127.0.0.1"), identity=MACHINE_ONE)

    assert store.listing().liveness == {}


# Two machines with one name


BOOT_ONE, BOOT_TWO = "boot-one", "boot-two"


def beats(kind: Kind, *instances: str) -> list[str]:
    """Heartbeats of node one by these machines, one after the other; who each is told of."""
    agents = {instance: kind.open() for instance in instances}
    told = []
    for instance in instances:
        kind.clock.now += kind.beat
        rival = agents[instance].heartbeat(NODE_ONE, instance=instance)
        told.append(rival.instance if rival else "")
    return told


def test_a_copy_of_a_living_machine_is_refused_and_the_first_is_told(
    store: Store, kind: Kind
) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)
    first = kind.open()
    assert first.heartbeat(NODE_ONE, instance=BOOT_ONE) is None
    kind.clock.now += kind.beat

    for _ in range(2):  # it tries again
        with pytest.raises(StoreError, match="another machine with the same machine-id") as caught:
            store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE, instance=BOOT_TWO)

    assert "/etc/machine-id" in caught.value.hint
    assert store.nodes()[0].vtep == VTEP_ONE
    kind.clock.now += kind.beat
    assert first.heartbeat(NODE_ONE, instance=BOOT_ONE) == Rival(BOOT_TWO, str(VTEP_TWO))


def test_another_machine_that_is_refused_is_told_to_the_first(store: Store, kind: Kind) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)
    first = kind.open()
    first.heartbeat(NODE_ONE, instance=BOOT_ONE)
    kind.clock.now += kind.beat

    with pytest.raises(StoreError, match="in use by another machine"):
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO, instance=BOOT_TWO)

    kind.clock.now += kind.beat
    assert first.heartbeat(NODE_ONE, instance=BOOT_ONE) == Rival(BOOT_TWO, str(VTEP_TWO))


def test_two_machines_that_live_as_one_node_are_both_told(store: Store, kind: Kind) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)

    told = beats(kind, BOOT_ONE, BOOT_TWO, BOOT_ONE, BOOT_TWO, BOOT_ONE)

    assert told[0] == ""
    assert told[2:] == [BOOT_TWO, BOOT_ONE, BOOT_TWO]


def test_a_machine_after_its_reboot_is_the_same_and_nobody_is_told(
    store: Store, kind: Kind
) -> None:
    before = store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)
    assert beats(kind, BOOT_ONE) == [""]
    kind.clock.now += kind.beat

    after = store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_TWO)

    assert after == before
    assert beats(kind, BOOT_TWO, BOOT_TWO, BOOT_TWO) == ["", "", ""]


def test_a_machine_may_move_while_it_lives(store: Store) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)

    moved = store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE, instance=BOOT_ONE)

    assert moved.vtep == VTEP_TWO


def test_a_machine_with_another_address_after_its_reboot_waits_for_its_old_self(
    store: Store, kind: Kind
) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)
    kind.silence(NODE_ONE)

    moved = store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE, instance=BOOT_TWO)

    assert moved.vtep == VTEP_TWO


def test_nothing_of_a_node_is_left_when_it_is_removed(store: Store, kind: Kind) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance=BOOT_ONE)
    beats(kind, BOOT_ONE)

    assert store.remove(NODE_ONE)

    store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO, instance=BOOT_TWO)


def test_instances_of_two_boots_and_namespaces_differ(monkeypatch, tmp_path: Path) -> None:
    first = machine_instance()
    assert machine_instance() == first

    monkeypatch.setattr(identity, "NETWORK_NAMESPACE", tmp_path)
    other = machine_instance()
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(identity, "BOOT_ID", boot)

    assert len({first, other, machine_instance()}) == 3


# Limits


def test_a_node_publishes_no_more_addresses_than_a_record_may_have(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "EXTRA_MAX", 1)
    register_one(store)
    store.publish(NODE_ONE, ELSEWHERE)

    with pytest.raises(StoreError, match="publishes 1 addresses already"):
        store.publish(NODE_ONE, ip_network("10.215.0.34/32"))


def test_the_error_about_another_cluster_is_short_whatever_stands_in_the_store() -> None:
    stored = {f"\x1b{number}": "x" * 1000 for number in range(100)}

    with pytest.raises(ClusterError) as caught:
        places.refuse_other_cluster(stored, CLUSTER, where="etcd")

    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 4000
    assert caught.value.message.endswith("and more")


def test_kubernetes_is_seldom_read_again_from_the_beginning() -> None:
    assert resync_seconds("kube:?server=10.0.0.1:6443") >= 3600.0
    assert resync_seconds("etcd://10.0.0.1:2379") == resync_seconds("sqlite:/x") == 300.0
