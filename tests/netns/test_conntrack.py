# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/conntrack.py in a kernel: what is forgotten, and above all what is not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from pycni.cluster import IPAddress
from pycni.kernel import conntrack, nft
from pycni.kernel.conntrack import FEW, Service
from pycni.kernel.ctnetlink import Ctnetlink
from pycni.kernel.netlink import FAMILIES
from pycni.lab import topology
from pycni.lab.topology import LOOPBACK
from support import labs
from support.waiting import wait_until

UDP = 17
PORT, OTHER_PORT = 5300, 5400
POD, NEIGHBOUR, STRANGER = 1, 2, 3
"""Last digits of addresses on the loopback device."""
TRACKED = """
table inet tracked { chain output { type filter hook output priority 0; ct state new accept; }; }
"""
VERSIONS = (4, 6)

Inside = Callable[[Callable[[], None]], None]
Flow = tuple[int, int, int, int]
"""IP version, who began, who was asked, the port."""

both_versions = pytest.mark.parametrize("version", VERSIONS)


def address(version: int, digit: int) -> IPAddress:
    return ip_address(f"127.0.0.{digit}" if version == 4 else f"fd00::{digit}")


@pytest.fixture
def inside() -> Iterator[Inside]:
    """Runs its argument in a namespace that tracks what it sends to itself."""
    name = f"{labs.SESSION}ct"
    topology.make_netns(name)
    with topology.open_rtnl(name) as rtnl:
        loopback = rtnl.ifindex(LOOPBACK)
        rtnl.set_up(loopback)
        for digit in (POD, NEIGHBOUR, STRANGER):
            rtnl.add_address(loopback, address(6, digit))
    labs.within(name, lambda: nft.run(TRACKED, what="a test"))
    try:
        yield lambda work: labs.within(name, work)
    finally:
        topology.remove_netns(name)


@pytest.fixture(params=["with a filter for deletions", "without one"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This kernel's ways, and those of one before Linux 6.12."""
    if request.param == "without one":
        monkeypatch.setattr(Ctnetlink, "delete_where", lambda *_: False)


def send(*wanted: Flow) -> None:
    """Until all are tracked: the kernel drops what is sent before it has done with an address."""

    def is_tracked() -> bool:
        for one in set(wanted) - flows():
            _send(one)
        return flows() >= set(wanted)

    wait_until(is_tracked, "the flows are tracked")


def _send(flow: Flow) -> None:
    version, client, server, port = flow
    with socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as sender:
        sender.bind((str(address(version, client)), 0))
        sender.sendto(b"datagram", (str(address(version, server)), port))


def flows() -> set[Flow]:
    """What is tracked now, of UDP."""
    numbers = {address(v, n).packed: n for v in VERSIONS for n in (POD, NEIGHBOUR, STRANGER)}
    with Ctnetlink() as table:
        return {
            (version, numbers[entry.client], numbers[entry.asked], entry.port)
            for version in VERSIONS
            for entry in table.entries(version)
            if entry.protocol == UDP
        }


@pytest.mark.usefixtures("kernel")
@both_versions
@pytest.mark.parametrize("others", [0, FEW], ids=["one address", "many addresses"])
def test_what_an_address_began_or_answers_is_forgotten_and_nothing_else(
    inside: Inside, version: int, others: int
) -> None:
    of_the_pod = {(version, POD, STRANGER, PORT), (version, STRANGER, POD, OTHER_PORT)}
    kept = {
        (version, NEIGHBOUR, STRANGER, PORT),
        (10 - version, POD, STRANGER, PORT),
        (10 - version, STRANGER, POD, PORT),
    }
    addresses = [address(version, POD), *(address(version, 100 + n) for n in range(others))]
    seen: list[set[Flow]] = []

    def work() -> None:
        send(*of_the_pod, *kept)
        seen.append(flows())
        conntrack.forget(addresses)
        seen.append(flows())

    inside(work)

    assert seen == [of_the_pod | kept, kept]


@both_versions
@pytest.mark.parametrize("host", [None, POD], ids=["any address", "one address"])
def test_connections_that_somebody_else_answers_are_forgotten(
    inside: Inside, version: int, host: int | None
) -> None:
    """Here the asked address answers itself: nobody has opened a port yet."""
    misled = {(version, STRANGER, POD, PORT)}
    right = {(version, STRANGER, NEIGHBOUR, PORT)} if host is None else set()
    kept = right | {
        (version, STRANGER, POD, OTHER_PORT),
        (10 - version, STRANGER, POD, PORT),
        *([] if host is None else [(version, STRANGER, STRANGER, PORT)]),
    }
    where = None if host is None else address(version, host)
    service = Service(UDP, where, PORT, address(version, NEIGHBOUR))
    seen: list[set[Flow]] = []

    def work() -> None:
        send(*misled, *kept)
        conntrack.forget_other_answers([service])
        seen.append(flows())
        send(*misled)
        conntrack.forget_other_answers([service, Service(UDP, where, 1, service.pod)])
        seen.append(flows())

    inside(work)

    assert seen == [kept, kept]


def test_nothing_is_looked_for_without_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "Ctnetlink", None)

    conntrack.forget_other_answers([])
