# SPDX-License-Identifier: Apache-2.0
"""`pycni drops --follow`: any number of followers see the same events, with an agent or without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from loader import pins
from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import POD_IFNAME, LabNode
from pycni.settings import load
from support.flows import send_frames
from support.labs import made_lab, pycni, setup
from support.waiting import wait_until

ENOUGH = 16 * (os.cpu_count() or 1)
"""Drops of which one at least is an event: each CPU counts its own, and tells of one in 16."""


def spoofed(number: int) -> bytes:
    """IPv4 from 192.0.2.7, which no pod has, with `number` as its identification."""
    return bytes.fromhex(
        f"0270 7963 6e69 0200 0000 0099 0800 4500 0014 {number:04x} 0000 4001 0000 "
        "c000 0207 0af4 0002"
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=1, pods=1) as made:
        yield made


@contextmanager
def agent_dead(lab: Lab) -> Iterator[None]:
    (node,) = lab.layout.nodes
    lab.stop_agent(node, kill=True)
    try:
        yield
    finally:
        if node.name not in lab.agents:
            start_agent(lab)


def start_agent(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)


class Follower:
    """`pycni drops --follow`, and what it printed so far."""

    def __init__(self, node: LabNode) -> None:
        self._process = subprocess.Popen(
            processes.inside(node.netns, pycni_command(node, "drops", "--follow", "-o", "json")),
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._unread = b""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self) -> list[dict[str, Any]]:
        """Those of spoofed packets."""
        assert self._process.stdout is not None
        *lines, self._unread = (self._unread + (self._process.stdout.read() or b"")).split(b"\n")
        found = [json.loads(line) for line in lines]
        self._events += [event for event in found if event.get("reason") == "SPOOFED_SOURCE"]
        return self._events

    def numbers(self) -> list[int]:
        """Of the packets: what `spoofed` was called with."""
        return [int(event["head"][36:40], 16) for event in self.events()]


def drop(lab: Lab, number: int, *, count: int = ENOUGH) -> None:
    (pod,) = lab.layout.pods
    send_frames(pod.netns, POD_IFNAME, [spoofed(number)] * count)


def wait_until_following(lab: Lab, *followers: Follower) -> int:
    """Until each has seen an event; the number of the first packet that was not sent yet."""
    sent = iter(range(1000, 60000))

    def all_heard() -> bool:
        drop(lab, next(sent))
        return all(follower.numbers() for follower in followers)

    wait_until(all_heard, "all followers hear of drops")
    return next(sent)


def test_two_followers_see_the_same_events(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    with Follower(node) as one, Follower(node) as other:
        begin = wait_until_following(lab, one, other)
        for number in range(begin, begin + 5):
            drop(lab, number)
        wait_until(
            lambda: all(begin + 4 in follower.numbers() for follower in (one, other)), "the last"
        )
        seen = [
            [event for event in follower.events() if int(event["head"][36:40], 16) >= begin]
            for follower in (one, other)
        ]

    assert [event["head"] for event in seen[0]] == [event["head"] for event in seen[1]]
    assert len(seen[0]) >= 5


@pytest.mark.parametrize("alive", [True, False], ids=["by the agent", "without one"])
def test_a_follower_sees_nothing_old_and_says_when_in_utc(lab: Lab, alive: bool) -> None:
    (node,) = lab.layout.nodes
    drop(lab, 1)
    begin = datetime.now(UTC)
    if alive:
        with Follower(node) as follower:
            wait_until_following(lab, follower)
            events = follower.events()
    else:
        with agent_dead(lab), Follower(node) as follower:
            wait_until_following(lab, follower)
            events = follower.events()

    for event in events:
        assert int(event["head"][36:40], 16) >= 1000
        assert begin <= datetime.fromisoformat(event["time"]) <= datetime.now(UTC)


def test_without_an_agent_a_second_reader_is_told_who_the_first_is(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    with agent_dead(lab), Follower(node) as first:
        wait_until_following(lab, first)

        second = pycni(node, "drops", "--follow")

        assert second.returncode == 1
        assert f"locked by process {first.pid}".encode() in second.stderr


def test_an_agent_that_starts_is_given_the_ring_and_serves_others_too(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    with agent_dead(lab), Follower(node) as first:
        wait_until_following(lab, first)

        start_agent(lab)

        with Follower(node) as second:
            begin = wait_until_following(lab, second)
            drop(lab, begin)
            wait_until(lambda: begin in first.numbers(), "the first still follows")


def test_a_follower_goes_on_when_the_agent_is_killed(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    with Follower(node) as follower:
        begin = wait_until_following(lab, follower)
        with agent_dead(lab):

            def heard() -> bool:
                drop(lab, begin)
                return begin in follower.numbers()

            wait_until(heard, "the follower reads on")


def test_a_follower_that_is_stopped_delays_no_other(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    with Follower(node) as stopped, Follower(node) as other:
        wait_until_following(lab, stopped, other)
        os.kill(stopped.pid, signal.SIGSTOP)
        for number in range(2, 22):  # more events than a socket takes
            drop(lab, number, count=5000)
            wait_until(partial(has, other, number), "the other goes on")


def test_a_ring_that_a_setup_made_anew_is_followed(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    with Follower(node) as follower:
        begin = wait_until_following(lab, follower)
        pins.map_path(load(node.settings_path).pin_root, "events").unlink()

        setup(node)

        def heard() -> bool:
            drop(lab, begin)
            return begin in follower.numbers()

        wait_until(heard, "events of the new programs")


def test_an_agent_that_is_stopped_leaves_no_socket(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    settings = load(node.settings_path)
    wait_until(settings.event_socket_path.exists, "the agent serves followers")
    lab.stop_agent(node)
    try:
        assert not settings.event_socket_path.exists()
        assert not settings.socket_path.exists()
    finally:
        start_agent(lab)


def has(follower: Any, number: int) -> bool:
    return number in follower.numbers()
