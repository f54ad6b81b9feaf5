# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/links.py: what messages say about links, and the bodies of requests."""

import socket
import struct
from ipaddress import ip_address

import pytest

from pycni.kernel import links, netlink
from pycni.kernel.links import IFINFOMSG, End, Link, Vxlan, read_link
from pycni.kernel.netlink import attribute, attributes, nested

IFLA_STATS64 = 23
LOOPBACK = 772
"""ARPHRD_LOOPBACK, linux/if_arp.h."""
HOST = End("pcn0", "02:00:00:00:00:01", 1500)
PEER = End("eth0", "02:00:00:00:00:02", 1400, 9)


def head(ifindex=42, flags=0x1043, hardware=1):
    return IFINFOMSG.pack(socket.AF_UNSPEC, hardware, ifindex, flags, 0)


def test_a_link_is_read_with_all_that_is_said_of_it():
    body = b"".join(
        (
            head(),
            netlink.text(links.IFLA_IFNAME, "pcn0"),
            attribute(links.IFLA_ADDRESS, bytes.fromhex("0270 7963 6e69")),
            netlink.number(links.IFLA_MTU, 1450),
            attribute(links.IFLA_OPERSTATE, b"\6"),
            netlink.text(links.IFLA_IFALIAS, "pycni:1 key=1"),
            attribute(IFLA_STATS64, bytes(192)),
            netlink.text(links.IFLA_QDISC, "noqueue"),
            netlink.number(links.IFLA_LINK, 2),
            netlink.number(links.IFLA_LINK_NETNSID, 7),
            nested(links.IFLA_LINKINFO, attribute(2, b""), netlink.text(1, "veth")),
        )
    )

    link = read_link(body)

    assert link == Link(
        ifindex=42,
        flags=0x1043,
        ifname="pcn0",
        mac="02:70:79:63:6e:69",
        mtu=1450,
        alias="pycni:1 key=1",
        operstate="UP",
        kind="veth",
        qdisc="noqueue",
        peer_ifindex=2,
        peer_netnsid=7,
    )
    assert (link.is_up, link.is_running, link.is_ethernet) == (True, True, True)


def test_a_link_without_attributes_has_no_more_than_its_number():
    link = read_link(IFINFOMSG.pack(0, LOOPBACK, 7, 0, 0))

    assert link == Link(7, hardware=LOOPBACK)
    assert (link.is_up, link.is_running, link.is_ethernet) == (False, False, False)


@pytest.mark.parametrize(("flags", "is_running"), [(0x1, False), (0x40, False), (0x41, True)])
def test_a_link_runs_when_it_is_up_and_can_send(flags, is_running):
    assert Link(7, flags).is_running is is_running


def test_an_alias_of_any_bytes_is_read():
    alias = attribute(links.IFLA_IFALIAS, b"\xff\xfe")

    assert read_link(head() + alias).alias == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ((attribute(15, b"\x12\xb5"), attribute(25, b"\1")), Vxlan(4789, collects_metadata=True)),
        ((attribute(15, b"\x12\xb5"), attribute(25, b"\0")), Vxlan(4789)),
        ((), Vxlan()),
    ],
    ids=["with metadata", "without", "nothing"],
)
def test_a_vxlan_device_says_its_port(data, expected):
    info = nested(links.IFLA_LINKINFO, netlink.text(1, "vxlan"), nested(2, *data))

    assert read_link(head() + info).vxlan == expected


def test_a_pair_is_one_request_with_one_queue_at_each_end():
    body = links.pack_veth(HOST, PEER)

    own = dict(attributes(body, IFINFOMSG.size))
    info = dict(attributes(own[links.IFLA_LINKINFO]))
    ((_, end),) = attributes(info[2])
    other = dict(attributes(end, IFINFOMSG.size))
    assert (own[3], own[1], own[4]) == (b"pcn0\0", b"\2\0\0\0\0\1", struct.pack("=I", 1500))
    assert info[1] == b"veth\0"
    assert (other[3], other[1], other[4]) == (b"eth0\0", b"\2\0\0\0\0\2", struct.pack("=I", 1400))
    assert other[28] == struct.pack("=I", 9)
    assert {own[31], own[32], other[31], other[32]} == {struct.pack("=I", 1)}


def test_what_an_end_does_not_say_is_left_to_the_kernel():
    own = dict(attributes(links.pack_veth(End("a"), End("b")), IFINFOMSG.size))

    assert own.keys() == {3, 31, 32, links.IFLA_LINKINFO}


def test_a_netkit_pair_leaves_room_and_lets_nothing_out_of_the_pod_by_itself():
    body = links.pack_netkit(HOST, PEER, headroom=70)

    own = dict(attributes(body, IFINFOMSG.size))
    info = dict(attributes(own[links.IFLA_LINKINFO]))
    data = dict(attributes(info[2]))
    other = dict(attributes(data.pop(1), IFINFOMSG.size))
    assert (own[3], own[1], info[1]) == (b"pcn0\0", b"\2\0\0\0\0\1", b"netkit\0")
    assert (other[3], other[28]) == (b"eth0\0", struct.pack("=I", 9))
    passes, drops, layer_2 = (struct.pack("=I", value) for value in (0, 2, 0))
    assert data == {3: passes, 4: drops, 5: layer_2, 8: struct.pack("=H", 70)}


@pytest.mark.parametrize(
    ("changes", "flags", "expected"),
    [
        ({"flags": 0x81}, 0x81, {}),
        ({"alias": "x"}, 0, {links.IFLA_IFALIAS: b"x"}),
        ({"mtu": 1400}, 0, {links.IFLA_MTU: struct.pack("=I", 1400)}),
        ({"master": 3}, 0, {links.IFLA_MASTER: struct.pack("=I", 3)}),
    ],
    ids=str,
)
def test_only_what_is_to_change_is_asked_for(changes, flags, expected):
    body = links.pack_changes(42, **changes)

    assert IFINFOMSG.unpack_from(body) == (0, 0, 42, flags, flags)
    assert dict(attributes(body, IFINFOMSG.size)) == expected


def test_a_macs_link_local_address_is_its_eui_64():
    assert links.link_local("02:70:79:63:6e:69") == ip_address("fe80::70:79ff:fe63:6e69")
