# SPDX-License-Identifier: Apache-2.0
"""The etcd store: what etcd, the network, clocks, certificates and users can do to it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import (
    FileError,
    InvalidSettings,
    StoreError,
    TryAgain,
)
from pycni.stores import (
    HEARTBEAT_FRESH,
    Liveness,
    Put,
    Rejected,
    Synced,
    open_store,
)
from pycni.stores.etcd import EtcdStore, gateway, keyspace
from pycni.stores.etcd.keys import put_key, to_base64
from pycni.stores.etcd.keyspace import CLUSTER as CLUSTER_KEY
from pycni.stores.etcd.keyspace import NODES, RIVALS, SEEN, Keyspace
from pycni.stores.etcd.leases import Leases
from pycni.stores.etcd.watch import changes
from unit.stores.certificates import make_authority, make_certificate
from unit.stores.etcds import Etcd, answers, running
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    MACHINE_ONE,
    MACHINE_TWO,
    NODE_ONE,
    NODE_TWO,
    VTEP_ONE,
    VTEP_TWO,
    register_one,
    register_two,
    watch,
)

HOUR = 3600.0
PASSWORD = "correct horse"


@pytest.fixture
def store(etcd: Etcd) -> EtcdStore:
    return EtcdStore.open(etcd.url(), CLUSTER)


def write(store: EtcdStore, name: str, text: str) -> None:
    """What somebody else might: a value under one of our keys."""
    key = to_base64(store.keyspace.gateway.location.prefix + name)
    store.keyspace.gateway.call("kv/txn", {"success": [put_key(key, text)]})


def erase(store: EtcdStore, name: str) -> None:
    key = to_base64(store.keyspace.gateway.location.prefix + name)
    store.keyspace.gateway.call("kv/deleterange", {"key": key})


def text_of(store: EtcdStore, name: str) -> Any:
    return json.loads(store.keyspace.value(name) or "null")


def revision(store: EtcdStore) -> int:
    answer = store.keyspace.gateway.call("kv/range", {"key": to_base64("none")})
    return int(answer["header"]["revision"])


def another_process(store: EtcdStore) -> EtcdStore:
    """The same store, as another process has it open."""
    return replace(store, leases=Leases(store.keyspace.gateway))


# What there is, and what is not


def test_a_reader_makes_no_cluster(etcd: Etcd) -> None:
    url = etcd.url()

    for _ in range(2):
        with pytest.raises(StoreError, match="there is no cluster in etcd at") as caught:
            EtcdStore.open(url, CLUSTER, create=False)

    assert "restore it from a snapshot" in caught.value.hint


def test_two_clusters_share_an_etcd_by_their_prefixes(etcd: Etcd) -> None:
    one, other = (EtcdStore.open(etcd.url(), CLUSTER) for _ in range(2))

    register_one(one)

    assert other.nodes() == ()


def test_a_prefix_that_begins_like_another_is_another(etcd: Etcd) -> None:
    longer = EtcdStore.open(etcd.url("pods-two"), CLUSTER)
    register_one(longer)

    assert EtcdStore.open(etcd.url("pods"), CLUSTER).nodes() == ()


def test_a_registration_right_after_a_list_reads_no_second_one(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = Keyspace.read
    monkeypatch.setattr(Keyspace, "read", lambda self: reads.append("all") or read(self))
    register_two(store)
    reads.clear()

    assert [one.name for one in store.nodes()] == [NODE_TWO]
    assert register_one(store).node_id == 2
    assert len(reads) == 1

    register_one(store)
    assert len(reads) == 2


def test_a_registration_after_a_list_decides_anew_if_others_were_quicker(
    store: EtcdStore,
) -> None:
    assert store.nodes() == ()
    register_two(another_process(store))

    assert register_one(store).node_id == 2


def test_all_is_read_some_at_a_time_as_it_was_at_one_moment(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "PAGE", 2)
    register_one(store)
    register_two(store)
    call, moments = gateway.Gateway.call, []

    def late(self: gateway.Gateway, path: str, request: dict[str, Any]) -> dict[str, Any]:
        answer = call(self, path, request)
        if path == "kv/range" and "limit" in request:
            moments.append(answer["header"]["revision"])
            if len(moments) == 1:
                write(store, NODES + "later", "{}")
        return answer

    monkeypatch.setattr(gateway.Gateway, "call", late)
    snapshot = store.keyspace.read()

    assert len(set(moments)) == 2
    assert snapshot.revision == int(moments[0])
    assert set(snapshot.records) == set(snapshot.alive) == {NODE_ONE, NODE_TWO}
    assert set(store.keyspace.read().records) == {NODE_ONE, NODE_TWO, "later"}


def test_heartbeats_write_nothing_into_etcd(store: EtcdStore) -> None:
    register_one(store)
    store.heartbeat(NODE_ONE)
    before = revision(store)

    for _ in range(5):
        store.heartbeat(NODE_ONE)

    assert revision(store) == before


def test_another_process_takes_the_heartbeat_over(store: EtcdStore) -> None:
    register_one(store)
    agent = another_process(store)

    agent.heartbeat(NODE_ONE)
    store.leases.end(NODE_ONE)

    assert store.listing().liveness[NODE_ONE].alive


def test_a_refused_node_leaves_no_lease(store: EtcdStore) -> None:
    register_one(store)
    before = store.keyspace.gateway.call("lease/leases", {}).get("leases", [])

    with pytest.raises(StoreError):
        store.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

    assert len(store.keyspace.gateway.call("lease/leases", {}).get("leases", [])) == len(before)


def test_a_change_that_others_are_always_ahead_of_is_given_up(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "PATIENCE", 0.1)
    monkeypatch.setattr(Keyspace, "transact", lambda *_: False)

    with pytest.raises(TryAgain, match="is busy"):
        register_one(store)


# Liveness


def test_when_a_node_was_last_seen_is_not_known_and_not_made_up(store: EtcdStore) -> None:
    register_one(store)
    assert store.listing().liveness == {NODE_ONE: Liveness(alive=True, seen_ago=None)}

    store.leases.end(NODE_ONE)

    assert store.listing().liveness == {NODE_ONE: Liveness(alive=False, seen_ago=None)}


def test_when_a_node_was_last_seen_is_known_roughly_once_its_agent_runs(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance="us")
    store.heartbeat(NODE_ONE, instance="us")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + HOUR)
    assert store.listing().liveness[NODE_ONE] == Liveness(True, HEARTBEAT_FRESH, "us")

    store.leases.end(NODE_ONE)

    life = store.listing().liveness[NODE_ONE]
    assert (life.alive, round(life.seen_ago or 0, -1)) == (False, HOUR)


@pytest.mark.parametrize("text", ["", "now", "-5", "1e400", "9" * 400, "[]", "true"])
def test_a_time_that_is_none_is_not_known(store: EtcdStore, text: str) -> None:
    register_one(store)
    write(store, f"{SEEN}{NODE_ONE}", text)

    assert store.listing().liveness[NODE_ONE].seen_ago is None or text == "true"


@pytest.mark.parametrize("ahead", [-3 * HOUR, 3 * HOUR])
def test_no_clock_of_a_machine_decides_who_is_alive(
    store: EtcdStore, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(store)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)

    assert store.listing().liveness[NODE_ONE].alive
    with pytest.raises(StoreError, match="is in use by another machine"):
        store.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO)

    store.leases.end(NODE_ONE)

    assert not store.listing().liveness[NODE_ONE].alive


# What somebody else wrote


def test_parameters_that_are_none_are_an_error(store: EtcdStore) -> None:
    write(store, CLUSTER_KEY, "{")

    with pytest.raises(StoreError, match=r"/cluster in etcd at .* is not what pycni"):
        store.nodes()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"node_id": 1, "vtep": "nowhere"}'])
def test_a_record_that_cannot_be_read_is_set_aside(store: EtcdStore, text: str) -> None:
    one = register_one(store)
    write(store, f"{NODES}strange", text)

    assert register_two(store).node_id == 2
    listing = store.listing()
    assert listing.nodes[0] == one
    assert list(listing.rejected) == ["strange"]


@pytest.mark.parametrize("change", ["pod_cidrs", "vtep", "node_id"])
def test_of_nodes_with_the_same_place_the_key_that_etcd_had_first_counts(
    store: EtcdStore, change: str
) -> None:
    one, two = register_one(store), register_two(store)
    stolen = text_of(store, NODES + NODE_TWO) | {change: text_of(store, NODES + NODE_ONE)[change]}

    with closing(watch(store)) as events:
        assert [type(next(events)) for _ in range(3)] == [Put, Put, Synced]
        write(store, NODES + NODE_TWO, json.dumps(stolen))
        rejected = next(events)

    assert isinstance(rejected, Rejected)
    assert rejected.name == NODE_TWO
    assert "node-one" in rejected.reason
    assert store.nodes() == (one,)
    assert register_two(store) == two
    assert store.nodes() == (one, two)


def test_a_twin_of_a_node_is_set_aside_whatever_its_id(store: EtcdStore) -> None:
    one = register_one(store)
    register_two(store)
    assert store.remove(NODE_ONE)
    again = register_one(store)  # its key is now younger than the other, its id is lower
    assert again == one
    twin = text_of(store, NODES + NODE_ONE)
    write(store, f"{NODES}a-twin", json.dumps(twin | {"node_id": 7}))

    assert list(store.listing().rejected) == ["a-twin"]


def test_fields_of_a_later_release_outlive_a_publication(store: EtcdStore) -> None:
    register_one(store)
    later = text_of(store, NODES + NODE_ONE) | {"colour": "red"}
    write(store, NODES + NODE_ONE, json.dumps(later))

    store.publish(NODE_ONE, ELSEWHERE)
    assert text_of(store, NODES + NODE_ONE) == later | {"extra": [str(ELSEWHERE)]}

    store.withdraw(NODE_ONE, ELSEWHERE)
    assert text_of(store, NODES + NODE_ONE) == later


def test_a_record_is_stored_as_the_last_release_reads_it(store: EtcdStore) -> None:
    register_one(store)

    assert text_of(store, NODES + NODE_ONE) == {
        "node_id": 1,
        "vtep": str(VTEP_ONE),
        "pod_cidrs": ["10.244.0.0/24", "fd00:10:244::/64"],
        "extra": [],
        "identity": MACHINE_ONE,
    }


def test_a_node_with_an_unreadable_record_publishes_nothing_and_withdraws_nothing(
    store: EtcdStore,
) -> None:
    register_one(store)
    write(store, NODES + NODE_ONE, "{")

    store.withdraw(NODE_ONE, ELSEWHERE)
    with pytest.raises(StoreError, match="not registered"):
        store.publish(NODE_ONE, ELSEWHERE)


def test_a_record_whose_published_addresses_are_no_list_is_mended_by_a_publication(
    store: EtcdStore,
) -> None:
    one = register_one(store)
    write(store, NODES + NODE_ONE, json.dumps(text_of(store, NODES + NODE_ONE) | {"extra": 7}))

    store.publish(NODE_ONE, ELSEWHERE)

    assert store.nodes() == (replace(one, extra=(ELSEWHERE,)),)


def test_keys_that_are_not_text_are_set_aside_one_by_one(store: EtcdStore) -> None:
    register_one(store)
    prefix = store.keyspace.gateway.location.prefix.encode()
    keys = [b64encode(prefix + NODES.encode() + byte).decode() for byte in (b"\xfe", b"\xff")]
    store.keyspace.gateway.call("kv/txn", {"success": [put_key(key, "{}") for key in keys]})

    assert list(store.listing().rejected) == [r"\udcfe", r"\udcff"]


def test_what_a_listing_names_can_be_removed_whatever_its_bytes(store: EtcdStore) -> None:
    register_one(store)
    prefix = store.keyspace.gateway.location.prefix.encode()
    names = (b"\xfe", b"\\xfe", b"a\nb", b"x" * 1000)
    keys = [b64encode(prefix + NODES.encode() + name).decode() for name in names]
    store.keyspace.gateway.call("kv/txn", {"success": [put_key(key, "{}") for key in keys]})
    shown = list(store.listing().rejected)
    assert len(shown) == len(names)

    assert all(store.remove(name) for name in shown)

    assert store.listing().rejected == {}
    assert [node.name for node in store.nodes()] == [NODE_ONE]


def test_a_value_that_is_too_large_is_set_aside_unread(store: EtcdStore) -> None:
    one = register_one(store)
    write(store, f"{NODES}large", "[" * 200_000)

    listing = store.listing()

    assert listing.nodes == (one,)
    assert "bytes, more than" in listing.rejected["large"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"instance": 7}', '{"instance": "\\u001b[31m"}'])
def test_a_sign_of_life_that_is_none_of_ours_is_printable(store: EtcdStore, text: str) -> None:
    register_one(store)
    store.heartbeat(NODE_ONE, instance="us")
    write(store, f"{RIVALS}{NODE_ONE}", text)

    rival = store.heartbeat(NODE_ONE, instance="us")

    assert rival is None or str(rival).isprintable()


# Watching


def test_heartbeats_and_places_wake_no_watch(store: EtcdStore) -> None:
    register_one(store)
    stop = threading.Event()
    batches = changes(store.keyspace, revision(store) + 1, stop)
    for number in range(3):
        another_process(store).heartbeat(NODE_ONE, instance=f"{number}")
    register_two(store)

    seen = [set(next(batches)) for _ in range(2)]  # the first only says that the watch began
    stop.set()

    assert {NODE_TWO} in seen
    assert all(names in ({NODE_TWO}, set()) for names in seen)


def test_a_cluster_removed_under_a_watch_is_an_error(store: EtcdStore) -> None:
    register_one(store)
    with closing(watch(store)) as events:
        assert [type(next(events)) for _ in range(2)] == [Put, Synced]

        erase(store, CLUSTER_KEY)

        with pytest.raises(StoreError, match="there is no cluster"):
            next(events)


def test_a_watch_that_etcd_has_forgotten_the_beginning_of_is_an_error(store: EtcdStore) -> None:
    register_one(store)
    register_two(store)
    store.keyspace.gateway.call("kv/compaction", {"revision": str(revision(store))})

    with pytest.raises(StoreError, match="has forgotten what changed since revision 1"):
        list(changes(store.keyspace, 1, threading.Event()))


def test_a_silent_watch_ends_as_soon_as_it_is_told_to(store: EtcdStore) -> None:
    stop = threading.Event()
    events = store.watch(stop)
    assert next(events) == Synced()
    threading.Timer(0.2, stop.set).start()

    started = time.monotonic()

    assert list(events) == []
    assert time.monotonic() - started < 2


def test_a_watch_that_is_told_to_stop_before_it_begins_asks_nothing(store: EtcdStore) -> None:
    stop = threading.Event()
    stop.set()

    assert list(store.watch(stop)) == []


# etcd goes, and comes back


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Etcd]:
    with running(tmp_path) as server:
        server.wait()
        yield server


def test_an_etcd_that_ends_under_a_watch_is_an_error_and_removes_no_node(mortal: Etcd) -> None:
    url = mortal.url()
    store = EtcdStore.open(url, CLUSTER)
    record = register_one(store)
    with closing(watch(store)) as events:
        assert [type(next(events)) for _ in range(2)] == [Put, Synced]

        mortal.stop()

        with pytest.raises(StoreError, match=r"etcd at 127\.0\.0\.1:\d+ "):
            next(events)
    for call in (store.nodes, lambda: next(watch(store)), lambda: store.heartbeat(NODE_ONE)):
        with pytest.raises(StoreError, match=r"does not answer: .*Connection refused") as caught:
            call()
    assert "check that etcd runs" in caught.value.hint

    mortal.start()
    mortal.wait()

    with closing(watch(store)) as events:
        assert next(events) == Put(NODE_ONE, record)
        assert next(events) == Synced()


def test_a_name_that_cannot_be_resolved_is_told_with_its_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    with pytest.raises(StoreError) as caught:
        EtcdStore.open("etcd://etcd.example,10.0.0.1:2379", CLUSTER)

    assert (
        "etcd.example:2379: its name cannot be resolved: Temporary failure in name resolution; "
        "10.0.0.1:2379: "
    ) in caught.value.message


def test_an_etcd_that_lost_its_data_is_an_error_and_not_a_cluster_without_nodes(
    mortal: Etcd,
) -> None:
    store = EtcdStore.open(mortal.url(), CLUSTER)
    register_one(store)
    mortal.stop()
    (mortal.directory / "data").rename(mortal.directory / "lost")
    mortal.start()
    mortal.wait()

    for call in (store.nodes, lambda: next(watch(store)), lambda: register_one(store)):
        with pytest.raises(StoreError, match="there is no cluster"):
            call()


def test_an_etcd_without_a_majority_is_an_error_within_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "CALL_TIMEOUT", 0.3)
    absent = "--initial-cluster-state=existing"
    with running(tmp_path) as server:
        server.wait()
        store = EtcdStore.open(server.url(), CLUSTER)
        member = {"peerURLs": ["http://127.0.0.1:1"]}
        store.keyspace.gateway.call("cluster/member/add", member)
        server.stop()
        server.options = (absent,)
        server.start()

        with pytest.raises((StoreError, TryAgain), match="answer"):
            store.nodes()


def test_the_next_endpoint_is_asked_when_one_is_down(etcd: Etcd) -> None:
    url = etcd.url()
    down_first = url.replace("etcd://", "etcd://127.0.0.1:1,")

    register_one(EtcdStore.open(down_first, CLUSTER))

    assert [node.name for node in EtcdStore.open(url, CLUSTER).nodes()] == [NODE_ONE]


# Others who answer


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "is not etcd"),
        (200, b"[]", "is not etcd"),
        (404, b"not found", "has no /v3/kv/range"),
        (503, b'{"error": "no leader", "code": 14}', "cannot answer now: no leader"),
        (504, b'{"error": "timed out", "code": 4}', "cannot answer now: timed out"),
        (429, b'{"error": "database space exceeded", "code": 8}', "database space exceeded"),
        (500, b"{}", "refuses: no reason given"),
    ],
)
def test_an_answer_that_is_no_good_is_an_error(status: int, body: bytes, message: str) -> None:
    with (
        answers(status, body) as endpoint,
        pytest.raises((StoreError, TryAgain)) as caught,
    ):
        EtcdStore.open(f"etcd://{endpoint}", CLUSTER, create=False)

    assert message in caught.value.message
    assert caught.value.hint


def test_what_does_not_speak_http_is_an_error() -> None:
    with answers(0, b"") as endpoint, pytest.raises(StoreError, match="does not answer"):
        EtcdStore.open(f"etcd://{endpoint}", CLUSTER)


def test_a_full_etcd_refuses_changes_and_says_what_to_do(mortal: Etcd) -> None:
    store = EtcdStore.open(mortal.url(), CLUSTER)
    store.keyspace.gateway.call("maintenance/alarm", {"action": "ACTIVATE", "alarm": "NOSPACE"})

    with pytest.raises(StoreError, match=r"refuses: .*space exceeded") as caught:
        register_one(store)

    assert "compact and defragment" in caught.value.hint
    assert store.nodes() == ()


# URLs


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("etcd:http://one", "it must begin with etcd:// or etcds://"),
        ("etcd://", "'' is not a host"),
        ("etcd://one,,two", "'' is not a host"),
        ("etcd://one:port", "Port could not be cast"),
        ("etcd://one:70000", "Port out of range"),
        ("etcd://user:secret@one", "is not a host"),
        ("etcd://one?colour=red", "unknown option 'colour'"),
        ("etcd://one?ca", "bad query field"),
        ("etcd://one?ca=/ca.pem", "are for etcds://"),
        ("etcds://one?cert=/cert.pem", "cert and key need each other"),
        ("etcds://one?user=me", "user and password_file need each other"),
        ("etcds://one?ca=ca.pem", "ca must be an absolute path"),
    ],
)
def test_a_url_that_is_wrong_is_refused_with_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        open_store(url, CLUSTER)

    assert problem in caught.value.message
    assert "etcd://HOST:2379" in caught.value.hint


def test_hosts_ports_and_prefix_have_defaults() -> None:
    location = gateway.Location.parse("etcd://one,[2001:db8::1]:4001")

    assert location.endpoints == (("one", 2379), ("2001:db8::1", 4001))
    assert location.prefix == "/pycni/"
    assert str(location) == "etcd at one:2379,[2001:db8::1]:4001"


def test_files_that_never_end_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    location = gateway.Location.parse(f"etcd://127.0.0.1:1?user=me&password_file={pipe}")

    with pytest.raises(FileError, match=r"cannot be used: .*it is a device"):
        gateway.Gateway(gateway.Location.parse("etcds://127.0.0.1:1?ca=/dev/zero"))
    with pytest.raises(FileError, match=r"cannot be read: .*it is a pipe"):
        gateway.Gateway(location).call("kv/range", {})


# Users


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """An etcd that wants a password: of root, or of the user pods, who may use /pods/."""
    directory = tmp_path_factory.mktemp("guarded")
    for name, text in (("password", PASSWORD), ("wrong", "battery staple")):
        (directory / name).write_text(f"{text}\n")
    with running(directory) as server:
        server.wait()
        client = gateway.Gateway(gateway.Location.parse(server.url()))
        everything = {"permType": "READWRITE", **below("/pods/")}
        for user, role in (("root", "root"), ("pods", "pods")):
            client.call("auth/role/add", {"name": role})
            client.call("auth/user/add", {"name": user, "password": PASSWORD})
            client.call("auth/user/grant", {"user": user, "role": role})
        client.call("auth/role/grant", {"name": "pods", "perm": everything})
        client.call("auth/enable", {})
        yield server


def below(prefix: str) -> dict[str, str]:
    return {"key": to_base64(prefix), "range_end": to_base64(prefix[:-1] + "0")}


def test_a_user_with_permission_is_served(guarded: Etcd) -> None:
    password = guarded.directory / "password"
    store = EtcdStore.open(guarded.url("pods", user="pods", password_file=password), CLUSTER)

    record = store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE)
    with closing(watch(store)) as events:
        assert isinstance(next(events), Put)
        assert next(events) == Synced()
        assert store.remove(record.name)
        assert next(events).name == NODE_ONE


def test_a_token_that_has_ended_is_renewed(guarded: Etcd) -> None:
    password = guarded.directory / "password"
    store = EtcdStore.open(guarded.url("pods", user="pods", password_file=password), CLUSTER)
    store.keyspace.gateway._token = "long.gone"

    assert store.nodes() == ()


@pytest.mark.parametrize(
    ("prefix", "options", "message", "hint"),
    [
        ("pods", {}, "refuses: etcdserver: user name is empty", "give user and password_file"),
        (
            "pods",
            {"user": "pods", "password_file": "wrong"},
            "refuses: etcdserver: authentication failed",
            "give user and password_file",
        ),
        (
            "elsewhere",
            {"user": "pods", "password_file": "password"},
            "refuses: etcdserver: permission denied",
            "grant the user readwrite",
        ),
    ],
)
def test_a_user_without_permission_is_told_what_to_do(
    guarded: Etcd, prefix: str, options: dict[str, str], message: str, hint: str
) -> None:
    if "password_file" in options:
        options = options | {"password_file": f"{guarded.directory}/{options['password_file']}"}

    with pytest.raises(StoreError) as caught:
        EtcdStore.open(guarded.url(prefix, **options), CLUSTER)

    assert message in caught.value.message
    assert hint in caught.value.hint
    assert PASSWORD not in str(caught.value)


def test_a_password_that_cannot_be_read_is_told(guarded: Etcd) -> None:
    with pytest.raises(FileError, match="password of etcd's user pods cannot be read"):
        EtcdStore.open(guarded.url("pods", user="pods", password_file="/none"), CLUSTER)


def test_an_etcd_with_users_is_warned_of_only_for_its_lack_of_tls(
    guarded: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = guarded.directory / "password"
    store = EtcdStore.open(guarded.url("pods", user="pods", password_file=password), CLUSTER)
    assert store.warnings() == []

    monkeypatch.setattr(gateway.Location, "is_local", False)

    (text,) = store.warnings()
    assert "without TLS" in text
    assert "etcds://" in text


def test_an_etcd_that_answers_anybody_is_warned_of(store: EtcdStore) -> None:
    (text,) = store.warnings()

    assert "answers without credentials" in text
    assert "docs/store.md" in text


@pytest.mark.parametrize(
    ("hosts", "local"),
    [("127.0.0.1", True), ("[::1]:7,localhost", True), ("127.0.0.1,192.0.2.1", False),
     ("etcd.example", False)],
)  # fmt: skip
def test_what_is_this_machine(hosts: str, local: bool) -> None:
    assert gateway.Location.parse(f"etcd://{hosts}").is_local is local


# Certificates


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """An etcd that speaks TLS with those who show a certificate of its authority's."""
    directory = tmp_path_factory.mktemp("encrypted")
    for authority in ("ca", "other-ca"):
        make_authority(directory, authority)
    for name in ("server", "client"):
        make_certificate(directory, name, authority="ca")
    tls = (
        *(f"--cert-file={directory}/server.pem", f"--key-file={directory}/server.key"),
        *("--client-cert-auth", f"--trusted-ca-file={directory}/ca.pem"),
    )
    with running(directory, *tls, scheme="https") as server:
        server.wait(server.url(**credentials(server)))
        yield server


def credentials(server: Etcd, *, ca: str = "ca") -> dict[str, Path]:
    directory = server.directory
    return {
        "ca": directory / f"{ca}.pem",
        "cert": directory / "client.pem",
        "key": directory / "client.key",
    }


def test_an_etcd_with_tls_is_used_and_watched(encrypted: Etcd) -> None:
    store = EtcdStore.open(encrypted.url(**credentials(encrypted)), CLUSTER)
    stop = threading.Event()
    events = store.watch(stop)
    assert next(events) == Synced()

    record = register_one(store)

    assert next(events) == Put(NODE_ONE, record)
    assert next(events) == Synced()
    threading.Timer(0.2, stop.set).start()
    assert list(events) == []


def test_an_etcd_that_wants_certificates_is_not_warned_of(encrypted: Etcd) -> None:
    assert EtcdStore.open(encrypted.url(**credentials(encrypted)), CLUSTER).warnings() == []


def test_an_etcd_of_another_authority_is_not_believed(encrypted: Etcd) -> None:
    url = encrypted.url(**credentials(encrypted, ca="other-ca"))

    with pytest.raises(StoreError, match="its certificate is not accepted"):
        EtcdStore.open(url, CLUSTER)


def test_an_etcd_that_wants_a_certificate_refuses_without(encrypted: Etcd) -> None:
    with pytest.raises(StoreError, match="does not answer"):
        EtcdStore.open(encrypted.url(ca=encrypted.directory / "ca.pem"), CLUSTER)


def test_an_etcd_that_speaks_tls_is_not_asked_without(encrypted: Etcd) -> None:
    with pytest.raises(StoreError) as caught:
        EtcdStore.open(encrypted.url().replace("etcds:", "etcd:"), CLUSTER)

    assert "scheme in store" in caught.value.hint


@pytest.mark.parametrize("days", [(-20, -10), (10, 20)])
def test_a_certificate_of_another_time_asks_for_the_clock(
    tmp_path: Path, days: tuple[int, int]
) -> None:
    make_authority(tmp_path, "ca")
    make_certificate(tmp_path, "server", authority="ca", days=days)
    tls = (f"--cert-file={tmp_path}/server.pem", f"--key-file={tmp_path}/server.key")
    with running(tmp_path, *tls, scheme="https") as server:
        url = server.url(ca=tmp_path / "ca.pem")
        message = _eventually(url)

    assert "its certificate is not accepted" in message
    assert "is the clock of this machine right?" in message


def _eventually(url: str) -> str:
    """What is said once something listens."""
    for _ in range(500):
        with pytest.raises(StoreError) as caught:
            EtcdStore.open(url, CLUSTER)
        if "Connection refused" not in caught.value.message:
            break
        time.sleep(0.02)
    return caught.value.message


@pytest.mark.parametrize("broken", ["ca", "cert", "key"])
def test_a_certificate_that_cannot_be_used_is_told(encrypted: Etcd, broken: str) -> None:
    options = credentials(encrypted) | {broken: Path("/none.pem")}

    what = "certificate authority" if broken == "ca" else "client certificate with its key"
    with pytest.raises(FileError, match=rf"^the {what} for etcd at .* cannot be used") as caught:
        EtcdStore.open(encrypted.url(**options), CLUSTER)

    assert "/none.pem" in caught.value.hint
