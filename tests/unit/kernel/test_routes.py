# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/routes.py and addresses.py: the bodies of requests."""

import socket
import struct
from ipaddress import ip_address, ip_network

from pycni.kernel import routes
from pycni.kernel.addresses import IFADDRMSG, pack_address
from pycni.kernel.netlink import attributes
from pycni.kernel.routes import RTMSG, Route, pack_route

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
