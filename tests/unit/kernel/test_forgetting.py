# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/forgetting.py: who forgets what, and when."""

from __future__ import annotations

import errno
import threading
from collections.abc import Collection
from ipaddress import ip_address

import pytest

from pycni.cluster import IPAddress
from pycni.kernel import forgetting
from pycni.kernel.forgetting import INTERVAL, SHARE, Forgetting
from pycni.kernel.netlink import NetlinkError
from support.waiting import wait_until

POD_ONE, POD_TWO = map(ip_address, ("10.244.1.2", "10.244.1.3"))
POD_SIX, POD_SEVEN = map(ip_address, ("fd00:10:244:1::6", "fd00:10:244:1::7"))


class Kernel:
    """Stands in for connection tracking; `free` lets it work."""

    def __init__(self) -> None:
        self.forgotten: list[set[IPAddress]] = []
        self.free = threading.Event()
        self.begun = threading.Event()
        self.free.set()
        self.error: OSError | None = None
        self.cheap: list[set[IPAddress]] = []

    def forget_each(self, addresses: Collection[IPAddress]) -> list[IPAddress]:
        """As for IPv4 since Linux 6.12."""
        self.cheap.append({one for one in addresses if one.version == 4})
        return [one for one in addresses if one.version != 4]

    def forget(self, addresses: Collection[IPAddress]) -> None:
        self.begun.set()
        assert self.free.wait(10)
        self.forgotten.append(set(addresses))
        if self.error is not None:
            raise self.error


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(forgetting.conntrack, "forget", made.forget)
    monkeypatch.setattr(forgetting.conntrack, "forget_listed", made.forget)
    monkeypatch.setattr(forgetting.conntrack, "forget_each", made.forget_each)
    return made


def test_what_waits_is_forgotten_together_and_once(kernel: Kernel) -> None:
    work = Forgetting()
    work.soon([POD_ONE, POD_SIX])
    work.soon([POD_SIX, POD_SEVEN])

    work.work()
    work.work()

    assert kernel.cheap == [{POD_ONE}]
    assert kernel.forgotten == [{POD_SIX, POD_SEVEN}]


def test_what_is_forgotten_now_waits_no_longer(kernel: Kernel) -> None:
    work = Forgetting()
    work.soon([POD_SIX, POD_SEVEN])

    work.now([POD_SIX])
    work.work()

    assert kernel.forgotten == [{POD_SIX}, {POD_SEVEN}]


def test_who_forgets_now_waits_for_who_is_at_it(kernel: Kernel) -> None:
    """Else the work could forget connections of the address's next pod."""
    work = Forgetting()
    work.soon([POD_SIX])
    kernel.free.clear()
    worker = threading.Thread(target=work.work)
    worker.start()
    assert kernel.begun.wait(10)

    taker = threading.Thread(target=work.now, args=([POD_SIX],))
    taker.start()
    taker.join(0.1)
    waits = taker.is_alive()
    kernel.free.set()
    for thread in (worker, taker):
        thread.join(10)

    assert waits
    assert kernel.forgotten == [{POD_SIX}, {POD_SIX}]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.busy = 7.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.busy

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_listings_take_a_small_part_of_a_processor(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others take of it while a listing is under way does not count."""
    work, clock = Forgetting(), Clock()
    took = iter(((0.01, 0.01), (4.0, 1.0), (2.0, 0.0), (0.0, 0.0)))

    def listed(addresses: Collection[IPAddress]) -> None:
        kernel.forgotten.append(set(addresses))
        passed, busy = next(took)
        clock.now += passed
        clock.busy += busy

    monkeypatch.setattr(forgetting.conntrack, "forget_listed", listed)
    monkeypatch.setattr(forgetting, "time", clock)
    for _ in range(4):
        work.soon([POD_SIX])
        work.work()

    expected = [0.0, INTERVAL - 0.01, (SHARE - 1) * 1.0, INTERVAL - 2.0]
    assert clock.waits == pytest.approx(expected)


def test_who_works_is_woken_when_there_is_work(kernel: Kernel) -> None:
    work = Forgetting()

    def worker() -> None:
        for _ in range(2):
            work.wait()
            work.work()

    thread = threading.Thread(target=worker)
    thread.start()
    work.soon([POD_ONE])
    wait_until(lambda: kernel.cheap == [{POD_ONE}], "it works")
    asleep = thread.is_alive()
    work.soon([POD_TWO])
    thread.join(10)

    assert asleep
    assert kernel.cheap == [{POD_ONE}, {POD_TWO}]


def test_a_kernel_that_cannot_is_logged_and_fails_nobody(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.error = NetlinkError(errno.EINVAL)

    Forgetting().now([POD_ONE])

    assert f"not forgotten addresses={POD_ONE}" in caplog.text
