# SPDX-License-Identifier: Apache-2.0
"""Plans: complete, careful while unsynced, and written before deleted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.dataplane.reconcile import Plan, apply, plan

TABLES = st.dictionaries(st.integers(0, 9), st.integers(0, 3))


class RecordingTable(dict[int, int]):
    """A table that notes what was done to it, in order."""

    def __init__(self, entries: dict[int, int]) -> None:
        super().__init__(entries)
        self.steps: list[tuple[str, int]] = []

    def put(self, key: int, value: int) -> None:
        self.steps.append(("put", key))
        self[key] = value

    def remove(self, key: int) -> None:
        self.steps.append(("remove", key))
        del self[key]


class FullTable(RecordingTable):
    """A table that takes nothing more."""

    def __setitem__(self, key: int, value: int) -> None:
        raise OSError(7, f"Argument list too long for {key}: {value}")


@given(TABLES, TABLES)
def test_applying_a_synced_plan_gives_what_is_wanted(
    have: dict[int, int], want: dict[int, int]
) -> None:
    table = RecordingTable(have)

    apply(plan(have, want, synced=True), table)

    assert table == want


@given(TABLES, TABLES)
def test_an_unsynced_plan_never_deletes(have: dict[int, int], want: dict[int, int]) -> None:
    table = RecordingTable(have)

    apply(plan(have, want, synced=False), table)

    assert table == {**have, **want}


@given(TABLES, TABLES)
def test_every_upsert_comes_before_every_delete(have: dict[int, int], want: dict[int, int]) -> None:
    table = RecordingTable(have)

    apply(plan(have, want, synced=True), table)

    verbs = [verb for verb, _ in table.steps]
    assert verbs == sorted(verbs)


@given(TABLES)
def test_nothing_changes_when_all_is_as_wanted(have: dict[int, int]) -> None:
    changes = plan(have, dict(have), synced=True)

    assert not changes
    assert changes == Plan({}, ())


@given(TABLES)
def test_an_empty_want_from_an_unsynced_source_changes_nothing(have: dict[int, int]) -> None:
    assert not plan(have, {}, synced=False)


def test_other_entries_survive_one_entrys_update() -> None:
    changes = plan({1: 1, 2: 2}, {1: 1, 2: 3}, synced=True)

    assert changes == Plan({2: 3}, ())


def test_a_failing_put_deletes_nothing() -> None:
    table = FullTable({1: 1})

    with pytest.raises(OSError, match="Argument list too long"):
        apply(plan({1: 1}, {2: 2}, synced=True), table)

    assert table == {1: 1}
