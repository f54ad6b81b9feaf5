# SPDX-License-Identifier: Apache-2.0
"""Links: what rtnetlink says about one, and the bodies of requests that make and change them.

Sources: linux/rtnetlink.h, linux/if_link.h, linux/if.h, linux/veth.h; rtnetlink(7).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from socket import AF_INET, AF_INET6
from typing import NamedTuple

from pycni.kernel.netlink import (
    CACHED,
    U16,
    U32,
    attribute,
    attributes,
    nested,
    number,
    pack_mac,
    read_number,
    read_text,
    text,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18

IFINFOMSG = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_QDISC, IFLA_MASTER = 1, 3, 4, 5, 6, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC = 16, 18, 20, 26
IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 28, 29, 31, 32
IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_NETKIT_PEER_INFO, IFLA_NETKIT_POLICY, IFLA_NETKIT_PEER_POLICY = 1, 3, 4
IFLA_NETKIT_MODE, IFLA_NETKIT_HEADROOM = 5, 8
NETKIT_L2, NETKIT_PASS, NETKIT_DROP = 0, 0, 2
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA = 7, 15, 25
IFLA_VXLAN_UDP_ZERO_CSUM6_TX, IFLA_VXLAN_UDP_ZERO_CSUM6_RX = 19, 20
IFLA_IPVLAN_MODE = 1
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFLA_INET_CONF, IFLA_INET6_CONF = 1, 2
IPV4_DEVCONF_FORWARDING, IPV4_DEVCONF_RP_FILTER, IPV4_DEVCONF_ARPFILTER = 1, 8, 13
"""Of net.ipv4.conf, by number: linux/ip.h. In an array, number 1 comes first."""
DEVCONF_DISABLE_IPV6 = 26
"""Of net.ipv6.conf, by place in an array: linux/ipv6.h."""
RTEXT_FILTER_SKIP_STATS = 1 << 3

IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_NOARP = 0x1, 0x8, 0x40, 0x80
ARPHRD_ETHER = 1
OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
"""RFC 2863, in the order of linux/if.h."""
ALIAS_MAX = 255
"""Bytes of an alias, without a closing zero: IFALIASZ of linux/if.h is 256, with it."""


class Vxlan(NamedTuple):
    """What is special about a VXLAN device."""

    port: int = 0
    """UDP port."""
    collects_metadata: bool = False


class Link(NamedTuple):
    """An interface. What the kernel did not say has the default."""

    ifindex: int
    flags: int = 0
    """IFF_*."""
    ifname: str = ""
    mac: str = ""
    """The link-layer address, of whatever length."""
    mtu: int = 0
    """Bytes."""
    alias: str = ""
    operstate: str = ""
    kind: str = ""
    """"veth", "vxlan", ...; empty for hardware."""
    hardware: int = ARPHRD_ETHER
    """ARPHRD_*."""
    qdisc: str = ""
    """Kind of the root qdisc."""
    peer_ifindex: int = 0
    """Of a veth or netkit: the index of the other end; of a macvlan or ipvlan: of the interface
    below it. In the namespace `peer_netnsid`. 0: none."""
    peer_netnsid: int | None = None
    """The number that this namespace has for the peer's; None: both ends are in one namespace."""
    vxlan: Vxlan | None = None
    af_spec: bytes = b""
    """Attributes by address family, not read yet."""
    master: int = 0
    """Index of the bridge, bond or VRF that it is a port of; 0: none."""
    ipvlan_mode: int | None = None
    """IPVLAN_MODE_* (children.py); None: it is no ipvlan."""

    def ipv4(self, number: int) -> int | None:
        """Its net.ipv4.conf by IPV4_DEVCONF_*; None if the kernel did not say."""
        return self._parameter(AF_INET, IFLA_INET_CONF, number - 1)

    def ipv6(self, place: int) -> int | None:
        """Its net.ipv6.conf by DEVCONF_*; None if the kernel did not say, or it has no IPv6."""
        return self._parameter(AF_INET6, IFLA_INET6_CONF, place)

    def _parameter(self, family: int, array: int, place: int) -> int | None:
        values = _array(self.af_spec, family, array)
        value = values[U32.size * place : U32.size * (place + 1)]
        return read_number(value) if value else None

    @property
    def is_up(self) -> bool:
        """Whether it is set up."""
        return bool(self.flags & IFF_UP)

    @property
    def is_running(self) -> bool:
        """Whether it is set up and can send."""
        return self.flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING

    @property
    def is_ethernet(self) -> bool:
        """Whether its link-layer address is a MAC."""
        return self.hardware == ARPHRD_ETHER

    @property
    def is_inside(self) -> bool:
        """Whether it only holds addresses, and leads to no network: loopback or a dummy."""
        return bool(self.flags & IFF_LOOPBACK) or self.kind == "dummy"


class End(NamedTuple):
    """A link that is to be made, or one end of a pair."""

    ifname: str
    mac: str = ""
    """Empty: the kernel chooses one."""
    mtu: int = 0
    """Bytes; 0: the kernel's default."""
    netns_fd: int = -1
    """The namespace it is made in; -1: that of the socket."""


@lru_cache(maxsize=CACHED)
def read_link(body: bytes) -> Link:
    """The link that an RTM_NEWLINK or RTM_DELLINK is about. Raises ValueError if it is garbled."""
    _, hardware, ifindex, flags, _ = IFINFOMSG.unpack_from(body)
    ifname = mac = alias = operstate = kind = qdisc = ""
    af_spec = b""
    mtu = peer_ifindex = master = 0
    netnsid = vxlan = ipvlan_mode = None
    for name, value in attributes(body, IFINFOMSG.size):
        if name == IFLA_IFNAME:
            ifname = read_text(value)
        elif name == IFLA_ADDRESS:
            mac = value.hex(":")
        elif name == IFLA_IFALIAS:
            alias = read_text(value)
        elif name == IFLA_MTU:
            mtu = read_number(value)
        elif name == IFLA_OPERSTATE:
            operstate = OPERSTATES[value[0]]
        elif name == IFLA_QDISC:
            qdisc = read_text(value)
        elif name == IFLA_LINK:
            peer_ifindex = read_number(value)
        elif name == IFLA_MASTER:
            master = read_number(value)
        elif name == IFLA_LINK_NETNSID:
            netnsid = read_number(value)
        elif name == IFLA_AF_SPEC:
            af_spec = value
        elif name == IFLA_LINKINFO:
            info = dict(attributes(value))
            kind = read_text(info.get(IFLA_INFO_KIND, b""))
            if kind == "vxlan":
                vxlan = _read_vxlan(info.get(IFLA_INFO_DATA, b""))
            elif kind == "ipvlan":
                data = dict(attributes(info.get(IFLA_INFO_DATA, b"")))
                ipvlan_mode = U16.unpack(data[IFLA_IPVLAN_MODE])[0]
    return Link(
        ifindex, flags, ifname, mac, mtu, alias, operstate, kind, hardware, qdisc, peer_ifindex,
        netnsid, vxlan, af_spec, master, ipvlan_mode,
    )  # fmt: skip


class FarEnd(NamedTuple):
    """What the node must know of a pod's end of a link. Without any of it, there is no such end."""

    mac: str = ""
    mtu: int = 0
    """Bytes."""


@lru_cache(maxsize=CACHED)
def read_end(body: bytes) -> FarEnd:
    """The end that an RTM_NEWLINK tells of. Cheaper than `read_link`."""
    mac, mtu = "", 0
    for name, value in attributes(body, IFINFOMSG.size):
        if name == IFLA_ADDRESS:
            mac = value.hex(":")
        elif name == IFLA_MTU:
            mtu = read_number(value)
    return FarEnd(mac, mtu)


@lru_cache(maxsize=CACHED)
def _array(af_spec: bytes, family: int, array: int) -> bytes:
    """One family's array in a link's `af_spec`. The pods' links have the same one."""
    of_family = dict(attributes(af_spec)).get(family, b"")
    return dict(attributes(of_family)).get(array, b"")


def pack_link_question(*, ifindex: int = 0, ifname: str = "", netnsid: int | None = None) -> bytes:
    """An RTM_GETLINK for one link, without its statistics."""
    body = IFINFOMSG.pack(0, 0, ifindex, 0, 0)
    if ifname:
        body += text(IFLA_IFNAME, ifname)
    if netnsid is not None:
        body += number(IFLA_TARGET_NETNSID, netnsid)
    return body + number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def pack_veth(host: End, peer: End) -> bytes:
    """An RTM_NEWLINK for a veth pair."""
    return pack_made("veth", host, nested(VETH_INFO_PEER, _pack_end(peer)))


def pack_netkit(host: End, peer: End, *, headroom: int) -> bytes:
    """An RTM_NEWLINK for a netkit pair of Ethernet frames with `headroom` bytes before them.

    What the peer sends is dropped as long as no program is attached to it. Linux before 6.14
    ignores the headroom, as it does every attribute it does not know.
    """
    return pack_made(
        "netkit",
        host,
        nested(IFLA_NETKIT_PEER_INFO, _pack_end(peer)),
        number(IFLA_NETKIT_MODE, NETKIT_L2),
        number(IFLA_NETKIT_POLICY, NETKIT_PASS),
        number(IFLA_NETKIT_PEER_POLICY, NETKIT_DROP),
        attribute(IFLA_NETKIT_HEADROOM, U16.pack(headroom)),
    )


def pack_vxlan(device: End, *, port: int) -> bytes:
    """An RTM_NEWLINK for a VXLAN device that takes its tunnels from packets' metadata."""
    switches = {
        IFLA_VXLAN_COLLECT_METADATA: 1,
        IFLA_VXLAN_LEARNING: 0,
        IFLA_VXLAN_UDP_ZERO_CSUM6_TX: 1,
        IFLA_VXLAN_UDP_ZERO_CSUM6_RX: 1,
    }
    return pack_made(
        "vxlan",
        device,
        attribute(IFLA_VXLAN_PORT, port.to_bytes(2, "big")),
        *(attribute(kind, bytes([value])) for kind, value in switches.items()),
    )


def pack_changes(
    ifindex: int, *, flags: int = 0, alias: str = "", mtu: int = 0, master: int | None = None
) -> bytes:
    """An RTM_NEWLINK that sets these flags, and each of the others that is given."""
    body = IFINFOMSG.pack(0, 0, ifindex, flags, flags)
    if alias:
        body += attribute(IFLA_IFALIAS, alias.encode())
    if mtu:
        body += number(IFLA_MTU, mtu)
    if master is not None:
        body += number(IFLA_MASTER, master)
    return body


def pack_mac_change(ifindex: int, mac: str) -> bytes:
    """An RTM_NEWLINK that gives a link another MAC."""
    return IFINFOMSG.pack(0, 0, ifindex, 0, 0) + attribute(IFLA_ADDRESS, pack_mac(mac))


def pack_name_change(ifindex: int, ifname: str) -> bytes:
    """An RTM_NEWLINK that gives a link another name."""
    return IFINFOMSG.pack(0, 0, ifindex, 0, 0) + text(IFLA_IFNAME, ifname)


def pack_down(ifindex: int) -> bytes:
    """An RTM_NEWLINK that sets a link down."""
    return IFINFOMSG.pack(0, 0, ifindex, 0, IFF_UP)


def pack_ipv4_parameters(values: Mapping[int, int]) -> bytes:
    """The part of an RTM_NEWLINK that sets net.ipv4.conf of the link, by IPV4_DEVCONF_*.

    Unlike a write to /proc/sys it does not empty the caches of routes (inet_set_link_af,
    net/ipv4/devinet.c), and it needs no request of its own.
    """
    if not values:
        return b""
    each = (number(kind, value) for kind, value in values.items())
    return nested(IFLA_AF_SPEC, nested(AF_INET, nested(IFLA_INET_CONF, *each)))


def pack_no_ipv6_address(ifindex: int) -> bytes:
    """An RTM_NEWLINK after which the kernel makes no link-local address when the link rises."""
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    return IFINFOMSG.pack(0, 0, ifindex, 0, 0) + nested(IFLA_AF_SPEC, nested(AF_INET6, mode))


def link_local(mac: str) -> IPv6Address:
    """The modified EUI-64 link-local address of a MAC (RFC 4291, appendix A)."""
    raw = pack_mac(mac)
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    )


def pack_made(kind: str, first: End, *data: bytes) -> bytes:
    """An RTM_NEWLINK for a link of a kind; `data` is what only that kind has."""
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, *data))
    return _pack_end(first) + info


def _pack_end(end: End) -> bytes:
    """A link, with one queue.

    If no number is given, the kernel makes a queue for each CPU and then takes all but one back,
    which waits for an RCU grace period (veth_init_queues, drivers/net/veth.c).
    """
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, end.ifname)
    if end.mac:
        body += attribute(IFLA_ADDRESS, pack_mac(end.mac))
    if end.mtu:
        body += number(IFLA_MTU, end.mtu)
    body += number(IFLA_NUM_TX_QUEUES, 1) + number(IFLA_NUM_RX_QUEUES, 1)
    if end.netns_fd >= 0:
        body += number(IFLA_NET_NS_FD, end.netns_fd)
    return body


def _read_vxlan(data: bytes) -> Vxlan:
    found = dict(attributes(data))
    port = int.from_bytes(found.get(IFLA_VXLAN_PORT, b""), "big")
    return Vxlan(port, any(found.get(IFLA_VXLAN_COLLECT_METADATA, b"")))
