# SPDX-License-Identifier: Apache-2.0
"""Rows of `pycni status`: what a state is, and what a person is told to do."""

from __future__ import annotations

import errno
import time
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loader.errors import AttachError
from loader.probe import Feature
from pycni.errors import NotAvailable, SetupError
from pycni.faults import Fault, Weight
from pycni.node.reachability import Local
from pycni.settings import Settings
from pycni.stores import DIRECT, IPIP, VXLAN, NodeRecord
from pycni.upkeep import report, underlay
from pycni.upkeep.book import Book, Rest, Tally
from pycni.upkeep.part import Part
from pycni.upkeep.report import Row, State

NO_NODE: Any = None
ROUTE = Fault("routes", "the route to 10.244.0.0/16", "gone")
FULL = Fault(
    "directories", "/run/pycni", "on a full file system", "free some space", Weight.DEGRADED
)


def part_rows(*faults: Fault, book: Book | None = None, serving: bool = True) -> list[Row]:
    part = Part("routes", lambda _, __: faults)
    made = report._part_rows(part, [*faults], NO_NODE, NO_NODE, book or Book(), serving=serving)
    return list(made)


@pytest.fixture(autouse=True)
def _no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DETAILS", {})


def test_a_part_without_a_fault_is_one_row() -> None:
    assert part_rows() == [Row("routes", State.OK)]


def test_each_fault_is_a_row() -> None:
    found = part_rows(ROUTE, FULL)

    assert [(row.name, row.state) for row in found] == [
        ("routes", State.BROKEN), ("directories", State.DEGRADED)
    ]  # fmt: skip
    assert found[0].cause == "the route to 10.244.0.0/16 is gone"


@pytest.mark.parametrize(
    "error",
    [SetupError("refused"), AttachError("refused"), OSError(errno.EROFS, "refused")],
    ids=lambda one: type(one).__name__,
)
def test_details_that_cannot_be_had_end_no_status(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def tell(*_: object) -> str:
        raise error

    monkeypatch.setitem(report.DETAILS, "routes", tell)

    (row,) = part_rows()
    assert row.state is State.OK
    assert row.cause.startswith("no details: ")
    assert "refused" in row.cause


@pytest.mark.parametrize("serving", [True, False], ids=["with an agent", "without one"])
def test_a_person_is_told_what_only_a_person_can_do(serving: bool) -> None:
    assert part_rows(FULL, serving=serving)[0].todo == "free some space"


VTEPS = [ip_address(f"192.0.2.{number}") for number in (2, 3, 4)]


def encap_row(monkeypatch: pytest.MonkeyPatch, modes: list[str], *, fresh: bool = True) -> Row:
    """Of a node with `encap = "direct"`; of the others, only those that get it accept it."""
    found = dict(zip(VTEPS, modes, strict=True))
    monkeypatch.setattr(report.next_hops, "modes", lambda _: found)
    monkeypatch.setattr(report.next_hops, "is_fresh", lambda _: fresh)
    others = [
        SimpleNamespace(name=f"n{number}", vtep=vtep, accepts=(DIRECT,) if mode == DIRECT else ())
        for number, (vtep, mode) in enumerate(found.items(), 2)
    ]
    node = SimpleNamespace(direct=True, encap="ebpf")
    d: Any = SimpleNamespace(settings=SimpleNamespace(encap="direct"), node=node, others=others)
    return report._encap(d, "")


def test_how_many_nodes_get_packets_without_vxlan_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    row = encap_row(monkeypatch, [DIRECT, DIRECT, DIRECT])

    assert row == Row("encap", State.OK, "direct: 3 of 3 nodes without VXLAN")


def test_nodes_that_take_nothing_but_vxlan_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = encap_row(monkeypatch, [DIRECT, VXLAN, VXLAN])

    assert row.cause == (
        "direct: 1 of 3 nodes without VXLAN; 2 by VXLAN, made by ebpf; "
        "by their records n3, n4 do not take that"
    )


def test_how_many_nodes_get_ipip_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = SimpleNamespace(name="n2", vtep=VTEPS[0], accepts=(IPIP,))
    monkeypatch.setattr(report.next_hops, "modes", lambda _: {VTEPS[0]: IPIP})
    monkeypatch.setattr(report.next_hops, "is_fresh", lambda _: True)
    node = SimpleNamespace(direct=False, ipip=True, encap="ebpf")
    d: Any = SimpleNamespace(settings=SimpleNamespace(encap="ipip"), node=node, others=[other])

    assert report._encap(d, "") == Row("encap", State.OK, "ipip: 1 of 1 nodes in IPIP")


def test_without_an_agent_the_kernel_is_said_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the kernel is asked" in encap_row(monkeypatch, [DIRECT] * 3, fresh=False).cause


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (NotAvailable("there is no map", hint="run: pycni setup"), State.BROKEN),
        (OSError(1, "Operation not permitted"), State.DEGRADED),
    ],
)
def test_next_hops_that_cannot_be_read_are_no_silence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: State
) -> None:
    def refuse(_: Any) -> None:
        raise error

    monkeypatch.setattr(report.next_hops, "modes", refuse)
    d: Any = SimpleNamespace(
        settings=SimpleNamespace(encap="direct"), node=SimpleNamespace(direct=True)
    )

    assert report._encap(d, "").state is state


def test_traffic_spells_reasons_as_all_other_commands_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tables = {
        "forwarded": [{"packets": 5}],
        "drops": [{"reason": "wrong vni", "packets": 2}, {"reason": "wrong vni", "packets": 1}],
    }
    monkeypatch.setattr(report.dumps, "dump", lambda _, name: (tables[name], ()))

    (row,) = report._traffic(Settings(state_dir=tmp_path))

    assert row.cause == "5 packets forwarded, 3 dropped (WRONG_VNI 3)"


@pytest.mark.parametrize(
    ("drops", "cause"),
    [
        ({}, "5 packets forwarded, 0 dropped"),
        ({"multicast": 7, "unanswered probe": 2},
         "5 packets forwarded, 0 dropped; 9 more drops are normal: pycni drops"),
        ({"multicast": 7, "wrong vni": 1},
         "5 packets forwarded, 1 dropped (WRONG_VNI 1); 7 more drops are normal: pycni drops"),
    ],
)  # fmt: skip
def test_drops_of_what_every_host_sends_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drops: dict[str, int], cause: str
) -> None:
    rows = [{"reason": reason, "packets": count} for reason, count in drops.items()]
    tables = {"forwarded": [{"packets": 5}], "drops": rows}
    monkeypatch.setattr(report.dumps, "dump", lambda _, name: (tables[name], ()))

    (row,) = report._traffic(Settings(state_dir=tmp_path))

    assert row.cause == cause


def test_what_the_agent_mends_needs_an_agent() -> None:
    assert "agent mends it" in part_rows(ROUTE)[0].todo
    assert "pycni setup" in part_rows(ROUTE, serving=False)[0].todo


def test_mends_are_told_with_number_and_time() -> None:
    book = Book(tallies={"routes": Tally(3, time.time() - 12)})
    assert part_rows(book=book)[0].cause == "mended 3 times, last 12 s ago"


def test_a_quarrel_is_told_with_its_other_side() -> None:
    book = Book(rests={("routes", ROUTE.thing): Rest(time.time() + 60, 300, "ip (pid 7)")})

    (row,) = part_rows(ROUTE, book=book)

    assert "undone 3 times in a minute, last by ip (pid 7)" in row.cause
    assert row.todo == "find who undoes it and stop that; then run: pycni setup"


def test_a_quarrel_that_is_over_is_not_told() -> None:
    book = Book(rests={("routes", ROUTE.thing): Rest(time.time() - 1, 300, "ip (pid 7)")})
    assert "undone" not in part_rows(ROUTE, book=book)[0].cause


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ([], State.OK),
        ([State.OK, State.MISSING], State.MISSING),
        ([State.DEGRADED, State.OK], State.DEGRADED),
        ([State.DEGRADED, State.BROKEN, State.OK], State.BROKEN),
    ],
)
def test_a_node_is_as_bad_as_its_worst_part(states: list[State], worst: State) -> None:
    assert report.worst([Row("any", state) for state in states]) is worst


def test_what_a_kernel_lacks_is_not_called_well() -> None:
    lacking = Feature("netkit", available=False, reason="Invalid argument", fallback="veth pairs")

    row = report._feature(lacking)

    assert row.state is State.MISSING
    assert row.cause == "veth pairs (the kernel says: Invalid argument)"


def test_what_cannot_be_missed_is_broken() -> None:
    lacking = Feature("ringbuf", available=False, reason="no", fallback="", needed_by="events")
    assert report._feature(lacking).state is State.BROKEN


@pytest.mark.parametrize(("is_node", "flows"), [(True, True), (False, False)])
def test_packets_flow_without_an_agent_only_on_a_node(is_node: bool, flows: bool) -> None:
    row = report._agent(serving=False, is_node=is_node)

    assert ("packets still flow" in row.cause) is flows
    assert row.todo


def test_a_store_that_is_away_is_degraded(tmp_path: Path) -> None:
    settings = Settings(node_name="one", state_dir=tmp_path)

    listing, (row,) = report._store(settings)

    assert (listing, row.state) == (None, State.DEGRADED)
    assert row.todo


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 nodes in"), (1, "1 node in"), (2, "2 nodes in")]
)
def test_the_nodes_of_the_store_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, words: str
) -> None:
    listing = SimpleNamespace(nodes=[object()] * count, rejected=(), summary="")
    store = SimpleNamespace(listing=lambda: listing)
    monkeypatch.setattr(report, "open_store", lambda *_, **__: store)

    _, (row, *_) = report._store(Settings(state_dir=tmp_path))

    assert row.cause.startswith(words)


def test_causes_on_this_node_are_told_with_the_node_that_they_are_about() -> None:
    other = NodeRecord("n2", 2, VTEPS[0], ())
    d: Any = SimpleNamespace(others=(other,))
    way = Fault(underlay.PART, underlay.thing(other), "nowhere", "give it a route")
    guard = Fault("guard", "nftables table inet pycni_guard", "gone")

    found = list(report._local([way, guard, FULL], d))

    assert found == [
        Local("underlay", "the way to node n2 (192.0.2.2) is nowhere", beside=True, node="n2"),
        Local("guard", "nftables table inet pycni_guard is gone", beside=False),
    ]
