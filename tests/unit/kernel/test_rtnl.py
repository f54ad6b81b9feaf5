# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/rtnl.py: which request each method is, and what its answer means.

That the kernel does what is asked is tests/netns/test_rtnl_kernel.py's to show.
"""

import errno
import os
import struct
from ipaddress import ip_address, ip_network

import pytest

from pycni.kernel import links, netlink, qdiscs
from pycni.kernel.links import IFINFOMSG, End
from pycni.kernel.netlink import NetlinkError, message, messages
from pycni.kernel.routes import Route
from pycni.kernel.rtnl import Rtnl
from unit.kernel.test_netlink_socket import Kernel, error

LINK = IFINFOMSG.pack(0, 0, 42, 0, 0) + netlink.text(links.IFLA_IFNAME, "pcn0")
QDISC = qdiscs.TCMSG.pack(0, 42, 0, qdiscs.TC_H_INGRESS, 0) + netlink.text(1, "ingress")
REQUEST, ACK, REPLACE, EXCL, CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
"""NLM_F_*: linux/netlink.h."""
NEW, AGAIN, DELETE = REQUEST | ACK | EXCL | CREATE, REQUEST | ACK | REPLACE | CREATE, REQUEST | ACK
ADDRESS = ip_address("192.0.2.1")
ROUTE = Route(ip_network("192.0.2.0/24"), 42)
FILTER = {"fd": 5, "name": "x", "priority": 1, "handle": 2}


def answer(kind, body):
    return message(kind, 0, 1, body)


@pytest.mark.parametrize(
    ("method", "args", "named", "kind", "flags"),
    [
        ("add_veth", [End("a"), End("b")], {}, 16, NEW),
        ("add_netkit", [End("a"), End("b")], {"headroom": 70}, 16, NEW),
        ("set_up", [42], {"alias": "x"}, 16, REQUEST | ACK),
        ("set_mtu", [42, 1400], {}, 16, REQUEST | ACK),
        ("set_master", [42, 3], {}, 16, REQUEST | ACK),
        ("generate_no_address", [42], {}, 16, REQUEST | ACK),
        ("delete_link", [42], {}, 17, DELETE),
        ("add_address", [42, ADDRESS], {}, 20, NEW),
        ("delete_address", [42, ADDRESS], {"prefixlen": 32}, 21, DELETE),
        ("add_route", [ROUTE], {}, 24, NEW),
        ("replace_route", [ROUTE], {}, 24, AGAIN),
        ("delete_route", [ROUTE], {}, 25, DELETE),
        ("add_clsact", [42], {}, 36, NEW),
        ("delete_clsact", [42], {}, 37, DELETE),
        ("add_filter", [42, 0xFFFFFFF2], FILTER, 44, NEW),
        ("replace_filter", [42, 0xFFFFFFF2], FILTER, 44, AGAIN),
    ],
)
def test_each_change_is_one_request_whose_refusal_is_told(method, args, named, kind, flags):
    kernel = Kernel(error(0), error(errno.EPERM, sequence=2))
    ipr = Rtnl(kernel)

    getattr(ipr, method)(*args, **named)

    ((asked, how, _, _),) = messages(kernel.sent[0])
    assert (asked, how) == (kind, flags)
    with pytest.raises(NetlinkError) as caught:
        getattr(ipr, method)(*args, **named)
    assert caught.value.errno == errno.EPERM


def test_a_link_is_asked_for_by_name_without_its_statistics():
    kernel = Kernel(answer(links.RTM_NEWLINK, LINK))

    link = Rtnl(kernel).link("pcn0")

    ((kind, flags, _, body),) = messages(kernel.sent[0])
    assert (kind, flags) == (links.RTM_GETLINK, REQUEST)
    assert dict(netlink.attributes(body, 16)) == {3: b"pcn0\0", 29: b"\x08\0\0\0"}
    assert link is not None
    assert (link.ifindex, link.ifname) == (42, "pcn0")


@pytest.mark.parametrize("netnsid", [None, 7])
def test_a_link_is_asked_for_by_index_here_or_elsewhere(netnsid):
    kernel = Kernel(answer(links.RTM_NEWLINK, LINK))

    link = Rtnl(kernel).link_at(42, netnsid=netnsid)

    ((kind, _, _, body),) = messages(kernel.sent[0])
    asked = dict(netlink.attributes(body, IFINFOMSG.size))
    assert (kind, IFINFOMSG.unpack_from(body)[2]) == (links.RTM_GETLINK, 42)
    assert (links.IFLA_TARGET_NETNSID in asked) == (netnsid is not None)
    assert link is not None
    assert link.ifname == "pcn0"


def test_a_link_that_is_missing_is_none_but_has_no_index():
    assert Rtnl(Kernel(error(errno.ENODEV))).link("pcn0") is None
    assert Rtnl(Kernel(error(errno.ENODEV))).link_at(42) is None
    with pytest.raises(NetlinkError) as caught:
        Rtnl(Kernel(error(errno.ENODEV))).ifindex("pcn0")
    assert caught.value.errno == errno.ENODEV


def test_another_refusal_is_raised():
    with pytest.raises(NetlinkError):
        Rtnl(Kernel(error(errno.EPERM))).link("pcn0")


def test_deleting_says_whether_there_was_anything():
    assert Rtnl(Kernel(error(0))).delete_link(42)
    assert not Rtnl(Kernel(error(errno.ENODEV))).delete_link(42)


def test_a_link_without_ipv6_makes_no_address_anyway():
    Rtnl(Kernel(error(errno.EAFNOSUPPORT))).generate_no_address(42)


@pytest.mark.parametrize(("asked", "length"), [({}, 32), ({"prefixlen": 24}, 24)])
def test_an_address_is_a_hosts_unless_told_otherwise(asked, length):
    kernel = Kernel(error(0))

    Rtnl(kernel).add_address(42, ADDRESS, **asked)

    ((_, _, _, body),) = messages(kernel.sent[0])
    assert struct.unpack_from("=BB", body)[1] == length


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([answer(qdiscs.RTM_NEWQDISC, QDISC), error(0)], "ingress"),
        ([error(0)], None),
        ([error(errno.ENOENT)], None),
    ],
    ids=["one", "one that the kernel does not tell of", "none"],
)
def test_the_qdisc_at_the_ingress_is_told_by_its_kind(answers, kind):
    assert Rtnl(Kernel(*answers)).ingress_qdisc(42) == kind


def test_a_link_that_is_gone_has_no_qdisc_to_tell_of():
    with pytest.raises(NetlinkError):
        Rtnl(Kernel(error(errno.ENODEV))).ingress_qdisc(42)


def test_the_socket_is_closed_at_the_end():
    kernel = Kernel()

    with Rtnl(kernel):
        pass

    assert kernel.closed


def test_no_descriptor_is_left_open_whichever_way_it_was_used():
    before = os.listdir("/proc/self/fd")

    with Rtnl() as ipr:
        loopback = ipr.link("lo")
        assert loopback is not None
        assert loopback in ipr.links()
        assert loopback.ifindex in {address.ifindex for address in ipr.addresses()}

    assert os.listdir("/proc/self/fd") == before


def test_what_pyroute2_is_refused_is_our_error():
    with Rtnl() as ipr, pytest.raises(NetlinkError) as caught:
        ipr.add_tbf(0x7FFFFFFF, rate=1000, burst=1000, limit=1000)

    assert caught.value.errno in (errno.ENODEV, errno.EPERM)
