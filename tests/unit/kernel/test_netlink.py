# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/netlink.py: messages and attributes as bytes."""

import errno
import struct
from ipaddress import ip_address

import pytest

from pycni.kernel import netlink
from pycni.kernel.netlink import NetlinkError, attribute, attributes, message, messages, nested


def test_an_attribute_has_its_length_without_the_padding():
    assert attribute(3, b"eth0\0") == struct.pack("=HH", 9, 3) + b"eth0\0\0\0\0"
    assert netlink.text(3, "eth0") == attribute(3, b"eth0\0")
    assert netlink.number(4, 1500) == struct.pack("=HHI", 8, 4, 1500)


def test_a_nested_attribute_is_marked_and_found_without_the_mark():
    inside = attribute(1, b"veth\0")

    packed = nested(18, inside, inside)

    assert struct.unpack_from("=HH", packed) == (4 + 24, 0x8000 | 18)
    assert list(attributes(packed)) == [(18, inside + inside)]


def test_attributes_may_follow_a_head():
    assert list(attributes(b"head" + attribute(1, b"abc"), 4)) == [(1, b"abc")]


@pytest.mark.parametrize("data", [b"\1", b"\3\0\1\0", b"\0\0\0\0", b"\x09\0\1\0abcd"])
def test_what_is_not_made_of_attributes_is_refused(data):
    with pytest.raises(ValueError, match="an attribute of"):
        list(attributes(attribute(1, b"abcd") + data))


def test_every_message_of_a_datagram_is_found():
    data = message(16, 5, 7, b"abcde") + bytes(3) + message(17, 0, 1, b"")

    assert list(messages(data)) == [(16, 5, 7, b"abcde"), (17, 0, 1, b"")]


@pytest.mark.parametrize("data", [b"\1", bytes(16), message(16, 0, 1, b"abcd")[:-1]])
def test_what_is_not_made_of_messages_is_refused(data):
    with pytest.raises(ValueError, match="a message of"):
        list(messages(message(16, 0, 1, b"abcd") + data))


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_an_address_is_read_by_its_length(text):
    assert netlink.read_address(ip_address(text).packed) == ip_address(text)


def test_a_refusal_has_its_errno_and_the_systems_words():
    refusal = NetlinkError(errno.ENODEV)

    assert (refusal.errno, refusal.strerror) == (errno.ENODEV, "No such device")
    assert isinstance(refusal, OSError)
