# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/cluster_store.py: what the store's events make of the tables, and how much is
touched for that."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loader.errors import VerifierError
from pycni import stores
from pycni.agent import cluster_store
from pycni.agent.cluster_store import Memory, Until
from pycni.dataplane import maps
from pycni.dataplane.maps import Self, Vtep
from pycni.dataplane.reconcile import plan
from pycni.errors import NotAvailable, SetupError, StoreError
from pycni.line_limit import LineLimit
from pycni.node.report import LEFT_OUT, SET_ASIDE
from pycni.pods import port_table
from pycni.stores import (
    NodeRecord,
    Put,
    Rejected,
    Removed,
    Synced,
)
from unit.agent.runs import OneRun

CLUSTER = ip_network("10.0.0.0/8")
US = NodeRecord("us", 1, ip_address("192.0.2.1"), (ip_network("10.0.0.0/24"),))
OUR_SECOND = ip_address("192.0.2.77")
"""An address of this node that is in no record."""
MANY = 5000


class Reported(dict[str, Any]):
    """In the place of an agent's report."""

    def put(self, section: str, value: Any) -> None:
        self[section] = value


@dataclass
class Table:
    """A pinned map, as far as peers.py uses it."""

    entries: dict[Any, Any] = field(default_factory=dict)
    touched: int = 0
    room: int = 10 * MANY

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def put(self, key: Any, value: Any) -> None:
        self.touched += 1
        if key not in self.entries and len(self.entries) >= self.room:
            raise OSError(errno.E2BIG, "full")
        self.entries[key] = value

    def remove(self, key: Any) -> None:
        self.touched += 1
        self.entries.pop(key, None)

    def get(self, key: Any) -> Any:
        return self.entries.get(key)

    def items(self) -> list[tuple[Any, Any]]:
        self.touched += len(self.entries)
        return list(self.entries.items())

    def plan(self, want: Any, *, synced: bool) -> Any:
        return plan(dict(self.items()), want, synced=synced)


def _replace(have: set[Any], wanted: Iterable[Any]) -> None:
    have.clear()
    have.update(wanted)


def _change(have: set[Any], *, create: Iterable[Any], delete: Iterable[Any]) -> None:
    have.difference_update(delete)
    have.update(create)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(vteps=Table(), remotes=Table(), nodes=Table(), clients=set())
    monkeypatch.setattr(maps, "open_nodes", lambda _: made.nodes)
    monkeypatch.setattr(maps, "open_self", lambda _: made.own)
    made.own = Table({None: Self(US.vtep, 0)})
    monkeypatch.setattr(port_table, "write_nodes", lambda nodes: _replace(made.clients, nodes))
    monkeypatch.setattr(port_table, "change_nodes", partial(_change, made.clients))
    monkeypatch.setattr(maps, "open_vteps", lambda _: made.vteps)
    monkeypatch.setattr(maps, "open_remotes", lambda _: made.remotes)
    return made


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Follow a store that tells of these events."""

    memory = Memory(Reported())
    memory.growth.take("setup")  # there was one a moment ago
    monkeypatch.setattr(cluster_store, "_own_addresses", lambda: frozenset({OUR_SECOND}))

    def run(*events):
        store = SimpleNamespace(watch=lambda _: iter(events))
        monkeypatch.setattr(cluster_store, "open_store", lambda *_, **__: store)
        settings = SimpleNamespace(
            node_name="us", store_url="", cluster=None, run_dir=tmp_path, pin_root=tmp_path
        )
        changes: list[str] = []
        one = OneRun()
        cluster_store.follow(
            settings, one, changed=lambda: changes.append("changed"), memory=memory
        )
        return one.rounds, len(changes)

    run.memory = memory
    return run


def others(count: int) -> list[NodeRecord]:
    cidrs = islice(CLUSTER.subnets(new_prefix=24), 1, count + 1)
    return [
        NodeRecord(f"n{number}", number, ip_address("198.18.0.0") + number, (cidr,))
        for number, cidr in enumerate(cidrs, 2)
    ]


def puts(nodes: list[NodeRecord]) -> list[Put[NodeRecord]]:
    return [Put(node.name, node) for node in nodes]


def expect(
    tables: SimpleNamespace, nodes: list[NodeRecord], *, left_out: Iterable[NodeRecord] = ()
) -> None:
    assert tables.vteps.entries == {node.vtep: Vtep(node.node_id) for node in nodes}
    assert tables.remotes.entries == {cidr: node.vtep for node in nodes for cidr in node.pod_cidrs}
    known = {one: node.vtep for node in [*nodes, *left_out] for one in (node.vtep, *node.addresses)}
    own = {US.vtep: US.vtep} if nodes else {}
    assert tables.nodes.entries == known | own
    assert tables.clients == known.keys()


def test_the_first_list_replaces_what_the_tables_had(follow, tables) -> None:
    (two,) = others(1)
    tables.vteps.entries[ip_address("192.0.2.99")] = Vtep(99)

    follow(Put(US.name, US), Put(two.name, two), Synced())

    expect(tables, [two])


def test_a_list_that_mends_an_entry_of_any_table_is_logged(follow, tables, caplog) -> None:
    (two,) = others(1)
    told = (Put(US.name, US), Put(two.name, two), Synced())
    follow(*told)
    tables.nodes.entries[two.vtep] = US.vtep
    caplog.set_level("INFO")

    follow(*told)

    expect(tables, [two])
    assert [one for one in caplog.messages if "entries_changed=1" in one]


def test_nothing_is_written_before_a_batch_is_complete(follow, tables) -> None:
    follow(Put(US.name, US), *puts(others(1)))

    expect(tables, [])


def test_a_join_touches_its_own_entries_however_many_nodes_there_are(follow, tables) -> None:
    nodes = others(MANY)
    listed = [Put(US.name, US), *puts(nodes[:-1]), Synced()]
    follow(*listed)
    first = tables.vteps.touched + tables.remotes.touched
    again = 2 * len(nodes[:-1])  # the tables are read once, and are right

    follow(*listed, *puts(nodes[-1:]), Synced())

    expect(tables, nodes)
    assert tables.vteps.touched + tables.remotes.touched - first == again + 2
    assert tables.nodes.touched == 2 * MANY + 1  # written once, read once, and the new one


def test_all_addresses_of_a_node_lead_to_it_and_come_and_go_with_the_record(follow, tables) -> None:
    (two,) = others(1)
    several = replace(two, addresses=(two.vtep, ip_address("2001:db8::2"), ip_address("10.1.1.1")))
    fewer = replace(two, addresses=(two.vtep, ip_address("2001:db8::3")))
    listed = [Put(US.name, US), Put(two.name, several), Synced()]

    follow(*listed)
    expect(tables, [several])
    follow(*listed, Put(two.name, fewer), Synced())

    expect(tables, [fewer])


def test_nodes_that_change_places_at_once_both_have_theirs(follow, tables) -> None:
    two, three = others(2)
    swapped = [replace(two, vtep=three.vtep), replace(three, vtep=two.vtep)]

    follow(
        Put(US.name, US),
        Put(two.name, two),
        Put(three.name, three),
        Synced(),
        *puts(swapped),
        Synced(),
    )

    expect(tables, swapped)


def test_a_place_that_changed_hands_is_the_heirs(follow, tables) -> None:
    (two,) = others(1)
    heir = replace(two, name="heir", node_id=9)

    follow(
        Put(US.name, US),
        Put(two.name, two),
        Synced(),
        Removed(two.name),
        Put(heir.name, heir),
        Synced(),
    )

    expect(tables, [heir])


def test_what_changed_while_we_were_not_known_is_written_when_we_are(follow, tables) -> None:
    two, three = others(2)
    listed = [Put(US.name, US), Put(two.name, two), Synced()]
    unknown = [Removed("us"), Removed(two.name), Put(three.name, three), Synced()]
    follow(*listed, *unknown)
    expect(tables, [two])

    follow(*listed, *unknown, Put(US.name, US), Synced())

    expect(tables, [three])


def test_a_record_that_is_set_aside_takes_its_entries_along_and_is_logged_once(
    follow, tables, caplog: pytest.LogCaptureFixture
) -> None:
    two, three = others(2)
    bad = Rejected(three.name, "its VTEP is odd")
    caplog.set_level("INFO")

    follow(*puts([US, two, three]), Synced(), bad, Synced())
    follow(*puts([US, two]), bad, Synced())

    expect(tables, [two])
    told = [line for line in caplog.messages if "set aside" in line]
    assert told == [f'record set aside node={three.name} reason="its VTEP is odd"']

    caplog.clear()
    follow(*puts([US, two, three]), Synced())

    expect(tables, [two, three])
    assert f"record no longer set aside node={three.name}" in caplog.messages


@pytest.mark.usefixtures("tables")
def test_who_follows_the_vteps_is_told_of_changes_only(follow) -> None:
    listed = [*puts([US, *others(1)]), Synced()]

    assert follow(*listed, Synced()) == (2, 1)


@pytest.mark.usefixtures("tables")
def test_a_store_that_does_not_know_us_is_said_once_and_is_not_well(follow, caplog) -> None:
    assert follow(*puts(others(1)), Synced(), Synced()) == (0, 0)

    (line,) = caplog.messages
    assert "does not know this node" in line


def test_other_threads_are_told_of_all_nodes_with_each_batch(follow, tables) -> None:
    two, three = others(2)

    follow(Put(US.name, US), Put(two.name, two), Synced(), Put(three.name, three))
    before = follow.memory.known.nodes, follow.memory.known.version
    follow(Put(US.name, US), Put(two.name, two), Put(three.name, three), Synced())

    assert before == ((US, two), 1)
    assert (follow.memory.known.nodes, follow.memory.known.version) == ((US, two, three), 2)
    assert tables.vteps.entries


def test_other_threads_are_told_of_a_store_without_this_node(follow, tables) -> None:
    """It is not believed, but what it lists is what is wrong with it."""
    (two,) = others(1)

    follow(Put(two.name, two), Synced())

    assert follow.memory.known.nodes == (two,)
    assert tables.vteps.entries == {}


def test_more_nodes_than_the_maps_hold_are_left_out_and_named_and_the_others_work(
    follow, tables, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = others(4)
    tables.vteps.room = 3

    follow(*puts([US, *nodes]), Synced())

    expect(tables, nodes[:3], left_out=nodes[3:])
    assert follow.memory.report[LEFT_OUT] == {"count": 1, "names": [nodes[3].name]}
    assert f"left_out=1 first={nodes[3].name}" in caplog.text


def test_a_node_that_was_left_out_gets_its_place_when_another_goes(follow, tables) -> None:
    nodes = others(4)
    tables.vteps.room = 3

    follow(*puts([US, *nodes]), Synced(), Removed(nodes[0].name), Synced())

    expect(tables, nodes[1:])
    assert follow.memory.report[LEFT_OUT]["count"] == 0


def test_a_prefix_for_which_there_is_no_room_leaves_its_node_out(follow, tables) -> None:
    nodes = others(4)
    tables.remotes.room = 3

    follow(*puts([US, *nodes]), Synced())

    assert follow.memory.report[LEFT_OUT]["names"] == [nodes[3].name]
    assert len(tables.remotes.entries) == 3


def test_another_error_of_a_map_is_raised(follow, tables, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(tables.vteps, "put", refuse)

    with pytest.raises(PermissionError):
        follow(*puts([US, *others(1)]), Synced())


@pytest.mark.parametrize("error", [NotAvailable("no table"), SetupError("no nftables")])
def test_sets_that_cannot_be_written_keep_nobody_from_following(
    follow, tables, monkeypatch, error
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(port_table, "write_nodes", refuse)
    monkeypatch.setattr(port_table, "change_nodes", refuse)
    nodes = others(2)

    follow(*puts([US, nodes[0]]), Synced(), *puts(nodes[1:]), Synced())

    assert tables.nodes.entries == {node.vtep: node.vtep for node in (US, *nodes)}
    assert len(follow.memory.known.nodes) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vtep": OUR_SECOND}, "its VTEP 192.0.2.77 is an address of this node"),
        (
            {"extra": (ip_network(OUR_SECOND),)},
            "the address 192.0.2.77/32 that it published is one of this node",
        ),
    ],
)
def test_an_address_of_this_node_that_no_record_has_is_not_another_nodes(
    follow, tables, change, reason
) -> None:
    two, three = others(2)

    follow(*puts([US, two, replace(three, **change)]), Synced())

    expect(tables, [two])
    assert follow.memory.report[SET_ASIDE] == {three.name: reason}


def test_a_record_that_changes_all_the_time_is_a_few_lines(follow, tables, caplog) -> None:
    two, three = others(2)
    caplog.set_level("INFO")
    bad = Rejected(three.name, "its VTEP is odd")

    flips = [
        event for _ in range(200) for event in (bad, Synced(), Put(three.name, three), Synced())
    ]
    follow(*puts([US, two]), Synced(), *flips)

    expect(tables, [two, three])
    assert len(caplog.messages) < 20


@pytest.mark.usefixtures("tables")
def test_a_crowd_of_bad_records_is_a_few_lines(follow, caplog) -> None:
    crowd = [Rejected(f"evil{number}", "it is not a JSON object") for number in range(MANY)]

    follow(*puts([US, *others(1)]), *crowd, Synced())

    assert len(caplog.messages) < 25
    assert f"records={MANY}" in caplog.text


def test_a_watch_ends_when_its_time_is_over_and_when_the_agent_stops() -> None:
    stop = threading.Event()

    assert Until(stop, 0.0).is_set()
    later = Until(stop, 1000.0)
    assert not later.wait(0.0)
    stop.set()
    assert later.wait(1000.0)


@pytest.mark.usefixtures("tables")
def test_all_is_read_again_when_a_watch_has_lasted_long_enough(monkeypatch) -> None:
    watches: list[object] = []
    one = OneRun()
    monkeypatch.setattr(stores, "RESYNC", 0.0)
    monkeypatch.setattr(cluster_store, "_own_addresses", frozenset)

    def watch(end):
        watches.append(end)
        if len(watches) == 3:
            one.end()
        return iter(())

    store = SimpleNamespace(watch=watch)
    monkeypatch.setattr(cluster_store, "open_store", lambda *_, **__: store)
    settings = SimpleNamespace(node_name="us", store_url="", cluster=None)

    cluster_store.follow(settings, one, changed=lambda: None, memory=Memory(Reported()))

    assert len(watches) == 3


def test_a_setup_makes_room_for_nodes_that_are_left_out(follow, tables, monkeypatch) -> None:
    nodes = others(4)
    tables.vteps.room = 3
    follow.memory.growth = LineLimit()
    monkeypatch.setattr(
        cluster_store.provision, "setup", lambda _: setattr(tables.vteps, "room", 8)
    )

    follow(*puts([US, *nodes]), Synced())

    expect(tables, nodes)
    assert follow.memory.report[LEFT_OUT]["count"] == 0


@pytest.mark.parametrize("error", [StoreError("away"), VerifierError("no")])
def test_a_setup_that_fails_leaves_the_others_working(
    follow, tables, monkeypatch, caplog, error
) -> None:
    nodes = others(4)
    tables.vteps.room = 3
    follow.memory.growth = LineLimit()

    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(cluster_store.provision, "setup", refuse)

    follow(*puts([US, *nodes]), Synced())

    expect(tables, nodes[:3], left_out=nodes[3:])
    assert "maps not made larger" in caplog.text
