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
from pycni.kernel.forgetting import LONGEST_WAIT, Forgetting
from pycni.kernel.netlink import NetlinkError

POD_ONE, POD_TWO = ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")


class Kernel:
    """Stands in for connection tracking; `free` lets it work."""

    def __init__(self) -> None:
        self.forgotten: list[set[IPAddress]] = []
        self.free = threading.Event()
        self.begun = threading.Event()
        self.free.set()
        self.error: OSError | None = None

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
    return made


def test_what_waits_is_forgotten_together_and_once(kernel: Kernel) -> None:
    work = Forgetting()
    work.soon([POD_ONE])
    work.soon([POD_ONE, POD_TWO])

    work.work()
    work.work()

    assert kernel.forgotten == [{POD_ONE, POD_TWO}]


def test_what_is_forgotten_now_waits_no_longer(kernel: Kernel) -> None:
    work = Forgetting()
    work.soon([POD_ONE, POD_TWO])

    work.now([POD_ONE])
    work.work()

    assert kernel.forgotten == [{POD_ONE}, {POD_TWO}]


def test_who_forgets_now_waits_for_who_is_at_it(kernel: Kernel) -> None:
    """Else the work could forget connections of the address's next pod."""
    work = Forgetting()
    work.soon([POD_ONE])
    kernel.free.clear()
    worker = threading.Thread(target=work.work)
    worker.start()
    assert kernel.begun.wait(10)

    taker = threading.Thread(target=work.now, args=([POD_ONE],))
    taker.start()
    taker.join(0.1)
    waits = taker.is_alive()
    kernel.free.set()
    for thread in (worker, taker):
        thread.join(10)

    assert waits
    assert kernel.forgotten == [{POD_ONE}, {POD_ONE}]


def test_work_takes_a_small_part_of_the_time(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, slept = [100.0], [0.0]

    def forget(addresses: Collection[IPAddress]) -> None:
        kernel.forgotten.append(set(addresses))
        clock[0] += 0.1 if len(kernel.forgotten) == 1 else 10.0

    monkeypatch.setattr(forgetting.conntrack, "forget", forget)
    monkeypatch.setattr(forgetting.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(forgetting.time, "sleep", slept.append)
    work = Forgetting()
    for _ in range(3):
        work.soon([POD_ONE])
        work.work()

    assert slept[1:] == [0.0, pytest.approx(0.9), LONGEST_WAIT]


def test_a_kernel_that_cannot_is_logged_and_fails_nobody(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.error = NetlinkError(errno.EINVAL)

    Forgetting().now([POD_ONE])

    assert f"not forgotten addresses={POD_ONE}" in caplog.text
