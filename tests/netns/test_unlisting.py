# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/deletion.py and link_events.py: a link is gone for everybody after its event."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pycni.kernel import deletion, link_events, namespaces, netlink_socket
from pycni.kernel.links import End
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.netlink_socket import BUFFER
from pycni.kernel.rtnl import Rtnl
from support.kernel import iproute, needs_root, netns, veth

pytestmark = needs_root

ALIAS = "pycni:1 key=x"
T = TypeVar("T")


@pytest.fixture
def path() -> Iterator[str]:
    with netns() as made:
        yield made


def within(path: str, work: Callable[[], T]) -> T:
    with Path(path).open() as namespace:
        return namespaces.inside(namespace.fileno(), work)


def names(path: str) -> set[str]:
    with iproute(path) as ipr:
        return {str(link.get("ifname")) for link in ipr.get_links()}


def threads_that_delete() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "delete" in thread.name]


def read_to_the_end(events: socket.socket) -> None:
    while True:
        list(link_events.gone(events))


@pytest.fixture(autouse=True)
def _waited_out() -> Iterator[None]:
    yield
    for thread in threads_that_delete():
        thread.join(10)
    assert threads_that_delete() == []


def test_both_ends_are_gone_when_it_returns(path: str) -> None:
    with iproute(path) as ipr:
        index, _ = veth(ipr, "one0", "two0")

    assert within(path, lambda: deletion.delete_link(index))

    assert names(path) == {"lo"}


def test_a_name_can_be_used_again_at_once(path: str) -> None:
    for _ in range(5):
        with iproute(path) as ipr:
            index, _ = veth(ipr, "one0", "two0")

        assert within(path, partial(deletion.delete_link, index))


def test_a_link_that_is_gone_already_is_no_error(path: str) -> None:
    assert within(path, lambda: deletion.delete_link(999)) is False


def test_a_refusal_is_raised(path: str) -> None:
    with iproute(path) as ipr:
        (loopback,) = ipr.link_lookup(ifname="lo")

    with pytest.raises(NetlinkError) as caught:
        within(path, lambda: deletion.delete_link(loopback))

    assert caught.value.errno == errno.EOPNOTSUPP


def test_the_kernels_answer_does_when_its_word_is_lost(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(events: socket.socket) -> list[object]:
        events.recv(BUFFER)
        raise OSError(errno.ENOBUFS, "messages were lost")

    monkeypatch.setattr(link_events, "gone", lost)
    with iproute(path) as ipr:
        index, _ = veth(ipr, "one0", "two0")

    assert within(path, lambda: deletion.delete_link(index))

    assert names(path) == {"lo"}


def test_other_links_events_are_passed_over(path: str) -> None:
    """A pair that comes and goes all the time is not taken for the one that is deleted."""
    stop = threading.Event()

    def come_and_go() -> None:
        with Rtnl() as ipr:
            while not stop.is_set():
                ipr.add_veth(End("other0"), End("other1"))
                ipr.delete_link(ipr.ifindex("other0"))

    with iproute(path) as ipr:
        index, _ = veth(ipr, "one0", "two0")
    rival = threading.Thread(target=lambda: within(path, come_and_go))
    rival.start()
    try:
        assert within(path, lambda: deletion.delete_link(index))
        found = names(path)
    finally:
        stop.set()
        rival.join()

    assert not found & {"one0", "two0"}


def test_an_event_has_what_the_link_was(path: str) -> None:
    with within(path, link_events.subscribe) as events, iproute(path) as ipr:
        index, _ = veth(ipr, "one0", "two0")
        ipr.link("set", index=index, IFLA_IFALIAS=ALIAS)
        ipr.link("del", index=index)

        gone: list[Any] = []
        while len(gone) < 2:
            gone += link_events.gone(events)

    (one,) = (link for link in gone if link.ifname == "one0")
    assert (one.ifindex, one.alias, one.kind) == (index, ALIAS, "veth")
    assert {link.ifname for link in gone} == {"one0", "two0"}


def test_a_port_that_leaves_a_bridge_is_not_gone(path: str) -> None:
    with within(path, link_events.subscribe) as events, iproute(path) as ipr:
        port, _ = veth(ipr, "one0", "two0")
        ipr.link("add", ifname="bridge0", kind="bridge")
        (bridge,) = ipr.link_lookup(ifname="bridge0")
        ipr.link("set", index=port, master=bridge)
        ipr.link("set", index=port, master=0)
        ipr.link("del", index=bridge)

        gone: list[Any] = []
        while not gone:
            gone += link_events.gone(events)

    assert [link.ifname for link in gone] == ["bridge0"]


def test_lost_messages_are_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_socket, "EVENT_ROOM", 1)  # the kernel's least: a few kilobytes
    with within(path, link_events.subscribe) as events, iproute(path) as ipr:
        for _ in range(20):
            index, _ = veth(ipr, "one0", "two0")
            ipr.link("del", index=index)

        with pytest.raises(OSError, match="buffer") as caught:
            read_to_the_end(events)

    assert caught.value.errno == errno.ENOBUFS


def test_a_socket_that_cannot_be_had_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_socket, "SO_RCVBUFFORCE", 9999)

    with pytest.raises(OSError, match="not available"):
        link_events.subscribe()
