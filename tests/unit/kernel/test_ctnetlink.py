# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/ctnetlink.py: how it reads the kernel's answers; tests/netns/test_conntrack.py asks
a kernel."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from pycni.kernel import ctnetlink
from pycni.kernel.ctnetlink import Ctnetlink
from pycni.kernel.netlink import (
    ERROR,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkError,
    attribute,
    message,
    messages,
    nested,
)

CLIENT, NODE, POD = (ip_address(one).packed for one in ("192.0.2.1", "192.0.2.2", "10.244.1.5"))
UDP = 17
HEAD = ctnetlink.NFGENMSG.pack(2, 0, 0)


def sides(*ends: bytes, port: int = 53) -> bytes:
    source, destination = ends
    return nested(
        ctnetlink.CTA_TUPLE_IP,
        attribute(ctnetlink.CTA_IP_V4_SRC, source),
        attribute(ctnetlink.CTA_IP_V4_DST, destination),
    ) + nested(
        ctnetlink.CTA_TUPLE_PROTO,
        attribute(ctnetlink.CTA_PROTO_NUM, bytes([UDP])),
        attribute(ctnetlink.CTA_PROTO_SRC_PORT, ctnetlink.PORT.pack(4711)),
        attribute(ctnetlink.CTA_PROTO_DST_PORT, ctnetlink.PORT.pack(port)),
    )


ORIGINAL = nested(ctnetlink.CTA_TUPLE_ORIG, sides(CLIENT, NODE))
REPLY = nested(ctnetlink.CTA_TUPLE_REPLY, sides(POD, CLIENT))
NUMBER = attribute(ctnetlink.CTA_ID, b"\0\0\0\7")
ZONE = attribute(ctnetlink.CTA_ZONE, b"\0\5")
AS_THE_KERNEL_PUTS_THEM = HEAD + ORIGINAL + REPLY + NUMBER + ZONE
IN_ANOTHER_ORDER = HEAD + NUMBER + REPLY + ORIGINAL + ZONE


class Kernel:
    """In place of the socket: one answer for each request, from its sequence number."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answer: Callable[[int], bytes] = lambda _: b""

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, _: int) -> bytes:
        last = self.sent[-1]
        return b"".join(self.answer(one.sequence) for one in messages(last))

    def close(self) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(ctnetlink.socket, "socket", lambda *_: made)
    return made


def listing(*bodies: bytes, end: int = 0) -> Callable[[int], bytes]:
    def answer(sequence: int) -> bytes:
        strangers = message(ctnetlink.IPCTNL_MSG_CT_GET, 0, sequence + 1, b"")
        entries = [message(ctnetlink.IPCTNL_MSG_CT_GET, 0, sequence, body) for body in bodies]
        return b"".join([strangers, *entries, message(NLMSG_DONE, 0, sequence, ERROR.pack(-end))])

    return answer


def refusal(number: int) -> Callable[[int], bytes]:
    return lambda sequence: message(NLMSG_ERROR, 0, sequence, ERROR.pack(-number))


@pytest.mark.parametrize("body", [AS_THE_KERNEL_PUTS_THEM, IN_ANOTHER_ORDER])
def test_an_entry_says_who_asked_whom_and_who_answers(kernel: Kernel, body: bytes) -> None:
    kernel.answer = listing(body)

    with Ctnetlink() as table:
        (entry,) = table.entries(4)

    assert (entry.client, entry.asked, entry.answering) == (CLIENT, NODE, POD)
    assert (entry.protocol, entry.port) == (UDP, 53)
    assert entry.name == ORIGINAL + NUMBER + ZONE


@pytest.mark.parametrize("body", [AS_THE_KERNEL_PUTS_THEM, IN_ANOTHER_ORDER])
@pytest.mark.parametrize(
    ("address", "count"), [("10.244.1.5", 1), ("192.0.2.1", 1), ("192.0.2.2", 0), ("10.0.0.9", 0)]
)
def test_an_addresss_entries_are_found_in_whatever_order_attributes_come(
    kernel: Kernel, body: bytes, address: str, count: int
) -> None:
    kernel.answer = listing(body)

    with Ctnetlink() as table:
        found = list(table.entries_of([ip_address(address)]))

    assert len(found) == count


def test_an_error_in_the_middle_of_a_listing_is_raised(kernel: Kernel) -> None:
    kernel.answer = listing(AS_THE_KERNEL_PUTS_THEM, end=errno.EPERM)

    with Ctnetlink() as table, pytest.raises(NetlinkError) as caught:
        list(table.entries(4))

    assert caught.value.errno == errno.EPERM


def test_an_entry_that_timed_out_meanwhile_is_no_error(kernel: Kernel) -> None:
    kernel.answer = listing(*100 * [AS_THE_KERNEL_PUTS_THEM])
    with Ctnetlink() as table:
        entries = list(table.entries(4))
        kernel.answer = refusal(errno.ENOENT)

        table.delete(4, entries)

    assert [len(list(messages(one))) for one in kernel.sent[1:]] == [64, 36]


def test_another_refusal_is_raised(kernel: Kernel) -> None:
    kernel.answer = listing(AS_THE_KERNEL_PUTS_THEM)
    with Ctnetlink() as table:
        entries = list(table.entries(4))
        kernel.answer = refusal(errno.EPERM)

        with pytest.raises(NetlinkError) as caught:
            table.delete(4, entries)

    assert caught.value.errno == errno.EPERM


@pytest.mark.parametrize(
    ("number", "outcome"), [(0, True), (errno.EINVAL, False), (errno.EOPNOTSUPP, False)]
)
def test_a_kernel_without_filters_for_a_deletion_is_found_out(
    kernel: Kernel, number: int, outcome: bool
) -> None:
    kernel.answer = refusal(number)

    with Ctnetlink() as table:
        assert table.delete_where(4, ctnetlink.begun_by(ip_address("10.244.1.5"))) is outcome


def test_a_deletion_that_may_not_be_is_raised(kernel: Kernel) -> None:
    kernel.answer = refusal(errno.EPERM)

    with Ctnetlink() as table, pytest.raises(NetlinkError):
        table.delete_where(4, ctnetlink.begun_by(ip_address("10.244.1.5")))


def test_no_deletion_is_asked_for_without_a_tuple() -> None:
    """A kernel that does not know the filter would take it for: delete all."""
    for only in (ctnetlink.begun_by, ctnetlink.answered_by):
        first = next(iter(ctnetlink.attributes(only(ip_address("10.244.1.5")))))

        assert first[0] in (ctnetlink.CTA_TUPLE_ORIG, ctnetlink.CTA_TUPLE_REPLY)
