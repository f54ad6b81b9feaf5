# SPDX-License-Identifier: Apache-2.0
"""The kernel's tables, asked and listened to: in a namespace of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path as FilePath
from typing import Any

import pytest

from pycni.kernel import namespaces, netlink_socket
from pycni.kernel.fib import (
    Fib,
    NeighbourChange,
    OtherChange,
    Path,
)
from pycni.kernel.netlink import FAMILIES
from support.kernel import iproute, needs_root, netns, veth

pytestmark = needs_root

NEAR, NEAR6 = ip_address("192.0.2.1"), ip_address("2001:db8:1::1")
ON_LINK, ON_LINK6 = ip_address("192.0.2.7"), ip_address("2001:db8:1::7")
GATEWAY, GATEWAY6 = ip_address("192.0.2.254"), ip_address("2001:db8:1::fe")
FAR, FAR6 = ip_address("198.51.100.7"), ip_address("2001:db8:9::7")
NARROW = ip_address("203.0.113.7")
MAC, OTHER_MAC = "02:00:00:00:00:07", "02:00:00:00:00:08"
PERMANENT = 0x80


class World:
    """A node's namespace: two links, routes over the first."""

    def __init__(self, ipr: Any, netns_fd: int, ifindex: int, other: int) -> None:
        self.ipr, self.ifindex, self.other = ipr, ifindex, other
        self._netns_fd = netns_fd
        self.fib = self.open()

    def open(self) -> Fib:
        return namespaces.inside(self._netns_fd, Fib)

    def set_neighbour(self, address: str, mac: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.ipr.neigh(
            "replace", dst=address, lladdr=mac, ifindex=self.ifindex, state=PERMANENT, family=family
        )


@pytest.fixture
def world() -> Iterator[World]:
    with netns() as path, iproute(path) as ipr, FilePath(path).open() as namespace:
        ifindex, other = veth(ipr, "one", "two")
        for address, length in ((NEAR, 24), (NEAR6, 64)):
            flags = {"flags": 2} if address.version == 6 else {}  # IFA_F_NODAD
            ipr.addr("add", index=ifindex, address=str(address), prefixlen=length, **flags)
        ipr.route("add", dst="198.51.100.0/24", gateway=str(GATEWAY))
        ipr.route("add", dst="2001:db8:9::/64", gateway=str(GATEWAY6))
        ipr.route("add", dst="203.0.113.0/24", oif=ifindex, metrics={"mtu": 1300})
        made = World(ipr, namespace.fileno(), ifindex, other)
        with made.fib:
            yield made


def test_a_path_names_link_and_neighbour(world: World) -> None:
    assert world.fib.paths([ON_LINK, FAR, NARROW], NEAR) == {
        ON_LINK: Path(world.ifindex, ON_LINK, 0),
        FAR: Path(world.ifindex, GATEWAY, 0),
        NARROW: Path(world.ifindex, NARROW, 1300),
    }
    assert world.fib.paths([ON_LINK6, FAR6], NEAR6) == {
        ON_LINK6: Path(world.ifindex, ON_LINK6, 0),
        FAR6: Path(world.ifindex, GATEWAY6, 0),
    }


def test_an_ipv4_path_may_lead_to_an_ipv6_neighbour(world: World) -> None:
    """RFC 8950, as BGP between hosts and switches sets it."""
    via = {"family": socket.AF_INET6, "addr": str(GATEWAY6)}
    world.ipr.route("replace", dst="198.51.100.0/24", via=via, oif=world.ifindex)

    assert world.fib.paths([FAR], NEAR) == {FAR: Path(world.ifindex, GATEWAY6, 0)}


def test_there_is_no_path_to_nowhere_to_ourselves_or_from_a_strange_address(world: World) -> None:
    nowhere = ip_address("233.252.0.1")
    unrouted = ip_address("100.64.0.1")

    assert world.fib.paths([unrouted, nowhere, NEAR], NEAR) == {}
    assert world.fib.paths([ON_LINK], FAR) == {}


def test_thousands_are_asked_for_at_once(world: World) -> None:
    asked = [ip_address(f"198.51.100.{n}") for n in range(1, 250)] * 10

    assert len(world.fib.paths(asked, NEAR)) == 249


def test_nothing_is_asked_for_nothing(world: World) -> None:
    assert world.fib.paths([], NEAR) == {}
    assert world.fib.links([]) == {}


def test_a_link_tells_mac_mtu_and_state(world: World) -> None:
    found = world.fib.links([world.ifindex, 9999])

    (link,) = found.values()
    message = next(iter(world.ipr.get_links(world.ifindex)))
    assert link.is_running
    assert link.is_ethernet
    assert (link.ifindex, link.mtu, link.mac) == (world.ifindex, 1500, message.get("address"))


def test_a_link_that_is_down_or_no_ethernet_says_so(world: World) -> None:
    world.ipr.link("set", index=world.other, state="down")

    loopback, link = world.fib.links([1, world.ifindex]).values()

    assert not link.is_running
    assert not loopback.is_ethernet


def test_neighbours_are_those_the_kernel_would_send_to(world: World) -> None:
    world.set_neighbour(str(ON_LINK), MAC)
    world.set_neighbour(str(ON_LINK6), MAC)
    incomplete = {"dst": str(GATEWAY), "ifindex": world.ifindex, "state": 0x20}  # NUD_FAILED
    world.ipr.neigh("add", **incomplete)

    found = {key: mac for key, mac in world.fib.neighbours().items() if not key[1].is_multicast}
    assert found == {
        (world.ifindex, ON_LINK): MAC,
        (world.ifindex, ON_LINK6): MAC,
    }


def test_changes_of_neighbours_are_told_one_by_one(world: World) -> None:
    world.fib.changes()
    world.set_neighbour(str(ON_LINK), MAC)
    world.set_neighbour(str(ON_LINK), OTHER_MAC)
    world.ipr.neigh("del", dst=str(ON_LINK), ifindex=world.ifindex)

    told = world.fib.changes() or []

    assert [change for change in told if isinstance(change, NeighbourChange)][:2] == [
        NeighbourChange(world.ifindex, ON_LINK, MAC),
        NeighbourChange(world.ifindex, ON_LINK, OTHER_MAC),
    ]
    assert told[-1] == NeighbourChange(world.ifindex, ON_LINK, None)


def test_changes_of_links_and_routes_are_told(world: World) -> None:
    world.fib.changes()

    world.ipr.link("set", index=world.ifindex, mtu=1400)
    assert OtherChange(world.ifindex) in (world.fib.changes() or [])
    world.ipr.route("del", dst="198.51.100.0/24")
    assert OtherChange() in (world.fib.changes() or [])
    assert world.fib.changes() == []


def test_lost_events_are_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_socket, "EVENT_ROOM", 1)
    with world.open() as small:
        for number in range(100):
            world.set_neighbour(f"192.0.2.{number + 8}", MAC)

        assert small.changes() is None


def test_confirming_creates_no_neighbour(world: World) -> None:
    world.fib.confirm([(world.ifindex, ON_LINK), (world.ifindex, ON_LINK6)])

    assert not list(world.ipr.get_neighbours(ifindex=world.ifindex, dst=str(ON_LINK)))


def test_a_stale_neighbour_is_asked_for_when_confirmed(world: World) -> None:
    stale, delay = 0x04, 0x08
    world.ipr.neigh("add", dst=str(ON_LINK), lladdr=MAC, ifindex=world.ifindex, state=stale)

    world.fib.confirm([(world.ifindex, ON_LINK)])

    (found,) = world.ipr.get_neighbours(ifindex=world.ifindex, dst=str(ON_LINK))
    assert found["state"] == delay


@pytest.mark.parametrize("address", [ON_LINK, ON_LINK6], ids=["IPv4", "IPv6"])
def test_what_an_administrator_wrote_stays_when_confirmed(
    world: World, address: IPv4Address | IPv6Address
) -> None:
    permanent = 0x80
    world.ipr.neigh("add", dst=str(address), lladdr=MAC, ifindex=world.ifindex, state=permanent)

    world.fib.confirm([(world.ifindex, address)])

    assert world.fib.neighbours()[world.ifindex, address] == MAC
    (found,) = world.ipr.get_neighbours(
        ifindex=world.ifindex, dst=str(address), family=FAMILIES[address.version]
    )
    assert found["state"] == permanent


def test_who_cannot_hear_events_leaves_no_socket_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(netlink_socket, "SO_RCVBUFFORCE", 9999)

    with pytest.raises(OSError, match="not available"):
        world.open()

    assert os.listdir("/proc/self/fd") == before


def test_events_may_wait_beyond_what_the_system_gives_by_default(world: World) -> None:
    """Thousands of events fit: net.core.rmem_max is usually 208 KiB."""
    world.fib.changes()
    for number in range(1000):
        world.set_neighbour(f"192.0.2.{2 + number % 250}", MAC if number // 250 % 2 else OTHER_MAC)

    told = world.fib.changes()

    assert told is not None
    assert len(told) >= 1000


def test_of_many_events_of_one_link_one_is_told(world: World) -> None:
    world.fib.changes()
    for number in range(100):
        world.ipr.link("set", index=world.ifindex, mtu=1400 + number)

    told = world.fib.changes()

    assert told is not None
    assert told.count(OtherChange(world.ifindex)) == 1
