# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/event_filter.py: what the kernel leaves out, and that it leaves out nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycni.kernel import link_events
from pycni.kernel.event_filter import HOST_END_AS_IT_SHALL_BE, ONLY_FLAGS, Pattern
from pycni.kernel.event_socket import EventSocket
from pycni.kernel.links import RTM_DELLINK, RTM_NEWLINK, read_link
from pycni.kernel.netlink import messages
from pycni.kernel.netlink_socket import RTMGRP_LINK
from pycni.names import ALIAS_HEAD, GATEWAY_MAC
from support.kernel import entered, iproute, netns, veth
from support.waiting import wait_until

pytestmark = pytest.mark.root

HOST_END, OTHER_MAC = "pcn0123456789ab", "02:00:00:00:00:42"
SOON = 5.0
"""Seconds, for what must come."""
PROMISC = 0x100
"""IFF_PROMISC of linux/if.h."""


class World:
    """A namespace with a link, and what is heard of it."""

    def __init__(self, ipr: Any, ifname: str) -> None:
        self.ipr = ipr
        self.index, self.peer = veth(ipr, ifname, "two0")
        self.set(address=GATEWAY_MAC, IFLA_IFALIAS=f"{ALIAS_HEAD} id=one")
        self.set(state="up")
        wait_until(self.is_settled, "the kernel has told of its carrier")

    def is_settled(self) -> bool:
        (link,) = self.ipr.link("get", index=self.index)
        return str(link.get("operstate")).upper() == "UP"

    def set(self, **changes: Any) -> None:
        self.ipr.link("set", index=self.index, **changes)

    def heard(
        self, pattern: Pattern, happen: Callable[[], object], *, within: float = 0.1
    ) -> list[str]:
        """The names of links in the first events about the link, each once; of its carrier the
        kernel tells up to a second later (linkwatch)."""
        with EventSocket(RTMGRP_LINK, without=[pattern]) as events:
            happen()
            until = time.monotonic() + within
            names: list[str] = []
            while not names and (left := until - time.monotonic()) > 0:
                events.wait(left)
                bodies = [one.body for event in events.take() or [] for one in messages(event.data)]
                names = [one.ifname for one in map(read_link, bodies) if one.ifindex == self.index]
        return names


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with netns() as path, entered(path), iproute(path) as ipr:
        yield World(ipr, getattr(request, "param", HOST_END))


def off_and_on_by_the_pod(world: World) -> None:
    for state in ("up", "down", "up"):
        world.ipr.link("set", index=world.peer, state=state)


def test_a_pod_that_switches_its_link_makes_no_event_of_the_host_end(world: World) -> None:
    happen = [lambda: off_and_on_by_the_pod(world), lambda: world.set(mtu=1400)]

    assert [world.heard(HOST_END_AS_IT_SHALL_BE, one, within=1.5) for one in happen] == [[], []]


@pytest.mark.parametrize("change", [
    {"state": "down"}, {"address": OTHER_MAC}, {"ifname": "other"}, {"IFLA_IFALIAS": "mine"},
])  # fmt: skip
def test_a_host_end_that_is_not_as_it_shall_be_is_heard_of(
    world: World, change: dict[str, str]
) -> None:
    if "ifname" in change:
        world.set(state="down")

    assert world.heard(HOST_END_AS_IT_SHALL_BE, lambda: world.set(**change), within=SOON) != []


def test_its_end_is_heard_of(world: World) -> None:
    def end() -> None:
        world.ipr.link("del", index=world.index)

    assert world.heard(HOST_END_AS_IT_SHALL_BE, end, within=SOON) == [HOST_END]


@pytest.mark.parametrize("world", ["eth0", "pc", "p"], indirect=True)
def test_other_links_are_heard_of(world: World) -> None:
    happen = [lambda: off_and_on_by_the_pod(world), lambda: world.set(mtu=1400)]

    assert all(world.heard(HOST_END_AS_IT_SHALL_BE, one, within=SOON) for one in happen)


@pytest.mark.parametrize("change", [{"state": "down"}, {"flags": PROMISC, "change": PROMISC}])
def test_an_event_of_flags_only_is_left_out(world: World, change: dict[str, Any]) -> None:
    assert world.heard(ONLY_FLAGS, lambda: world.set(**change)) == []


def test_another_mac_and_a_new_link_are_heard_of_beside_flags(world: World) -> None:
    assert world.heard(ONLY_FLAGS, lambda: world.set(address=OTHER_MAC), within=SOON) == [HOST_END]
    with EventSocket(RTMGRP_LINK, without=[ONLY_FLAGS]) as events:
        veth(world.ipr, "new0", "new1")
        assert events.wait(SOON)


def test_the_kernel_leaves_out_other_kinds_of_events() -> None:
    with (
        netns() as path,
        entered(path),
        iproute(path) as ipr,
        EventSocket(RTMGRP_LINK, kinds=(RTM_DELLINK,)) as ends,
        EventSocket(RTMGRP_LINK, kinds=(RTM_NEWLINK, RTM_DELLINK)) as all_links,
    ):
        index, _ = veth(ipr, "one0", "two0")
        assert not ends.wait(0.1)
        assert all_links.wait(SOON)
        ipr.link("del", index=index)

        assert ends.wait(1.0)
        assert {link.ifname for link in link_events.ended(ends.take() or [])} == {"one0", "two0"}
