# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/event_socket.py: of many datagrams about one thing, the last."""

from __future__ import annotations

import errno
import socket

import pytest

from pycni.kernel import event_socket, netlink
from pycni.kernel.event_socket import Event, EventSocket, subject
from pycni.kernel.links import IFINFOMSG, RTM_DELLINK, RTM_NEWLINK
from pycni.kernel.qdiscs import RTM_DELQDISC, RTM_NEWQDISC, TC_H_INGRESS, TC_H_ROOT, TCMSG

RTM_NEWADDR = 20


def link(index: int, kind: int = RTM_NEWLINK, *, family: int = 0, tail: bytes = b"") -> bytes:
    return netlink.message(kind, 0, 0, IFINFOMSG.pack(family, 1, index, 0, 0) + tail)


def qdisc(index: int, parent: int, kind: int = RTM_NEWQDISC) -> bytes:
    return netlink.message(kind, 0, 0, TCMSG.pack(0, index, 0, parent, 0))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (link(7), link(7, tail=b"more"), True),
        (link(7), link(7, RTM_DELLINK), True),
        (link(7), link(8), False),
        (link(7), link(7, family=socket.AF_BRIDGE), False),
        (link(7), qdisc(7, TC_H_ROOT), False),
        (qdisc(7, TC_H_ROOT), qdisc(7, TC_H_ROOT, RTM_DELQDISC), True),
        (qdisc(7, TC_H_ROOT), qdisc(7, TC_H_INGRESS), False),
        (netlink.message(RTM_NEWADDR, 0, 0, b"a"), netlink.message(RTM_NEWADDR, 0, 0, b"b"), False),
    ],
)
def test_what_datagrams_are_about(one: bytes, other: bytes, same: bool) -> None:
    assert (subject(one) == subject(other)) is same


class Fake:
    """A socket from which datagrams, or errors, are read."""

    def __init__(self, *waiting: object) -> None:
        self.waiting = list(waiting)

    def recvmsg_into(self, buffers, _room):
        if not self.waiting:
            raise BlockingIOError
        data, nsid = one if isinstance(one := self.waiting.pop(0), tuple) else (one, None)
        if isinstance(data, OSError):
            raise data
        buffers[0][: len(data)] = data
        ancillary = [] if nsid is None else [(270, event_socket.NETLINK_LISTEN_ALL_NSID, nsid)]
        return len(data), ancillary, 0, (0, 0)

    def settimeout(self, _): ...


def events(monkeypatch: pytest.MonkeyPatch, *waiting: object) -> EventSocket:
    monkeypatch.setattr(event_socket.netlink_socket, "subscribe", lambda *_, **__: Fake(*waiting))
    return EventSocket(1)


def test_a_storm_about_one_link_is_one_event_and_the_others_are_there(monkeypatch) -> None:
    storm = [link(7, tail=bytes([n & 255])) for n in range(5000)]

    found = events(monkeypatch, link(8), *storm, link(9)).take()

    assert found == [Event(link(8)), Event(storm[-1]), Event(link(9))]


def test_the_same_index_in_two_namespaces_is_two_links(monkeypatch) -> None:
    here, there = link(7), (link(7), b"\1\0\0\0")

    assert events(monkeypatch, here, there).take() == [Event(link(7)), Event(link(7), True)]


def test_lost_events_are_told_and_the_rest_is_read(monkeypatch) -> None:
    lost = OSError(errno.ENOBUFS, "lost")
    made = events(monkeypatch, link(7), lost, link(8))

    assert made.take() is None
    assert made.take() == []


def test_another_error_is_raised(monkeypatch) -> None:
    with pytest.raises(OSError, match="broken"):
        events(monkeypatch, OSError(errno.EBADF, "broken")).take()
