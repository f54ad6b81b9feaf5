# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/qdiscs.py: what messages say about qdiscs, and the bodies of requests."""

import socket

import pytest

from pycni.kernel import netlink, qdiscs
from pycni.kernel.qdiscs import TCMSG, Qdisc, read_qdisc


def test_a_filter_has_its_priority_and_protocol_in_one_word():
    body = qdiscs.pack_filter(
        42, 0xFFFFFFF2, fd=5, name="pycni:from_container:x", priority=1, handle=0x7079
    )

    info = 1 << 16 | socket.htons(3)
    found = dict(netlink.attributes(body, TCMSG.size))
    assert TCMSG.unpack_from(body) == (0, 42, 0x7079, 0xFFFFFFF2, info)
    assert found[1] == b"bpf\0"
    assert dict(netlink.attributes(found[2])) == {
        3: b"\1\0\0\0",
        6: b"\5\0\0\0",
        7: b"pycni:from_container:x\0",
        8: b"\1\0\0\0",
    }


def test_clsact_has_its_place_and_its_handle():
    body = qdiscs.pack_clsact(42)

    assert TCMSG.unpack_from(body) == (0, 42, 0xFFFF0000, 0xFFFFFFF1, 0)
    assert dict(netlink.attributes(body, TCMSG.size)) == {1: b"clsact\0"}


def test_a_qdisc_says_where_it_is_and_of_what_kind():
    body = TCMSG.pack(0, 42, 0, qdiscs.TC_H_ROOT, 0) + netlink.text(qdiscs.TCA_KIND, "tbf")

    assert read_qdisc(body) == Qdisc(42, qdiscs.TC_H_ROOT, "tbf")


def test_a_qdisc_without_a_kind_is_refused():
    with pytest.raises(ValueError, match="without a kind"):
        read_qdisc(TCMSG.pack(0, 42, 0, 0, 0))
