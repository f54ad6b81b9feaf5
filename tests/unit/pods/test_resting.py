# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/resting.py: an address rests for a while, whatever the log is like."""

from __future__ import annotations

import logging
import stat
from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.pods import resting
from pycni.pods.resting import FORMER_LOG, LOG, REST, Resting

POD_ONE, POD_TWO, POD_SIX = map(ip_address, ("10.244.1.2", "10.244.1.22", "fd00:10:244:1::2"))
SECOND = 1000
NOON = 5_000_000
"""Milliseconds of a clock that the tests set."""


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(resting, "_now", made)
    return made


def test_nothing_rests_at_the_beginning(tmp_path: Path) -> None:
    assert list(Resting(tmp_path / "absent")) == []
    assert Resting(tmp_path).since(POD_ONE) is None


def test_an_address_rests_since_it_was_given_back_last(tmp_path: Path, clock: Clock) -> None:
    resting.rest(tmp_path, [POD_ONE, POD_SIX])
    clock.now += 5 * SECOND
    resting.rest(tmp_path, [POD_ONE])

    now = Resting(tmp_path)

    assert [now.since(one) for one in (POD_ONE, POD_SIX)] == [NOON + 5 * SECOND, NOON]
    assert now.since(POD_TWO) is None
    assert set(now) == {POD_ONE, POD_SIX}
    assert stat.S_IMODE((tmp_path / LOG).stat().st_mode) == 0o600


@pytest.mark.parametrize(("later", "rests"), [(REST - 1, True), (REST, False), (-1, False)])
def test_a_rest_ends_and_a_boot_ends_it(
    tmp_path: Path, clock: Clock, later: float, rests: bool
) -> None:
    resting.rest(tmp_path, [POD_ONE])
    clock.now += int(later * SECOND)

    assert (Resting(tmp_path).since(POD_ONE) is not None) is rests


def test_the_log_stays_short_and_forgets_nothing_that_rests(tmp_path: Path, clock: Clock) -> None:
    addresses = [POD_ONE + number for number in range(20_000)]
    step = int(REST * SECOND) // 5000
    for address in addresses:
        resting.rest(tmp_path, [address])
        clock.now += step

    now = Resting(tmp_path)

    assert all(now.since(address) is not None for address in addresses[-4900:])
    assert all(now.since(address) is None for address in addresses[:-5000])
    sizes = [(tmp_path / name).stat().st_size for name in (LOG, FORMER_LOG)]
    assert sum(sizes) < 2.5 * 5000 * len(f"{NOON} {POD_ONE}\n")


@pytest.mark.usefixtures("clock")
def test_a_line_of_a_full_disk_harms_only_itself(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b"%d 10.24" % NOON)
    resting.rest(tmp_path, [POD_ONE])
    resting.rest(tmp_path, [POD_TWO])

    assert [Resting(tmp_path).since(one) for one in (POD_ONE, POD_TWO)] == [None, NOON]


@pytest.mark.parametrize("content", [b"\xff\0", b"nonsense 10.244.1.2\n", b" 10.244.1.2\n"])
def test_a_damaged_log_means_that_nothing_rests(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOG).write_bytes(content)

    assert list(Resting(tmp_path)) == []


def test_a_log_that_cannot_be_written_fails_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        resting.rest(tmp_path / "absent", [POD_ONE])

    assert "do not rest" in caplog.text


def test_teardown_removes_both_logs(tmp_path: Path) -> None:
    for name in (LOG, FORMER_LOG):
        (tmp_path / name).touch()

    for _ in range(2):
        resting.teardown(tmp_path)

    assert list(tmp_path.iterdir()) == []
