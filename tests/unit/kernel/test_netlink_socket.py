# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/netlink_socket.py: requests and their answers."""

import errno
import socket
import struct
from typing import Any

import pytest

from pycni.kernel import netlink_socket
from pycni.kernel.netlink import HEADER, NLMSG_DONE, NLMSG_ERROR, NetlinkError, message, messages
from pycni.kernel.netlink_socket import BATCH, DUMPS, NetlinkSocket

KERNEL = (0, 0)
A_PROCESS = (4711, 0)
QUESTION, ANSWER = 18, 16
REQUEST, ACK, DUMP, CHANGED = 0x1, 0x4, 0x300, 0x10
"""NLM_F_*: linux/netlink.h."""


def answer(body, *, sequence=1, flags=0):
    packed = message(ANSWER, flags, sequence, body)
    return packed + bytes(-len(packed) % 4)


def error(number, *, sequence=1):
    return message(NLMSG_ERROR, 0, sequence, struct.pack("=i", -number) + bytes(16))


def done(*, sequence=1, number=0, flags=0):
    return message(NLMSG_DONE, flags, sequence, struct.pack("=i", -number))


class Kernel:
    """In the place of a socket: remembers what is sent, answers what it was told to."""

    def __init__(self, *answers, sender=KERNEL, flags=0):
        self.sent = []
        self.closed = False
        self.answers: list[Any] = [(data, [], flags, sender) for data in answers]

    def send(self, data):
        self.sent.append(data)

    def recvmsg(self, _size):
        return self.answers.pop(0)

    def close(self):
        self.closed = True


def test_a_request_is_sent_and_its_answer_returned():
    kernel = Kernel(answer(b"link"))

    assert NetlinkSocket(kernel).request(QUESTION, ACK, b"body") == b"link"

    assert list(messages(kernel.sent[0])) == [(QUESTION, REQUEST | ACK, 1, b"body")]


def test_an_acknowledgement_has_no_body():
    assert NetlinkSocket(Kernel(error(0))).request(QUESTION, ACK, b"body") == b""


def test_a_refusal_is_raised_with_its_errno():
    with pytest.raises(NetlinkError) as caught:
        NetlinkSocket(Kernel(error(errno.EPERM))).request(QUESTION, ACK, b"")

    assert caught.value.errno == errno.EPERM


def test_answers_to_others_and_from_others_are_passed_over():
    late = error(errno.EEXIST, sequence=9)
    kernel = Kernel(late, late + error(0))
    stranger = Kernel(error(errno.EEXIST), sender=A_PROCESS)
    stranger.answers.append((error(0), [], 0, KERNEL))

    NetlinkSocket(kernel).request(QUESTION, ACK, b"")
    NetlinkSocket(stranger).request(QUESTION, ACK, b"")

    assert kernel.answers == stranger.answers == []


def test_each_request_has_a_number_of_its_own():
    kernel = Kernel(error(0), error(errno.EPERM, sequence=2))
    asker = NetlinkSocket(kernel)

    asker.request(QUESTION, ACK, b"")
    with pytest.raises(NetlinkError):
        asker.request(QUESTION, ACK, b"")

    assert [HEADER.unpack_from(data)[3] for data in kernel.sent] == [1, 2]


def test_an_answer_that_is_cut_is_an_error():
    kernel = Kernel(answer(b"link"), flags=socket.MSG_TRUNC)

    with pytest.raises(OSError, match="cut") as caught:
        NetlinkSocket(kernel).request(QUESTION, 0, b"")

    assert caught.value.errno == errno.EMSGSIZE


def test_many_requests_are_one_datagram_with_an_answer_each():
    kernel = Kernel(
        answer(b"one") + error(errno.ENODEV, sequence=2), answer(b"late", sequence=99),
        answer(b"three", sequence=3),
    )  # fmt: skip

    found = NetlinkSocket(kernel).requests(QUESTION, 0, [b"aaaa", b"bbbb", b"cccc"])

    assert found == [b"one", None, b"three"]
    assert [one.body for one in messages(kernel.sent[0])] == [b"aaaa", b"bbbb", b"cccc"]


def test_more_requests_than_fit_are_several_datagrams():
    answers = [answer(b"%d" % number, sequence=number) for number in range(1, BATCH + 2)]
    kernel = Kernel(*answers)

    found = NetlinkSocket(kernel).requests(QUESTION, 0, [b""] * (BATCH + 1))

    assert found == [b"%d" % number for number in range(1, BATCH + 2)]
    assert [len(list(messages(data))) for data in kernel.sent] == [BATCH, 1]


def test_nothing_is_sent_for_no_request():
    kernel = Kernel()

    assert NetlinkSocket(kernel).requests(QUESTION, 0, []) == []
    assert kernel.sent == []


def test_a_listing_ends_when_the_kernel_says_so():
    kernel = Kernel(answer(b"one") + answer(b"two"), answer(b"x", sequence=9), done())

    assert NetlinkSocket(kernel).dump(QUESTION, b"") == [b"one", b"two"]

    assert HEADER.unpack_from(kernel.sent[0])[2] == REQUEST | DUMP


@pytest.mark.parametrize("refusal", [error(errno.EBUSY), done(number=errno.EBUSY)])
def test_a_listing_can_fail(refusal):
    with pytest.raises(NetlinkError) as caught:
        NetlinkSocket(Kernel(answer(b"one"), refusal)).dump(QUESTION, b"")

    assert caught.value.errno == errno.EBUSY


def test_a_listing_that_changed_meanwhile_is_read_again():
    kernel = Kernel(answer(b"one"), done(flags=CHANGED), answer(b"two", sequence=2),
                    done(sequence=2))  # fmt: skip

    assert NetlinkSocket(kernel).dump(QUESTION, b"") == [b"two"]


def test_a_listing_that_changes_all_the_time_is_taken_as_it_is():
    changed = [
        answer(b"%d" % number, sequence=number, flags=CHANGED) + done(sequence=number)
        for number in range(1, DUMPS + 1)
    ]
    kernel = Kernel(*changed)

    assert NetlinkSocket(kernel).dump(QUESTION, b"") == [b"%d" % DUMPS]
    assert kernel.answers == []


def test_the_socket_is_closed():
    kernel = Kernel()

    NetlinkSocket(kernel).close()

    assert kernel.closed


def test_a_socket_that_cannot_hear_events_is_closed(monkeypatch):
    opened = []

    class Socket(socket.socket):
        def __init__(self, *args):
            super().__init__(*args)
            opened.append(self)

    monkeypatch.setattr(netlink_socket, "SO_RCVBUFFORCE", 9999)
    monkeypatch.setattr(netlink_socket.socket, "socket", Socket)

    with pytest.raises(OSError, match="not available"):
        netlink_socket.subscribe(netlink_socket.RTMGRP_LINK)

    assert [one.fileno() for one in opened] == [-1]
