# SPDX-License-Identifier: Apache-2.0
"""Questions and answers: each is accounted for, lost ones by the moment they were asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pycni.kernel.nft import run as run_nft
from pycni.lab import topology
from support import labs
from support.asking import Flow, Heard, Traffic, reflecting
from support.labs import within

pytestmark = pytest.mark.root

PORT = 7000
ADDRESSES = ("127.0.0.1", "::1")
NOWHERE = "198.51.100.1"
"""Without a route in a namespace of its own."""
DROP = """
table ip lossy {
    chain input { type filter hook input priority 0; udp dport 7000 drop; }
}
"""
SECONDS = 1.0
RATE = 40
"""Questions a second."""


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"{labs.SESSION}-ask"
    topology.make_netns(name)
    try:
        yield name
    finally:
        topology.remove_netns(name)


def ask(netns: str, *addresses: str, harm: str = "") -> list[Heard]:
    """For SECONDS, then `harm` the namespace's rules if need be, and ask so long again."""
    flows = [Flow(address, frozenset(), f"{address},{PORT}") for address in addresses]
    traffic = Traffic()
    with ExitStack() as stack:
        traffic.start(netns, flows, stack, patience=0.5)
        time.sleep(SECONDS)
        if harm:
            within(netns, lambda: run_nft(harm, what="the test's rules"))
            time.sleep(SECONDS)
        return traffic.end()


def test_all_answered_is_nothing_lost(netns: str) -> None:
    with reflecting(netns, PORT, ADDRESSES) as reflector:
        heard = ask(netns, *ADDRESSES)
        reflected = reflector.end()

    assert [one.flow.target for one in heard] == [f"{address},{PORT}" for address in ADDRESSES]
    assert all(one.asked > RATE * SECONDS / 2 for one in heard)
    assert [(one.lost, one.unsent, one.unread) for one in heard] == [((), (), 0)] * 2
    assert reflected.came == sum(one.asked for one in heard)
    assert (reflected.unanswered, reflected.unread) == (0, 0)


def test_what_is_dropped_is_lost_from_that_moment_on(netns: str) -> None:
    with reflecting(netns, PORT, ADDRESSES):
        begun = time.monotonic()
        ipv4, ipv6 = ask(netns, *ADDRESSES, harm=DROP)

    assert ipv6.failed == []
    assert min(ipv4.lost) > begun + SECONDS * 0.9
    assert RATE * SECONDS / 2 < len(ipv4.lost) < ipv4.asked
    assert ipv4.unsent == ()


def test_what_cannot_be_sent_is_not_called_lost(netns: str) -> None:
    with reflecting(netns, PORT, ADDRESSES[:1]):
        there, nowhere = ask(netns, ADDRESSES[0], NOWHERE)

    assert there.failed == []
    assert nowhere.lost == ()
    assert [why for _, why in nowhere.unsent] == ["ENETUNREACH"] * nowhere.asked
    assert len(nowhere.failed) == nowhere.asked > 0


def test_a_refused_question_is_lost_and_the_next_one_is_sent(netns: str) -> None:
    (heard,) = ask(netns, ADDRESSES[0])

    assert len(heard.lost) == heard.asked
    assert heard.unsent == ()
