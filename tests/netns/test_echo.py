# SPDX-License-Identifier: Apache-2.0
"""The lab's meter of lost packets: what it calls lost was lost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pycni.lab import peer

MANY = 60_000
"""More replies than a receive buffer of any usual size has room for."""
SOME = 1_500
"""More requests than a send buffer of any usual size has room for."""
FAR = "10.99.0.2"


def test_a_sender_that_is_late_from_the_first_packet_on_misses_no_reply() -> None:
    """With an interval of zero it never has time to wait."""
    words = ("echo", "127.0.0.1", "--count", str(MANY), "--interval", "0")

    done = subprocess.run(
        [sys.executable, "-IS", str(peer.__file__), *words],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip

    (answer,) = json.loads(done.stdout)
    assert answer["sent"] == answer["received"] == MANY
    assert answer["unread"] == 0


@pytest.fixture
def slow_link() -> Iterator[tuple[str, str]]:
    """Namespaces with a link between them that takes a while for SOME requests, and drops none."""
    near, far = "echo-near", "echo-far"
    for name in (near, far):
        _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", "near", "netns", near, "type", "veth",
             "peer", "name", "far", "netns", far)  # fmt: skip
        for name, address in ((near, "10.99.0.1"), (far, FAR)):
            device = name.removeprefix("echo-")
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", device)
            _run("ip", "-n", name, "link", "set", device, "up")
        _run("tc", "-n", near, "qdisc", "add", "dev", "near", "root",
             "tbf", "rate", "2mbit", "burst", "2kb", "limit", "10mb")  # fmt: skip
        _echo(near, "--count", "1")  # each knows the other's MAC then
        yield near, far
    finally:
        for name in (near, far):
            _run("ip", "netns", "del", name)


@pytest.mark.root
def test_a_sender_whose_link_is_slow_calls_nothing_lost_that_it_could_not_send(
    slow_link: tuple[str, str],
) -> None:
    near, _ = slow_link

    answer = _echo(near, "--count", str(SOME), "--interval", "0", "--grace", "5")

    assert (answer["sent"], answer["missing"], answer["errors"]) == (SOME, [], 0)


@pytest.mark.root
def test_what_is_missing_is_told(slow_link: tuple[str, str]) -> None:
    near, far = slow_link
    _run("ip", "-n", far, "address", "del", f"{FAR}/24", "dev", "far")

    answer = _echo(near, "--count", "5", "--grace", "0.1")

    assert (answer["received"], answer["missing"]) == (0, [[0, 4]])


@pytest.mark.root
def test_replies_without_room_are_told() -> None:
    """Such a packet was answered: it was not lost on its way."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        raw.connect(("127.0.0.1", 0))
        for sequence in range(SOME):
            raw.send(peer.request(4, 1, sequence, 56))

        assert peer.overflows(raw) > 0


def _echo(netns: str, *words: str) -> dict[str, Any]:
    """What the peer says of FAR."""
    script = (sys.executable, "-IS", str(peer.__file__), "echo", FAR, *words)
    answer: dict[str, Any]
    (answer,) = json.loads(_run("ip", "netns", "exec", netns, *script).stdout)
    return answer


def _run(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, check=True, capture_output=True, timeout=60)
