# SPDX-License-Identifier: Apache-2.0
"""pycni/node/report.py and cluster_faults.py: what the agent tells other processes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.node import cluster_faults, report
from pycni.node.report import BLOCKS, LEFT_OUT, PEERS, RIVAL, SET_ASIDE, Report
from pycni.stores import Listing, Liveness


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    return SimpleNamespace(
        run_dir=tmp_path / "run", pin_root=tmp_path, node_name="n1", port=4789, probe_interval=20
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(report.time, "monotonic", made)
    monkeypatch.setattr(report.read, "__defaults__", (made,))
    return made


@pytest.fixture
def written(settings: Any, clock: Clock) -> Report:
    return Report(settings, clock)


LISTING = Listing(
    nodes=(),
    liveness={"n2": Liveness(alive=True), "n3": Liveness(alive=False)},
    rejected={"n9": "its VTEP is odd"},
)


def test_a_report_about_thousands_of_nodes_takes_no_more_than_its_text(
    settings: Any, written: Report
) -> None:
    row = {"name": "node-1.example", "forwards": True, "answers": True, "seen": 1234.5}
    written.put_table(PEERS, ((str(number), row) for number in range(5_000)))  # to be replaced
    rows = {str(number): row | {"seen": 1235.5} for number in range(5_000)}
    tracemalloc.start()
    try:
        written.put_table(PEERS, rows.items())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.read(settings) == {PEERS: rows}
    assert most < 1.2 * report.report_path(settings).stat().st_size


def test_what_an_agent_reports_is_read_until_it_is_old(
    settings: Any, written: Report, clock: Clock
) -> None:
    written.put(RIVAL, "with VTEP 192.0.2.1")
    written.put_table(PEERS, iter([("192.0.2.2", {})]))
    assert report.read(settings) == {RIVAL: "with VTEP 192.0.2.1", PEERS: {"192.0.2.2": {}}}

    clock.now += report.AGE_MAX

    assert report.read(settings) == {}


def test_a_report_of_before_the_reboot_counts_for_nothing(
    settings: Any, written: Report, clock: Clock
) -> None:
    written.put(RIVAL, "x")

    clock.now = 1.0

    assert report.read(settings) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"written": "now"}', "[" * 100_000, "\xff"])
def test_a_file_that_is_no_report_is_none(settings: Any, text: str) -> None:
    settings.run_dir.mkdir()
    report.report_path(settings).write_bytes(text.encode("latin-1"))

    assert report.read(settings) == {}


def test_the_same_is_not_written_again_before_it_gets_old(
    settings: Any, written: Report, clock: Clock
) -> None:
    written.put(RIVAL, "")
    before = report.report_path(settings).stat().st_ino
    written.put(RIVAL, "")
    assert report.report_path(settings).stat().st_ino == before

    clock.now += report.RENEWAL
    written.put(RIVAL, "")

    assert report.read(settings) == {RIVAL: ""}
    clock.now += report.RENEWAL * 4
    assert report.read(settings) == {RIVAL: ""}


def test_a_directory_that_cannot_be_written_is_one_line_and_no_error(
    settings: Any, written: Report, caplog: pytest.LogCaptureFixture
) -> None:
    settings.run_dir.write_text("a file in the way")

    for number in range(5):
        written.put(RIVAL, str(number))

    assert len(caplog.messages) == 1
    assert "report not written" in caplog.text


def test_nothing_reported_is_no_fault(settings: Any) -> None:
    assert cluster_faults.faults(settings, None) == []
    assert "no other node was asked" in cluster_faults.summary(settings)


@pytest.mark.usefixtures("clock")
def test_each_thing_that_is_reported_is_a_fault_of_its_own(settings: Any, written: Report) -> None:
    row = {"forwards": False, "answers": False, "seen": None}
    written.put(RIVAL, "with VTEP 192.0.2.77")
    written.put(SET_ASIDE, {"n8": "its VTEP 192.0.2.1 is an address of this node", "n9": "odd"})
    written.put(LEFT_OUT, {"count": 2, "names": ["n6", "n7"]})
    written.put(PEERS, {"a": row | {"name": "n2"}, "b": row | {"name": "n3"}})

    found = {fault.part: fault.sentence for fault in cluster_faults.faults(settings, LISTING)}

    assert "node name n1 is also that of another machine, with VTEP 192.0.2.77" in found["name"]
    assert found["records"].startswith("the record of n8 is set aside: its VTEP")
    assert found["reachability"].startswith("node n2 is not reached, neither")
    texts = [fault.sentence for fault in cluster_faults.faults(settings, LISTING)]
    assert any("no room for 2 nodes, such as n6, n7" in text for text in texts)
    assert not any("n3" in text or "n9" in text for text in texts)


@pytest.mark.usefixtures("clock")
def test_the_summary_counts_nodes_that_answer(settings: Any, written: Report) -> None:
    written.put(PEERS, {"a": {"forwards": True}, "b": {"forwards": None}})

    assert cluster_faults.summary(settings) == "1 of 2 answer through the overlay"


@pytest.mark.usefixtures("clock")
def test_pools_that_cannot_be_used_and_a_shortage_are_faults(
    settings: Any, written: Report
) -> None:
    written.put(BLOCKS, {"problem": "no IPPool has a free block", "hint": "make another",
                         "full": True, "set_aside": {"bad": "it overlaps"}})  # fmt: skip

    aside, short = cluster_faults.faults(settings, None)

    assert aside.sentence == "the IPPool bad is set aside: it overlaps"
    assert short.sentence == "the supply of addresses is short: no IPPool has a free block"
    assert (aside.part, short.part, short.todo) == ("pools", "pools", "make another")
    written.put(BLOCKS, {"problem": "", "hint": "", "full": False, "set_aside": {}})
    assert cluster_faults.faults(settings, None) == []
