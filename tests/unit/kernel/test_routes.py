# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/routes.py, nexthops.py and addresses.py: the bodies of requests and answers."""

import socket
import struct
from ipaddress import ip_address, ip_network

import pytest

from pycni.kernel import routes
from pycni.kernel.addresses import (
    IFA_ADDRESS,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFADDRMSG,
    pack_address,
    read_address_message,
)
from pycni.kernel.netlink import attribute, attributes, nested
from pycni.kernel.nexthops import NHMSG, read_nexthop, ways
from pycni.kernel.routes import (
    RTMSG,
    RTNEXTHOP,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    Hop,
    Route,
    is_copy,
    pack_route,
    read_route,
)

GATEWAY, GATEWAY6 = ip_address("192.0.2.1"), ip_address("fe80::1")
ONLINK = 4


def number(value):
    return struct.pack("=I", value)


def test_a_route_says_only_what_is_given():
    body = pack_route(Route(ip_network("2001:db8::/32"), 7))

    assert RTMSG.unpack_from(body) == (socket.AF_INET6, 32, 0, 0, 0, 4, 0, 1, 0)
    assert dict(attributes(body, RTMSG.size)) == {
        routes.RTA_TABLE: number(254),
        routes.RTA_DST: ip_address("2001:db8::").packed,
        routes.RTA_OIF: number(7),
    }


def test_a_route_says_all_that_is_given():
    wanted = Route(
        ip_network("0.0.0.0/0"), 7, GATEWAY, source=ip_address("192.0.2.9"), table=70790003,
        scope=253, priority=5, mtu=1400, advmss=1360,
    )  # fmt: skip

    body = pack_route(wanted)

    found = dict(attributes(body, RTMSG.size))
    metrics = dict(attributes(found.pop(routes.RTA_METRICS)))
    assert RTMSG.unpack_from(body) == (socket.AF_INET, 0, 0, 0, 0, 4, 253, 1, ONLINK)
    assert found == {
        routes.RTA_TABLE: number(70790003),
        routes.RTA_OIF: number(7),
        routes.RTA_GATEWAY: GATEWAY.packed,
        routes.RTA_PREFSRC: ip_address("192.0.2.9").packed,
        routes.RTA_PRIORITY: number(5),
    }
    assert metrics == {routes.RTAX_MTU: number(1400), routes.RTAX_ADVMSS: number(1360)}


def test_a_gateway_may_be_of_the_other_ip_version():
    """RFC 8950."""
    found = dict(attributes(pack_route(Route(ip_network("0.0.0.0/0"), 7, GATEWAY6)), RTMSG.size))

    assert found[routes.RTA_VIA] == struct.pack("=H", socket.AF_INET6) + GATEWAY6.packed
    assert routes.RTA_GATEWAY not in found


def test_an_ipv6_address_skips_the_search_for_duplicates():
    no_dad = 2
    heads = [
        IFADDRMSG.unpack_from(pack_address(7, address, prefixlen=64))
        for address in (GATEWAY6, GATEWAY)
    ]

    assert heads == [(socket.AF_INET6, 64, no_dad, 0, 7), (socket.AF_INET, 64, 0, 0, 7)]


def told(*parts, family=socket.AF_INET, bits=0, table=254, kind=1, flags=0):
    """An RTM_NEWROUTE as the kernel sends it."""
    return RTMSG.pack(family, bits, 0, 0, table, 3, 0, kind, flags) + b"".join(parts)


def hop(ifindex, *parts, flags=0):
    body = b"".join(parts)
    return RTNEXTHOP.pack(RTNEXTHOP.size + len(body), flags, 0, ifindex) + body


def test_a_route_by_one_way_is_read():
    body = told(
        attribute(routes.RTA_DST, ip_address("10.1.0.0").packed),
        attribute(routes.RTA_OIF, number(3)),
        attribute(routes.RTA_GATEWAY, GATEWAY.packed),
        attribute(routes.RTA_PREFSRC, ip_address("192.0.2.9").packed),
        attribute(routes.RTA_PRIORITY, number(100)),
        attribute(routes.RTA_TABLE, number(1000)),
        nested(routes.RTA_METRICS, attribute(routes.RTAX_MTU, number(1400))),
        bits=16,
        table=252,  # RT_TABLE_COMPAT: the number does not fit the header
    )

    assert read_route(body) == Route(
        ip_network("10.1.0.0/16"),
        3,
        GATEWAY,
        ip_address("192.0.2.9"),
        table=1000,
        priority=100,
        mtu=1400,
        hops=(Hop(3, GATEWAY),),
    )


def test_a_route_by_several_ways_has_all_of_them():
    dead = RTNH_F_DEAD | RTNH_F_LINKDOWN
    via = attribute(routes.RTA_VIA, struct.pack("=H", socket.AF_INET6) + GATEWAY6.packed)
    body = told(
        attribute(
            routes.RTA_MULTIPATH,
            hop(2, attribute(routes.RTA_GATEWAY, GATEWAY.packed))
            + hop(3, via)
            + hop(4, flags=dead),
        ),
        attribute(routes.RTA_NH_ID, number(9)),
    )

    route = read_route(body)

    assert (route.dst, route.ifindex, route.nexthop_id) == (ip_network("0.0.0.0/0"), 0, 9)
    assert route.hops == (Hop(2, GATEWAY), Hop(3, GATEWAY6), Hop(4, None, is_dead=True))


def test_a_route_by_a_link_that_is_down_is_dead():
    body = told(attribute(routes.RTA_OIF, number(3)), flags=RTNH_F_LINKDOWN)

    assert read_route(body).hops == (Hop(3, None, is_dead=True),)


def test_a_route_that_leads_nowhere_says_so():
    unreachable = read_route(told(family=socket.AF_INET6, kind=7))

    assert (unreachable.dst, unreachable.kind, unreachable.hops) == (ip_network("::/0"), 7, ())


def test_what_is_no_ip_route_is_left_out_and_copies_are_told_apart():
    bridge = told(family=7)
    copy = told(attribute(routes.RTA_OIF, number(3)), flags=routes.RTM_F_CLONED)

    assert read_route(bridge) is None
    assert (is_copy(copy), is_copy(told(attribute(routes.RTA_OIF, number(3))))) == (True, False)


@pytest.mark.parametrize("length", [0, 4, 20])
def test_a_garbled_way_is_refused(length):
    body = told(attribute(routes.RTA_MULTIPATH, RTNEXTHOP.pack(length, 0, 0, 3)))

    with pytest.raises(ValueError, match="a way of a route"):
        read_route(body)


def test_a_cut_way_is_refused():
    with pytest.raises(ValueError, match="a way of a route in 4 bytes"):
        read_route(told(attribute(routes.RTA_MULTIPATH, bytes(4))))


def nexthop(number_, *parts, flags=0):
    return NHMSG.pack(socket.AF_INET, 0, 0, flags) + attribute(1, number(number_)) + b"".join(parts)


def test_ways_of_nexthop_objects_are_looked_up():
    one = nexthop(1, attribute(5, number(2)), attribute(6, GATEWAY.packed))
    two = nexthop(2, attribute(5, number(3)), flags=RTNH_F_DEAD)
    black = nexthop(3, attribute(4, b""))
    group = nexthop(9, attribute(2, struct.pack("=IBBH", 1, 0, 0, 0) * 2))
    both = nexthop(
        8, attribute(2, struct.pack("=IBBHIBBHIBBH", 1, 0, 0, 0, 2, 9, 0, 0, 7, 0, 0, 0))
    )
    objects = {read_nexthop(body).number: read_nexthop(body) for body in (one, two, black, group)}
    objects[8] = read_nexthop(both)

    assert ways(1, objects) == (Hop(2, GATEWAY),)
    assert ways(9, objects) == (Hop(2, GATEWAY), Hop(2, GATEWAY))
    assert ways(8, objects) == (Hop(2, GATEWAY), Hop(3, None, is_dead=True))
    assert (ways(3, objects), ways(77, objects)) == ((), ())


def address_told(*parts, family=socket.AF_INET, flags=0, scope=0):
    return IFADDRMSG.pack(family, 24, flags, scope, 5) + b"".join(parts)


def test_an_address_is_read_with_all_its_flags():
    own, peer = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    body = address_told(
        attribute(IFA_ADDRESS, peer.packed),
        attribute(IFA_LOCAL, own.packed),
        attribute(IFA_FLAGS, number(0x200 | IFA_F_DEPRECATED)),
        flags=IFA_F_DEPRECATED,
    )

    found = read_address_message(body)

    assert (found.ifindex, str(found.interface), found.is_global) == (5, "192.0.2.1/24", True)
    assert found.flags == 0x200 | IFA_F_DEPRECATED
    assert (found.is_usable, found.is_stable, found.is_single) == (True, False, False)


@pytest.mark.parametrize(
    ("flags", "usable", "stable"),
    [
        (0, True, True),
        (IFA_F_TENTATIVE, False, False),
        (IFA_F_DADFAILED, False, False),
        (IFA_F_DEPRECATED, True, False),
        (IFA_F_TEMPORARY, True, False),
    ],
)
def test_an_ipv6_address_is_judged_by_its_flags(flags, usable, stable):
    packed = ip_address("2001:db8::1").packed
    body = address_told(attribute(IFA_ADDRESS, packed), family=socket.AF_INET6, flags=flags)

    found = read_address_message(body)

    assert (found.is_usable, found.is_stable) == (usable, stable)


def test_what_is_no_ip_address_is_left_out():
    assert read_address_message(address_told(family=28)) is None
    assert read_address_message(address_told()) is None
