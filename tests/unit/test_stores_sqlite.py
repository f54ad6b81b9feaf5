"""The embedded store: registration, refusals, watching, several processes, damage."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni import stores
from pycni.cluster import Cluster
from pycni.errors import ClusterError, FileError, InvalidSettings, StoreError, TryAgain
from pycni.stores import (
    HEARTBEAT_FRESH,
    Event,
    NodeRecord,
    Put,
    Removed,
    Synced,
    machine_identity,
    open_store,
    schema,
    sqlite,
)
from pycni.stores.sqlite import SqliteStore

CLUSTER = Cluster(
    cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    node_prefix4=24,
    node_prefix6=64,
    vni=7,
    port=4789,
)
TINY_CLUSTER = replace(CLUSTER, cidrs=(ip_network("10.244.0.0/23"),))
NODE_ONE, NODE_TWO, NODE_THREE = "node-one", "node-two", "node-three"
VTEP_ONE, VTEP_TWO, VTEP_THREE = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::3"))
MACHINE_ONE, MACHINE_TWO = "machine-one", "machine-two"
NOW = 1_700_000_000.0

PROCESSES = 8
NODES_PER_PROCESS = 5


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store" / "cluster.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(file: Path, clock: Clock) -> SqliteStore:
    return replace(SqliteStore.open(file, CLUSTER), clock=clock)


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "POLL_INTERVAL", 0.001)


def register_one(store: SqliteStore) -> NodeRecord:
    return store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE)


def register_two(store: SqliteStore) -> NodeRecord:
    return store.register(NODE_TWO, VTEP_TWO, identity=MACHINE_TWO)


def watch(store: SqliteStore) -> Generator[Event, None, None]:
    """Yields events until the test ends the generator; gives up after 10 s."""
    stop = threading.Event()
    timer = threading.Timer(10, stop.set)
    timer.start()
    try:
        yield from store.watch(stop)
    finally:
        timer.cancel()


# Registration


def test_the_first_node_gets_the_first_pod_cidrs(store: SqliteStore) -> None:
    record = register_one(store)

    assert record == NodeRecord(
        name=NODE_ONE,
        node_id=1,
        vtep=VTEP_ONE,
        pod_cidrs=(ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
        heartbeat=NOW,
    )


def test_the_second_node_gets_the_next_pod_cidrs(store: SqliteStore) -> None:
    one, two = register_one(store), register_two(store)

    assert two.node_id == 2
    assert two.pod_cidrs == (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64"))
    assert store.nodes() == (one, two)


def test_a_node_that_registers_again_keeps_its_cidrs_and_gets_its_new_vtep(
    store: SqliteStore, clock: Clock
) -> None:
    first = register_one(store)
    register_two(store)
    clock.now += 5

    again = store.register(NODE_ONE, VTEP_THREE, identity=MACHINE_ONE)

    assert again == replace(first, vtep=VTEP_THREE, heartbeat=NOW + 5)


def test_a_removed_nodes_place_is_the_next_to_be_given(store: SqliteStore) -> None:
    one = register_one(store)
    register_two(store)

    assert store.remove(NODE_ONE)

    three = store.register(NODE_THREE, VTEP_THREE, identity=MACHINE_ONE)
    assert (three.node_id, three.pod_cidrs) == (one.node_id, one.pod_cidrs)


def test_removing_a_node_that_is_not_there_is_no_error(store: SqliteStore) -> None:
    assert not store.remove(NODE_ONE)


def test_a_cluster_of_one_family_gives_one_cidr(file: Path) -> None:
    record = register_one(SqliteStore.open(file, TINY_CLUSTER))

    assert record.pod_cidrs == (ip_network("10.244.0.0/24"),)


def test_another_nodes_vtep_is_refused_with_that_nodes_name(store: SqliteStore) -> None:
    register_one(store)

    with pytest.raises(
        StoreError,
        match=r"192\.0\.2\.1 of node node-two is already that of node node-one, alive 0 s ago",
    ) as caught:
        store.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

    assert "remove node node-one" in caught.value.hint
    assert [node.name for node in store.nodes()] == [NODE_ONE]


def test_moving_to_another_nodes_vtep_is_refused_and_changes_nothing(store: SqliteStore) -> None:
    before = (register_one(store), register_two(store))

    with pytest.raises(StoreError, match="is already that of node node-two"):
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE)

    assert store.nodes() == tuple(sorted(before, key=lambda node: node.name))


def test_the_name_of_another_living_machine_is_refused(store: SqliteStore, clock: Clock) -> None:
    register_one(store)
    clock.now += HEARTBEAT_FRESH - 1

    with pytest.raises(
        StoreError,
        match=r"node-one is in use by another machine with VTEP 192\.0\.2\.1, alive 29 s ago",
    ) as caught:
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO)

    assert "node_name" in caught.value.hint
    assert store.nodes()[0].vtep == VTEP_ONE


def test_a_machine_may_replace_one_that_is_silent(store: SqliteStore, clock: Clock) -> None:
    first = register_one(store)
    clock.now += HEARTBEAT_FRESH

    record = store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO)

    assert record.pod_cidrs == first.pod_cidrs
    assert record.vtep == VTEP_TWO


def test_a_full_cluster_says_how_many_nodes_fit(file: Path) -> None:
    store = SqliteStore.open(file, TINY_CLUSTER)
    register_one(store)
    register_two(store)

    with pytest.raises(StoreError, match=r"10\.244\.0\.0/23 cut into /24 is enough for 2 nodes"):
        store.register(NODE_THREE, VTEP_THREE, identity=MACHINE_ONE)

    assert len(store.nodes()) == 2


def test_a_heartbeat_is_kept(store: SqliteStore, clock: Clock) -> None:
    register_one(store)
    clock.now += 10

    store.heartbeat(NODE_ONE)

    assert store.nodes()[0].heartbeat == NOW + 10


def test_a_heartbeat_of_an_unknown_node_is_an_error(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="node-one is not registered"):
        store.heartbeat(NODE_ONE)


# The file


def test_the_file_and_its_directory_are_private(store: SqliteStore) -> None:
    register_one(store)

    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_the_write_ahead_log_is_as_private_as_the_file(store: SqliteStore) -> None:
    with closing(watch(store)) as events:
        next(events)
        register_one(store)

        modes = {stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}

    assert modes == {0o600}


def test_a_store_keeps_its_nodes_when_opened_again(store: SqliteStore, file: Path) -> None:
    record = register_one(store)

    assert SqliteStore.open(file, CLUSTER).nodes() == (record,)


def test_nothing_but_the_store_is_left_in_its_directory(store: SqliteStore) -> None:
    register_one(store)

    assert [path.name for path in store.path.parent.iterdir()] == ["cluster.db"]


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
    store: SqliteStore, other: Cluster, difference: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        SqliteStore.open(store.path, other)

    assert difference in caught.value.message
    assert str(store.path) in caught.value.message


def test_another_schema_version_is_refused(store: SqliteStore) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA user_version = 9")

    with pytest.raises(StoreError, match="has schema version 9, this pycni knows 2"):
        SqliteStore.open(store.path, CLUSTER)


def test_somebody_elses_database_is_refused(file: Path) -> None:
    file.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE nodes (name TEXT)")

    with pytest.raises(StoreError, match="is not a cluster store of pycni"):
        SqliteStore.open(file, CLUSTER)


@pytest.mark.parametrize("content", [b"x" * 4096, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_database_is_refused(file: Path, content: bytes) -> None:
    file.parent.mkdir(mode=0o700)
    file.write_bytes(content)

    with pytest.raises(StoreError, match="cannot be used: file is not a database") as caught:
        SqliteStore.open(file, CLUSTER)

    assert "restore it from a copy" in caught.value.hint


def test_a_damaged_page_is_an_error_and_not_an_empty_list(store: SqliteStore, file: Path) -> None:
    register_one(store)
    page = 4096
    whole = file.read_bytes()
    file.write_bytes(whole[:page] + b"\xff" * (len(whole) - page))

    with pytest.raises(StoreError, match="cannot be used"):
        store.nodes()


def test_a_read_only_file_is_an_error_with_a_hint(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "OPEN_MODE", "ro")

    with pytest.raises(StoreError, match="readonly database") as caught:
        register_one(store)

    assert "must be writable for root" in caught.value.hint


def test_a_directory_without_room_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*_arguments: object, **_options: object) -> tuple[int, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", disk_full)

    with pytest.raises(StoreError, match="cannot be made: No space left on device"):
        SqliteStore.open(file, CLUSTER)


def test_a_store_others_could_replace_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.parent.chmod(0o777)

    with pytest.raises(FileError, match="is writable by others"):
        SqliteStore.open(file, CLUSTER)


def test_a_store_that_is_gone_is_an_error_and_not_made_anew(store: SqliteStore) -> None:
    store.path.unlink()

    with pytest.raises(StoreError, match="unable to open database file"):
        store.nodes()

    assert not store.path.exists()


def test_a_writer_that_does_not_end_makes_others_try_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")

        with pytest.raises(TryAgain, match="is busy"):
            register_one(store)


def test_an_interrupted_creation_leaves_no_store(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SCHEMA", "CREATE NONSENSE")

    with pytest.raises(StoreError, match="syntax error"):
        SqliteStore.open(file, CLUSTER)

    assert list(file.parent.iterdir()) == []


# Watching


def test_a_watch_lists_all_nodes_and_says_when_it_is_done(store: SqliteStore) -> None:
    one, two = register_one(store), register_two(store)

    with closing(watch(store)) as events:
        assert [next(events) for _ in range(3)] == [Put(one), Put(two), Synced()]


def test_an_empty_store_is_synced_at_once(store: SqliteStore) -> None:
    with closing(watch(store)) as events:
        assert next(events) == Synced()


def test_a_watch_sees_nodes_join_change_and_leave(store: SqliteStore) -> None:
    with closing(watch(store)) as events:
        assert next(events) == Synced()

        joined = register_one(store)
        assert next(events) == Put(joined)

        moved = store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE)
        assert next(events) == Put(moved)

        store.remove(NODE_ONE)
        assert next(events) == Removed(NODE_ONE)


def test_heartbeats_are_no_events(store: SqliteStore, clock: Clock) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        for _ in range(20):
            clock.now += 10
            store.heartbeat(NODE_ONE)
        two = register_two(store)

        assert next(events) == Put(two)


def test_a_place_that_changes_hands_is_removed_before_it_is_put(store: SqliteStore) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        store.remove(NODE_ONE)
        heir = store.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

        assert [next(events), next(events)] == [Removed(NODE_ONE), Put(heir)]


def test_a_watch_ends_when_it_is_told_to(store: SqliteStore) -> None:
    stop = threading.Event()
    events = store.watch(stop)
    assert next(events) == Synced()

    stop.set()

    assert list(events) == []


def test_a_store_removed_under_a_watch_is_an_error(store: SqliteStore) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        store.path.unlink()

        with pytest.raises(StoreError, match="was removed or replaced while in use"):
            next(events)


def test_a_store_replaced_under_a_watch_is_an_error(store: SqliteStore) -> None:
    with closing(watch(store)) as events:
        assert next(events) == Synced()

        copy = store.path.with_name("copy.db")
        shutil.copy(store.path, copy)
        copy.replace(store.path)

        with pytest.raises(StoreError, match="was removed or replaced while in use"):
            next(events)


def test_a_table_lost_under_a_watch_is_an_error(store: SqliteStore) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        with closing(sqlite3.connect(store.path)) as db:
            db.execute("DROP TABLE nodes")

        with pytest.raises(StoreError, match="no such table"):
            next(events)


# Several processes


def register_nodes(file: Path, process: int) -> None:
    """What one of several processes does."""
    store = SqliteStore.open(file, CLUSTER)
    for number in range(NODES_PER_PROCESS):
        serial = process * NODES_PER_PROCESS + number
        vtep = ip_address("192.0.2.1") + serial
        store.register(f"node-{serial}", vtep, identity=f"machine-{serial}")
        store.heartbeat(f"node-{serial}")


def register_forever(file: Path) -> None:
    """Adds and removes nodes until it is killed."""
    store = SqliteStore.open(file, CLUSTER)
    for serial in range(1_000_000):
        node = f"node-{serial % 50}"
        store.register(node, ip_address("192.0.2.1") + serial % 50, identity=MACHINE_ONE)
        if serial % 3 == 0:
            store.remove(node)


def test_processes_that_share_a_file_get_distinct_places(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=register_nodes, args=(file, process)) for process in range(PROCESSES)
    ]

    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * PROCESSES
    nodes = SqliteStore.open(file, CLUSTER).nodes()
    assert len(nodes) == PROCESSES * NODES_PER_PROCESS
    assert len({cidr for node in nodes for cidr in node.pod_cidrs}) == 2 * len(nodes)
    assert {node.node_id for node in nodes} == set(range(1, len(nodes) + 1))


def test_threads_that_share_a_store_get_distinct_places(store: SqliteStore) -> None:
    def register(serial: int) -> None:
        vtep = ip_address("192.0.2.1") + serial
        store.register(f"node-{serial}", vtep, identity=MACHINE_ONE)

    threads = [threading.Thread(target=register, args=(serial,)) for serial in range(20)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len({node.pod_cidrs for node in store.nodes()}) == 20


def test_a_killed_writer_leaves_a_consistent_file(file: Path) -> None:
    store = SqliteStore.open(file, CLUSTER)
    context = multiprocessing.get_context("spawn")

    for delay in (0.0, 0.01, 0.02, 0.05):
        writer = context.Process(target=register_forever, args=(file,))
        writer.start()
        _wait_for_nodes(store)
        time.sleep(delay)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()

        with closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        nodes = store.nodes()
        assert len({cidr for node in nodes for cidr in node.pod_cidrs}) == 2 * len(nodes)
        for node in nodes:
            assert store.remove(node.name)


def _wait_for_nodes(store: SqliteStore) -> None:
    with closing(watch(store)) as events:
        next(event for event in events if isinstance(event, Put))


# Opening by URL


@pytest.mark.parametrize("prefix", ["sqlite:", "sqlite://"])
def test_a_url_opens_the_embedded_store(file: Path, prefix: str) -> None:
    store = open_store(f"{prefix}{file}", CLUSTER)

    assert store.nodes() == ()


def test_a_reader_makes_no_store(file: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file") as caught:
        open_store(f"sqlite:{file}", CLUSTER, create=False)

    assert "`pycni setup` has run" in caught.value.hint
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("etcd://node-one", "unknown kind of store 'etcd'"),
        ("", "unknown kind of store ''"),
        ("sqlite:cluster.db", "the path is not absolute"),
        ("sqlite:", "the path is not absolute"),
    ],
)
def test_a_url_of_no_store_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        open_store(url, CLUSTER)


def test_a_machine_is_the_same_each_time() -> None:
    assert machine_identity() == machine_identity()


def test_the_machine_id_itself_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_id = "0123456789abcdef0123456789abcdef"
    file = tmp_path / "machine-id"
    file.write_text(f"{machine_id}\n")
    monkeypatch.setattr(stores, "MACHINE_ID", file)

    assert machine_identity() != machine_id
    assert len(machine_identity()) == 32


@pytest.mark.parametrize("content", [None, b"", b"uninitialized\n", b"\xff"])
def test_without_a_machine_id_the_boot_tells_machines_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    file, boot_id = tmp_path / "machine-id", tmp_path / "boot_id"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(stores, "MACHINE_ID", file)
    monkeypatch.setattr(stores, "BOOT_ID", boot_id)

    boot_id.write_text("boot-one\n")
    first = machine_identity()
    boot_id.write_text("boot-two\n")

    assert machine_identity() != first


# Prefixes outside of a node's pod CIDRs

ELSEWHERE = ip_network("10.215.0.33/32")
IN_THE_NEXT_NODES = ip_network("10.244.1.7/32")


def test_a_published_prefix_is_the_nodes_until_it_is_withdrawn(store: SqliteStore) -> None:
    one = register_one(store)

    assert store.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
    assert store.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
    assert store.nodes() == (replace(one, extra=(ELSEWHERE,)),)

    store.withdraw(NODE_ONE, ELSEWHERE)
    store.withdraw(NODE_ONE, ELSEWHERE)
    assert store.nodes() == (one,)


def test_what_another_node_has_cannot_be_published(store: SqliteStore) -> None:
    register_one(store)
    register_two(store)
    store.publish(NODE_ONE, ELSEWHERE)

    assert store.publish(NODE_TWO, ELSEWHERE) == NODE_ONE
    assert store.publish(NODE_ONE, IN_THE_NEXT_NODES) == NODE_TWO

    store.withdraw(NODE_TWO, ELSEWHERE)
    assert store.nodes()[0].extra == (ELSEWHERE,)


def test_only_a_registered_node_publishes(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="not registered"):
        store.publish(NODE_ONE, ELSEWHERE)


def test_a_pod_cidr_with_a_published_address_in_it_is_not_given_to_another(
    store: SqliteStore,
) -> None:
    register_one(store)
    store.publish(NODE_ONE, ELSEWHERE)
    store.publish(NODE_ONE, IN_THE_NEXT_NODES)

    assert register_two(store).pod_cidrs[0] == ip_network("10.244.2.0/24")


def test_a_node_that_leaves_takes_its_prefixes_along(store: SqliteStore) -> None:
    register_one(store)
    register_two(store)
    store.publish(NODE_ONE, ELSEWHERE)

    store.remove(NODE_ONE)

    assert store.publish(NODE_TWO, ELSEWHERE) == NODE_TWO


def test_publishing_is_an_event(store: SqliteStore) -> None:
    one = register_one(store)
    events = watch(store)
    assert [next(events), next(events)] == [Put(one), Synced()]

    store.publish(NODE_ONE, ELSEWHERE)

    assert next(events) == Put(replace(one, extra=(ELSEWHERE,)))
    events.close()


def test_a_store_of_the_first_schema_is_brought_up_to_date(store: SqliteStore) -> None:
    one = register_one(store)
    with closing(sqlite3.connect(store.path)) as db:
        db.executescript("DROP TABLE extras; PRAGMA user_version = 1")

    with pytest.raises(StoreError, match="has schema version 1"):
        store.nodes()
    assert SqliteStore.open(store.path, CLUSTER, create=False).nodes() == (one,)
    assert store.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
