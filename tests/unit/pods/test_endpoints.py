# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/endpoints.py: an address is one link's, until it is released or its link is gone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane.maps import Endpoint
from pycni.errors import DataplaneError, StoreError, TryAgain
from pycni.pods import endpoints, resting
from pycni.pods.lease import Lease

POD_ONE, POD_TWO = ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")
LIVING = 7
GONE = 8
RENAMED = 9
MAC = "02:00:00:00:00:01"


class Table(dict[IPAddress, Endpoint]):
    """Stands in for the pinned map."""

    room = 100

    def insert(self, key: IPAddress, value: Endpoint) -> bool:
        if key in self:
            return False
        if len(self) >= self.room:
            raise OSError(errno.E2BIG, "Argument list too long")
        self[key] = value
        return True

    put = dict.__setitem__

    def remove(self, key: IPAddress) -> bool:
        return self.pop(key, None) is not None

    def items(self):
        return list(super().items())


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    names = {LIVING: "pcn0123456789ab", RENAMED: "other0", 1: "lo"}

    def name(index: int) -> str:
        if index not in names:
            raise OSError(errno.ENXIO, "No such device or address")
        return names[index]

    monkeypatch.setattr(socket, "if_nameindex", lambda: list(names.items()))
    monkeypatch.setattr(socket, "if_indextoname", name)
    return Table()


def nothing(_: Sequence[IPAddress]) -> None:
    """For addresses that nothing depends on."""


def release(table: Table, address: IPAddress, ifindex: int, *, run_dir: Path) -> int:
    return endpoints.release(table, {address: ifindex}, run_dir=run_dir, clean_up=nothing)


def test_an_address_is_reserved_once(table: Table) -> None:
    assert endpoints.reserve(table, POD_ONE, Endpoint(LIVING, MAC))
    assert not endpoints.reserve(table, POD_ONE, Endpoint(RENAMED, MAC))

    assert table == {POD_ONE: Endpoint(LIVING, MAC)}


def test_a_full_map_is_told(table: Table) -> None:
    table.room = 0

    with pytest.raises(DataplaneError, match="full"):
        endpoints.reserve(table, POD_ONE, Endpoint(LIVING, MAC))


def test_only_the_link_that_has_an_address_releases_it(table: Table, tmp_path: Path) -> None:
    table[POD_ONE] = Endpoint(LIVING, MAC)

    released = [release(table, POD_ONE, one, run_dir=tmp_path) for one in (GONE, LIVING, LIVING)]

    assert released == [0, 1, 0]
    assert table == {}


def test_an_address_that_is_given_back_rests(table: Table, tmp_path: Path) -> None:
    table[POD_ONE] = table[POD_TWO] = Endpoint(LIVING, MAC)

    release(table, POD_ONE, LIVING, run_dir=tmp_path)
    release(table, POD_TWO, GONE, run_dir=tmp_path)

    assert set(resting.Resting(tmp_path)) == {POD_ONE}


def test_addresses_of_one_link_are_cleaned_up_together(table: Table, tmp_path: Path) -> None:
    table[POD_ONE] = table[POD_TWO] = Endpoint(LIVING, MAC)
    table[POD_TWO + 1] = Endpoint(RENAMED, MAC)
    seen: list[list[IPAddress]] = []
    owners = endpoints.owned(table, LIVING)  # type: ignore[arg-type]

    released = endpoints.release(
        table, owners, run_dir=tmp_path, clean_up=lambda some: seen.append(list(some))
    )

    assert released == 2
    assert seen == [[POD_ONE, POD_TWO]]
    assert set(table) == {POD_TWO + 1}


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_an_address_that_somebody_works_on_is_waited_for_or_left(
    table: Table, tmp_path: Path, timeout: float
) -> None:
    table[POD_ONE] = table[POD_TWO] = Endpoint(LIVING, MAC)
    owners = dict.fromkeys((POD_ONE, POD_TWO), LIVING)
    outcome = pytest.raises(TryAgain) if timeout else nullcontext()

    with locks.address_lock(tmp_path, POD_ONE), outcome:
        endpoints.release(table, owners, run_dir=tmp_path, clean_up=nothing, timeout=timeout)

    assert set(table) == ({POD_ONE, POD_TWO} if timeout else {POD_ONE})


def test_what_depends_on_an_address_goes_before_its_entry(table: Table, tmp_path: Path) -> None:
    table[POD_ONE] = Endpoint(LIVING, MAC)
    seen: list[bool] = []

    endpoints.release(
        table,
        {POD_ONE: LIVING},
        run_dir=tmp_path,
        clean_up=lambda some: seen.extend(one in table for one in some),
    )

    assert seen == [True]


def test_entries_that_are_missing_or_different_are_problems(table: Table) -> None:
    table[POD_ONE] = Endpoint(LIVING, MAC)
    table[POD_TWO] = Endpoint(RENAMED, MAC)

    found = endpoints.problems(table, [POD_ONE, POD_TWO, POD_TWO + 1], Endpoint(LIVING, MAC))

    assert [problem.rpartition(" for ")[2] for problem in found] == [str(POD_TWO), str(POD_TWO + 1)]
    assert "None" in found[1]


def test_a_sweep_releases_what_has_no_link_and_nothing_else(table: Table, tmp_path: Path) -> None:
    table[POD_ONE] = Endpoint(GONE, MAC)
    table[POD_TWO] = Endpoint(LIVING, MAC)
    table[POD_TWO + 1] = Endpoint(RENAMED, MAC)

    assert endpoints.sweep_all(table, run_dir=tmp_path, clean_up=nothing) == 1

    assert set(table) == {POD_TWO, POD_TWO + 1}


@pytest.mark.parametrize(("others", "found"), [(0, {1, RENAMED}), (100, {RENAMED})])
def test_a_renamed_link_is_looked_for_among_few_links_or_among_those_with_addresses(
    table: Table, monkeypatch: pytest.MonkeyPatch, others: int, found: set[int]
) -> None:
    table[POD_ONE] = Endpoint(LIVING, MAC)
    table[POD_TWO] = Endpoint(RENAMED, MAC)
    links = [*socket.if_nameindex(), *((100 + number, f"eth{number}") for number in range(others))]
    monkeypatch.setattr(socket, "if_nameindex", lambda: links)

    assert endpoints.renamed(table) == found


def test_what_cannot_be_released_stays_and_does_not_stop_a_sweep(
    table: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table[POD_ONE] = Endpoint(GONE, MAC)
    table[POD_TWO] = Endpoint(GONE, MAC)

    def stuck(addresses: Sequence[IPAddress]) -> None:
        if POD_ONE in addresses:
            raise StoreError("away")

    assert endpoints.sweep_all(table, run_dir=tmp_path, clean_up=stuck) == 1

    assert set(table) == {POD_ONE}
    assert "not released" in caplog.text


def test_many_orphans_are_cleaned_up_in_batches(table: Table, tmp_path: Path) -> None:
    orphans = [POD_ONE + number for number in range(2 * endpoints.BATCH + 1)]
    table.room = len(orphans)
    for address in orphans:
        table.insert(address, Endpoint(GONE, MAC))
    sizes: list[int] = []

    released = endpoints.sweep_all(
        table, run_dir=tmp_path, clean_up=lambda some: sizes.append(len(some))
    )

    assert released == len(orphans)
    assert sizes == [endpoints.BATCH, endpoints.BATCH, 1]
    assert table == {}


def nobody_may(ifindex: int, address: IPAddress) -> bool:
    raise AssertionError(f"only entries of other links matter, not {address} of {ifindex}")


def test_lost_and_wrong_entries_of_leases_come_back(table: Table, tmp_path: Path) -> None:
    lease = Lease(
        "", "podnet", "c0ffee", "eth0", MAC, (POD_ONE, POD_TWO), masquerade=True, ifindex=LIVING
    )
    table[POD_TWO] = Endpoint(LIVING, MAC, masquerade=False)

    def restore() -> int:
        return endpoints.restore(
            table, lease.addresses, lease.endpoint, run_dir=tmp_path, may_have=nobody_may
        )

    assert [restore(), restore()] == [2, 0]

    assert table == {POD_ONE: lease.endpoint, POD_TWO: lease.endpoint}


@pytest.mark.parametrize(("may_have", "owner"), [(True, RENAMED), (False, LIVING)])
def test_an_address_is_taken_only_from_a_link_that_may_not_have_it(
    table: Table, tmp_path: Path, may_have: bool, owner: int
) -> None:
    table[POD_ONE] = Endpoint(RENAMED, MAC)
    asked: list[tuple[int, IPAddress]] = []

    def ask(ifindex: int, address: IPAddress) -> bool:
        asked.append((ifindex, address))
        return may_have

    now = Endpoint(LIVING, MAC)
    restored = endpoints.restore(table, (POD_ONE,), now, run_dir=tmp_path, may_have=ask)

    assert restored == (owner == LIVING)
    assert asked == [(RENAMED, POD_ONE)]
    assert table[POD_ONE].ifindex == owner


def test_an_update_changes_entries_of_the_link_and_makes_none(table: Table, tmp_path: Path) -> None:
    table[POD_ONE] = Endpoint(LIVING, MAC)
    now = Endpoint(LIVING, "02:00:00:00:00:42", shaped=True, queued=True)

    assert endpoints.update(table, (POD_ONE, POD_TWO), now, run_dir=tmp_path) == 1
    assert table == {POD_ONE: now}
