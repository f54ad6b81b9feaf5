# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/host_end.py, pod_end.py: when the host end of a pair sends, and the pod hears."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pycni.cni.result import Route
from pycni.errors import TryAgain
from pycni.kernel import link_events, namespaces
from pycni.kernel.links import IFF_UP
from pycni.kernel.rtnl import Rtnl
from pycni.pods import host_end, pod_end
from pycni.pods.source_rules import PRIORITY
from support.kernel import iproute, needs_root, netns

pytestmark = needs_root

HOST, POD = "host0", "eth0"
ETH_P = 0x88B5  # IEEE 802, "local experimental"
FRAME = b"\xff" * 6 + bytes(6) + ETH_P.to_bytes(2, "big") + b"first"
PLENTY = 10.0
MOMENT = 0.05
"""Seconds."""


@dataclass(frozen=True)
class Pair:
    """A veth whose host end is up and whose other end, in the same namespace, is not."""

    path: str

    def set(self, ifname: str, flags: int) -> None:
        with iproute(self.path) as ipr:
            (index,) = ipr.link_lookup(ifname=ifname)
            ipr.link("set", index=index, flags=flags, change=IFF_UP)

    def wait(self, timeout: float = PLENTY) -> None:
        def wait() -> None:
            with Rtnl() as ipr:
                host_end.wait_until_up(ipr, HOST, timeout=timeout)

        with Path(self.path).open() as namespace:
            namespaces.inside(namespace.fileno(), wait)

    def wait_and_send(self) -> bool:
        """Whether the other end gets what the host end sends right after the wait."""

        def wait_and_send() -> bool:
            with (
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P)) as receiver,
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
                Rtnl() as ipr,
            ):
                receiver.settimeout(PLENTY)
                sender.bind((HOST, 0))
                host_end.wait_until_up(ipr, HOST, timeout=PLENTY)
                sender.send(FRAME)
                return receiver.recv(len(FRAME)) == FRAME

        with Path(self.path).open() as namespace:
            return namespaces.inside(namespace.fileno(), wait_and_send)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with netns() as path, iproute(path) as ipr:
        ipr.link("add", ifname=HOST, kind="veth", peer={"ifname": POD})
        made = Pair(path)
        made.set(HOST, IFF_UP)
        yield made


@contextmanager
def in_a_moment(work: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(MOMENT, work)
    timer.start()
    yield
    timer.join()


def rules(ipr: IPRoute) -> list[object]:
    found = ipr.get_rules(family=socket.AF_INET)
    return [rule for rule in found if rule.get("FRA_PRIORITY") == PRIORITY]


def test_rules_are_announced_before_there_are_any(pair: Pair) -> None:
    """So that a lease tells of them to the DEL that follows an ADD that is killed."""
    default = Route(ip_network("0.0.0.0/0"), ip_address("10.9.9.1"))
    with Path(pair.path).open() as namespace, iproute(pair.path) as ipr:
        (other,) = ipr.link_lookup(ifname=HOST)
        ipr.route("add", family=socket.AF_INET, dst="default", oif=other)
        announced = []

        added = pod_end.configure(
            namespace.fileno(),
            POD,
            mac="02:00:00:00:00:07",
            addresses=[ip_interface("10.9.9.7/32")],
            routes=[default],
            announce=lambda versions: announced.append((versions, rules(ipr))),
        )

        assert (added, announced) == ((), [((4,), [])])
        assert len(rules(ipr)) == 1


def test_the_first_frame_after_it_arrives(pair: Pair) -> None:
    for _ in range(10):
        pair.set(POD, 0)
        pair.set(POD, IFF_UP)

        assert pair.wait_and_send()


def test_a_pair_that_comes_up_later_is_waited_for(pair: Pair) -> None:
    with in_a_moment(lambda: pair.set(POD, IFF_UP)):
        assert pair.wait_and_send()


def test_a_pair_that_does_not_come_up_is_told(pair: Pair) -> None:
    with pytest.raises(TryAgain, match="host0 did not come up within 0 s"):
        pair.wait(MOMENT)


def test_there_may_be_no_time_left(pair: Pair) -> None:
    with pytest.raises(TryAgain):
        pair.wait(0)


def test_a_link_that_goes_meanwhile_is_not_waited_for(pair: Pair) -> None:
    def delete() -> None:
        with iproute(pair.path) as ipr:
            ipr.link("del", index=ipr.link_lookup(ifname=HOST)[0])

    with in_a_moment(delete):
        pair.wait()


def test_lost_events_are_a_reason_to_look_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful:
        """The link comes up, and the event of it is lost."""

        def __enter__(self) -> Forgetful:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def settimeout(self, _seconds: float) -> None:
            pass

        def recv(self, _size: int) -> bytes:
            pair.set(POD, IFF_UP)
            raise OSError(errno.ENOBUFS, "messages were lost")

    monkeypatch.setattr(link_events, "subscribe", Forgetful)

    assert pair.wait_and_send()


def test_events_that_cannot_be_read_are_an_error(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe = link_events.subscribe

    def broken() -> object:
        events = subscribe()
        events.close()
        return events

    monkeypatch.setattr(link_events, "subscribe", broken)

    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.wait()


ADDRESS = ip_address("fd00:9::7")


def wait_until_heard(pair: Pair, timeout: float = PLENTY) -> None:
    with Path(pair.path).open() as namespace:
        pod_end.wait_until_heard(namespace.fileno(), POD, addresses=[ADDRESS], timeout=timeout)


def add_address(pair: Pair) -> None:
    with Path(pair.path).open() as namespace, namespaces.open_rtnl(namespace.fileno()) as pod:
        pod.add_address(pod.ifindex(POD), ADDRESS, prefixlen=128)


def hears_itself() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as both:
        both.settimeout(MOMENT)
        both.bind((str(ADDRESS), 0))
        both.sendto(FRAME, both.getsockname())
        return both.recv(len(FRAME)) == FRAME


def test_an_address_that_is_taken_a_moment_later_is_waited_for(pair: Pair) -> None:
    pair.set("lo", IFF_UP)
    pair.set(POD, IFF_UP)
    with Path(pair.path).open() as namespace, in_a_moment(lambda: add_address(pair)):
        wait_until_heard(pair)

        assert namespaces.inside(namespace.fileno(), hears_itself)


def test_an_address_that_is_not_taken_is_told(pair: Pair) -> None:
    with pytest.raises(TryAgain, match="the pod took nothing sent to fd00:9::7 within 0 s"):
        wait_until_heard(pair, MOMENT)


def test_an_interface_that_goes_meanwhile_is_not_waited_for(pair: Pair) -> None:
    def delete() -> None:
        with iproute(pair.path) as ipr:
            ipr.link("del", index=ipr.link_lookup(ifname=POD)[0])

    with in_a_moment(delete):
        wait_until_heard(pair)
