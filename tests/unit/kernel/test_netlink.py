"""pycni/kernel/netlink.py: messages and attributes as bytes."""

import socket
import struct

import pytest

from pycni.kernel import netlink
from pycni.kernel.netlink import (
    HEADER,
    IFINFOMSG,
    attribute,
    attributes,
    messages,
    nested,
    read_link,
)

IFLA_STATS64 = 23


def message(kind, body, *, sequence=1):
    return HEADER.pack(HEADER.size + len(body), kind, 0, sequence, 0) + body


def test_an_attribute_has_its_length_without_the_padding():
    assert attribute(3, b"eth0\0") == struct.pack("=HH", 9, 3) + b"eth0\0\0\0\0"
    assert netlink.text(3, "eth0") == attribute(3, b"eth0\0")
    assert netlink.number(4, 1500) == struct.pack("=HHI", 8, 4, 1500)


def test_a_nested_attribute_is_marked_and_found_without_the_mark():
    inside = attribute(1, b"veth\0")

    packed = nested(18, inside, inside)

    assert struct.unpack_from("=HH", packed) == (4 + 24, 0x8000 | 18)
    assert list(attributes(packed)) == [(18, inside + inside)]


@pytest.mark.parametrize("data", [b"\1", b"\3\0\1\0", b"\0\0\0\0", b"\x09\0\1\0abcd"])
def test_what_is_not_made_of_attributes_is_refused(data):
    with pytest.raises(ValueError, match="an attribute of"):
        list(attributes(attribute(1, b"abcd") + data))


def test_every_message_of_a_datagram_is_found():
    data = message(16, b"abcde", sequence=7) + bytes(3) + message(17, b"")

    assert list(messages(data)) == [(16, 7, b"abcde"), (17, 1, b"")]


@pytest.mark.parametrize("data", [b"\1", bytes(16), message(16, b"abcd")[:-1]])
def test_what_is_not_made_of_messages_is_refused(data):
    with pytest.raises(ValueError, match="a message of"):
        list(messages(message(16, b"abcd") + data))


def test_a_link_is_read_with_the_names_that_pyroute2_gives():
    body = b"".join(
        (
            IFINFOMSG.pack(socket.AF_UNSPEC, 1, 42, 0x1043, 0),
            netlink.text(netlink.IFLA_IFNAME, "pcn0"),
            attribute(netlink.IFLA_ADDRESS, bytes.fromhex("0270 7963 6e69")),
            netlink.number(netlink.IFLA_MTU, 1450),
            attribute(netlink.IFLA_OPERSTATE, b"\6"),
            netlink.text(netlink.IFLA_IFALIAS, "pycni:1 key=1"),
            attribute(IFLA_STATS64, bytes(192)),
            netlink.text(netlink.IFLA_QDISC, "noqueue"),
            netlink.number(netlink.IFLA_LINK, 2),
            netlink.number(netlink.IFLA_LINK_NETNSID, 7),
            nested(netlink.IFLA_LINKINFO, attribute(2, b""), netlink.text(1, "veth")),
        )
    )

    link = read_link(body)

    assert link == {
        "index": 42,
        "flags": 0x1043,
        "ifname": "pcn0",
        "address": "02:70:79:63:6e:69",
        "mtu": 1450,
        "operstate": "UP",
        "ifalias": "pycni:1 key=1",
        ("linkinfo", "kind"): "veth",
        "qdisc": "noqueue",
        "link": 2,
        "link_netnsid": 7,
    }


def test_a_link_without_attributes_has_no_more_than_its_number():
    link = read_link(IFINFOMSG.pack(0, 0, 7, 0, 0))

    assert link == {"index": 7, "flags": 0}


def test_an_alias_of_any_bytes_is_read():
    alias = attribute(netlink.IFLA_IFALIAS, b"\xff\xfe")

    assert read_link(IFINFOMSG.pack(0, 0, 7, 0, 0) + alias)["ifalias"] == "\ufffd\ufffd"
