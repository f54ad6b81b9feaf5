# SPDX-License-Identifier: Apache-2.0
"""The embedded store: its file, damage, several processes; test_stores.py has the rest."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.errors import (
    FileError,
    InvalidSettings,
    StoreError,
    TryAgain,
)
from pycni.stores import (
    DIRECT,
    HEARTBEAT_FRESH,
    Liveness,
    Put,
    Reach,
    Synced,
    machine_identity,
    open_store,
)
from pycni.stores import (
    identity as machine,
)
from pycni.stores.sqlite import SqliteStore, connection, rows, schema
from pycni.stores.sqlite import store as sqlite_store
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    MACHINE_ONE,
    MACHINE_TWO,
    NODE_ONE,
    NODE_TWO,
    VTEP_ONE,
    VTEP_TWO,
    Clock,
    register_one,
    watch,
)


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
    monkeypatch.setattr(sqlite_store, "POLL_INTERVAL", 0.001)


def test_a_refusal_says_when_the_other_node_was_seen(store: SqliteStore, clock: Clock) -> None:
    register_one(store)
    clock.now += HEARTBEAT_FRESH - 1

    with pytest.raises(StoreError, match=r"VTEP 192\.0\.2\.1, which is alive, seen 29 s ago"):
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO)
    with pytest.raises(StoreError, match=r"of node node-one, which is alive, seen 29 s ago"):
        store.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)


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


def test_nothing_but_the_store_is_left_in_its_directory(store: SqliteStore) -> None:
    register_one(store)

    assert [path.name for path in store.path.parent.iterdir()] == ["cluster.db"]


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
    monkeypatch.setattr(connection, "OPEN_MODE", "ro")

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


def test_a_store_removed_under_a_watch_is_an_error(store: SqliteStore) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()

        store.path.unlink()

        with pytest.raises(StoreError, match="was removed while in use"):
            next(events)


def test_a_store_replaced_under_a_watch_is_an_error(store: SqliteStore) -> None:
    with closing(watch(store)) as events:
        assert next(events) == Synced()

        copy = store.path.with_name("copy.db")
        shutil.copy(store.path, copy)
        copy.replace(store.path)

        with pytest.raises(StoreError, match="was replaced by another file while in use"):
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


def register_forever(file: Path) -> None:
    """Adds and removes nodes until it is killed."""
    store = SqliteStore.open(file, CLUSTER)
    for serial in range(1_000_000):
        node = f"node-{serial % 50}"
        store.register(node, ip_address("192.0.2.1") + serial % 50, identity=MACHINE_ONE)
        if serial % 3 == 0:
            store.remove(node)


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

    assert "`pycni setup` makes it" in caught.value.hint
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("consul://node-one", "unknown kind of store 'consul'"),
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
    monkeypatch.setattr(machine, "MACHINE_ID", file)

    assert machine_identity() != machine_id
    assert len(machine_identity()) == 32


@pytest.mark.parametrize("content", [None, b"", b"uninitialized\n", b"\xff"])
def test_without_a_machine_id_the_boot_tells_machines_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    file, boot_id = tmp_path / "machine-id", tmp_path / "boot_id"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(machine, "MACHINE_ID", file)
    monkeypatch.setattr(machine, "BOOT_ID", boot_id)

    boot_id.write_text("boot-one\n")
    first = machine_identity()
    boot_id.write_text("boot-two\n")

    assert machine_identity() != first


# Prefixes outside of a node's pod CIDRs


def test_a_store_of_the_first_schema_is_brought_up_to_date(store: SqliteStore) -> None:
    one = register_one(store)
    with closing(sqlite3.connect(store.path)) as db:
        db.executescript("DROP TABLE extras; PRAGMA user_version = 1")

    with pytest.raises(StoreError, match="has schema version 1"):
        store.nodes()
    assert SqliteStore.open(store.path, CLUSTER, create=False).nodes() == (one,)
    assert store.publish(NODE_ONE, ELSEWHERE) == NODE_ONE


NOT_UTF8 = "CAST(X'ff61' AS TEXT)"


def test_a_store_of_the_last_release_gets_room_for_addresses(
    store: SqliteStore, file: Path
) -> None:
    register_one(store)
    with closing(sqlite3.connect(file)) as db:
        db.execute("DROP TABLE addresses")
        db.commit()

    again = SqliteStore.open(file, CLUSTER, create=False)
    addresses = (VTEP_ONE, ip_address("2001:db8::1"))
    again.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach(addresses))

    (record,) = again.nodes()
    assert record.addresses == addresses


def test_a_store_of_the_last_release_gets_room_for_what_nodes_accept(
    store: SqliteStore, file: Path
) -> None:
    register_one(store)
    with closing(sqlite3.connect(file)) as db:
        db.executescript("DROP TRIGGER accepts_end; DROP TRIGGER accepts_gone; DROP TABLE accepts")

    again = SqliteStore.open(file, CLUSTER, create=False)
    again.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach(accepts=(DIRECT,)))

    (record,) = again.nodes()
    assert record.accepts == (DIRECT,)


def test_a_node_that_the_last_release_registers_accepts_no_more_than_that_release(
    store: SqliteStore, file: Path
) -> None:
    """It writes the same place again, and knows nothing of the other table."""
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach(accepts=(DIRECT,)))
    row = (NODE_ONE, 1, str(VTEP_ONE), "10.244.0.0/24", "fd00:10:244::/64", MACHINE_ONE, 0.0)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(rows.INSERT, row)

    (record,) = store.nodes()
    assert record.accepts == ()


def test_addresses_count_only_for_the_vtep_that_they_were_written_with(
    store: SqliteStore, file: Path
) -> None:
    """The last release writes and removes nodes, and leaves what it does not know."""
    virtual = ip_address("192.0.2.77")
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, reach=Reach((VTEP_ONE, virtual)))
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE nodes SET vtep = ?", (str(VTEP_TWO),))
        db.commit()

    (moved,) = store.nodes()
    assert (moved.vtep, moved.addresses) == (VTEP_TWO, ())

    with closing(sqlite3.connect(file)) as db:
        db.execute("DELETE FROM nodes")
        db.commit()
    assert store.nodes() == ()


@pytest.mark.parametrize("column", ["name", "vtep", "pod_cidr4", "pod_cidr6", "extra"])
def test_text_that_is_not_utf8_sets_aside_its_record_only(
    store: SqliteStore, file: Path, column: str
) -> None:
    one = register_one(store)
    values = {
        "name": "'node-x'",
        "node_id": "9",
        "vtep": "'192.0.2.9'",
        "pod_cidr4": "'10.244.9.0/24'",
        "pod_cidr6": "'fd00:10:244:9::/64'",
        "identity": "'machine'",
        "heartbeat": "0",
    }
    extra = NOT_UTF8 if column == "extra" else "'10.215.0.9/32'"
    if column in values:
        values[column] = NOT_UTF8
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(f"INSERT INTO nodes VALUES ({', '.join(values.values())})")
        db.execute(f"INSERT INTO extras VALUES ({extra}, {values['name']})")

    listing = store.listing()
    events = watch(store)
    first = next(events), next(events), next(events)

    assert listing.nodes == (one,)
    (reason,) = listing.rejected.values()
    assert reason.isascii()
    assert Put(NODE_ONE, one) in first
    assert first[2] == Synced()
    assert store.register(NODE_TWO, VTEP_TWO, identity=MACHINE_TWO).name == NODE_TWO
    (name,) = listing.rejected
    assert store.remove(name)
    assert store.listing().rejected == {}


@pytest.mark.parametrize("heartbeat", ["9e999", "-9e999"])
def test_an_infinite_heartbeat_is_none(store: SqliteStore, file: Path, heartbeat: str) -> None:
    register_one(store)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(f"UPDATE nodes SET heartbeat = {heartbeat}")

    assert store.listing().liveness == {NODE_ONE: Liveness(alive=False)}


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(StoreError, match="it is no regular file"):
        SqliteStore.open(tmp_path / "pipe", CLUSTER)
