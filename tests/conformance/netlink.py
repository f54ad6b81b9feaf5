# SPDX-License-Identifier: Apache-2.0
"""Enough of rtnetlink to look at a network namespace and to change it as a stranger would.

Messages and attributes: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h. The
socket stays in the namespace it was opened in, whatever the thread does later.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from types import TracebackType

from conformance import attributes
from conformance.namespaces import Netns, within
from conformance.records import Address, Link, Route

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
GETNEIGH, GETRULE, GETQDISC, DELQDISC, GETTFILTER = 30, 34, 38, 37, 46

ERROR, DONE = 2, 3
REQUEST, ACK, EXCL, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 18, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
NDA_DST, NDA_LLADDR = 1, 2
TCA_KIND = 1

IFF_UP = 0x1
IFA_F_NODAD = 0x02
RTM_F_CLONED = 0x200
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
RTNH_F_ONLINK = 4
NUD_PERMANENT = 0x80
"""Made by somebody: neither learnt, nor the kernel's own on a link without ARP."""

AF_UNSPEC = 0
STRANGER_MAC, STRANGER_PEER = "02:00:00:00:00:99", "stranger"
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Rtnl:
    """An rtnetlink socket in a namespace, the caller's if none is named."""

    def __init__(self, netns: Netns | None = None) -> None:
        def opened() -> socket.socket:
            found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            found.bind((0, 0))
            return found

        self._socket = opened() if netns is None else within(netns, opened)
        self._sequence = 0

    def __enter__(self) -> Rtnl:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def links(self) -> list[Link]:
        found = []
        for body in self._dump(GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
            index, flags = struct.unpack_from("=4xiI", body)
            have = attributes.decode(body[16:])
            info = attributes.decode(have.get(IFLA_LINKINFO, b""))
            found.append(
                Link(
                    index=index,
                    name=attributes.text(have[IFLA_IFNAME]),
                    kind=attributes.text(info.get(IFLA_INFO_KIND, b"")),
                    mac=have.get(IFLA_ADDRESS, b"").hex(":"),
                    mtu=attributes.number(have.get(IFLA_MTU)),
                    up=bool(flags & IFF_UP),
                    master=attributes.number(have.get(IFLA_MASTER)),
                    peer=attributes.number(have.get(IFLA_LINK)),
                    alias=attributes.text(have.get(IFLA_IFALIAS, b"")),
                )
            )
        return found

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links() if link.name == name), None)

    def addresses(self, index: int | None = None) -> list[Address]:
        found = []
        for body in self._dump(GETADDR, bytes(8)):
            family, prefix, flags, _, its = struct.unpack_from("=BBBBI", body)
            have = attributes.decode(body[8:])
            raw = have.get(IFA_LOCAL) or have.get(IFA_ADDRESS)
            if raw and family in FAMILIES.values() and index in (None, its):
                all_flags = attributes.number(have[IFA_FLAGS]) if IFA_FLAGS in have else flags
                found.append(Address(its, f"{ip_address(raw)}/{prefix}", all_flags))
        return found

    def routes(self) -> list[Route]:
        """Of all tables, without the kernel's cached ones."""
        found = []
        for family in FAMILIES.values():
            for body in self._dump(GETROUTE, struct.pack("=B11x", family)):
                _, length, _, _, table, _, _, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
                have = attributes.decode(body[12:])
                if flags & RTM_F_CLONED:
                    continue
                zero = bytes(4 if family == socket.AF_INET else 16)
                found.append(
                    Route(
                        family=4 if family == socket.AF_INET else 6,
                        dst=f"{ip_address(have.get(RTA_DST, zero))}/{length}",
                        gateway=attributes.address(have.get(RTA_GATEWAY)),
                        index=attributes.number(have.get(RTA_OIF)),
                        table=attributes.number(have[RTA_TABLE]) if RTA_TABLE in have else table,
                        kind=kind,
                        source=attributes.address(have.get(RTA_PREFSRC)),
                        metric=attributes.number(have.get(RTA_PRIORITY)),
                    )
                )
        return found

    def rules(self) -> list[bytes]:
        """Routing rules as the kernel encodes them, to be compared."""
        return [
            body
            for family in FAMILIES.values()
            for body in self._dump(GETRULE, struct.pack("=B11x", family))
        ]

    def made_neighbours(self) -> list[tuple[int, str, str]]:
        """Permanent unicast entries: interface index, address and MAC."""
        found = []
        for family in FAMILIES.values():
            for body in self._dump(GETNEIGH, struct.pack("=B11x", family)):
                index, state = struct.unpack_from("=4xiH", body)
                have = attributes.decode(body[12:])
                address = attributes.address(have.get(NDA_DST))
                if state & NUD_PERMANENT and address and not ip_address(address).is_multicast:
                    found.append((index, address, have.get(NDA_LLADDR, b"").hex(":")))
        return found

    def qdiscs(self) -> list[tuple[int, str, int, int]]:
        """Interface index, kind, handle and parent."""
        found = []
        for body in self._dump(GETQDISC, bytes(20)):
            index, handle, parent = struct.unpack_from("=4xiII", body)
            found.append(
                (index, attributes.text(attributes.decode(body[20:])[TCA_KIND]), handle, parent)
            )
        return found

    def filters(self, index: int, parent: int) -> list[tuple[str, int]]:
        """Kind and priority of the filters below a qdisc."""
        request = struct.pack("=BxxxiIII", AF_UNSPEC, index, 0, parent, 0)
        found = []
        for body in self._dump(GETTFILTER, request):
            handle, info = struct.unpack_from("=8xI4xI", body)
            if handle:
                found.append((attributes.text(attributes.decode(body[20:])[TCA_KIND]), info >> 16))
        return found

    def add_link(
        self,
        name: str,
        kind: str,
        *,
        peer: str = "",
        peer_netns: Netns | None = None,
        mac: str = "",
    ) -> int:
        """Make a link that is down; returns its index. A veth needs its `peer`'s name."""
        info = attributes.encode(IFLA_INFO_KIND, kind.encode())
        with _opened(peer_netns) as descriptor:
            if peer:
                inner = bytes(16) + attributes.encode(IFLA_IFNAME, peer.encode() + b"\0")
                if descriptor is not None:
                    inner += attributes.encode(IFLA_NET_NS_FD, struct.pack("=I", descriptor))
                info += attributes.encode(IFLA_INFO_DATA, attributes.encode(VETH_INFO_PEER, inner))
            body = bytes(16) + attributes.encode(IFLA_IFNAME, name.encode() + b"\0")
            if mac:
                body += attributes.encode(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
            self._change(NEWLINK, CREATE | EXCL, body + attributes.encode(IFLA_LINKINFO, info))
        made = self.link(name)
        assert made is not None
        return made.index

    def add_stranger(self, name: str) -> int:
        """A link that no plugin made, of the kind most plugins make; returns its index."""
        return self.add_link(name, "veth", peer=STRANGER_PEER, mac=STRANGER_MAC)

    def set_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        name: str = "",
        mtu: int = 0,
        mac: str = "",
        netns: Netns | None = None,
    ) -> None:
        """Change what is given."""
        flags, change = (0, 0) if up is None else (IFF_UP * up, IFF_UP)
        body = struct.pack("=BxHiII", 0, 0, index, flags, change)
        with _opened(netns) as descriptor:
            if name:
                body += attributes.encode(IFLA_IFNAME, name.encode() + b"\0")
            if mtu:
                body += attributes.encode(IFLA_MTU, struct.pack("=I", mtu))
            if mac:
                body += attributes.encode(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
            if descriptor is not None:
                body += attributes.encode(IFLA_NET_NS_FD, struct.pack("=I", descriptor))
            self._change(SETLINK, 0, body)

    def delete_link(self, index: int) -> None:
        """Delete a link; it may be gone already."""
        try:
            self._change(DELLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def add_address(self, index: int, text: str) -> None:
        """Add `192.0.2.1/24`, without duplicate address detection."""
        self._address(NEWADDR, CREATE | EXCL, index, text)

    def delete_address(self, index: int, text: str) -> None:
        self._address(DELADDR, 0, index, text)

    def _address(self, kind: int, flags: int, index: int, text: str) -> None:
        its = ip_interface(text)
        raw, nodad = its.ip.packed, IFA_F_NODAD if its.version == 6 else 0
        body = struct.pack("=BBBBI", FAMILIES[its.version], its.network.prefixlen, nodad, 0, index)
        self._change(
            kind,
            flags,
            body + attributes.encode(IFA_LOCAL, raw) + attributes.encode(IFA_ADDRESS, raw),
        )

    def add_route(self, dst: str, *, gateway: str = "", index: int) -> None:
        """A route of the main table, through a gateway on the link (onlink)."""
        self._route(NEWROUTE, CREATE | EXCL, dst, gateway, index)

    def delete_route(self, dst: str, *, gateway: str = "", index: int) -> None:
        self._route(DELROUTE, 0, dst, gateway, index)

    def _route(self, kind: int, flags: int, dst: str, gateway: str, index: int) -> None:
        network = ip_network(dst, strict=False)
        onlink = RTNH_F_ONLINK if gateway and kind == NEWROUTE else 0
        scope = 0 if gateway or kind == DELROUTE or network.version == 6 else 253
        protocol = RTPROT_STATIC if kind == NEWROUTE else 0
        body = struct.pack(
            "=BBBBBBBBI", FAMILIES[network.version], network.prefixlen, 0, 0, RT_TABLE_MAIN,
            protocol, 255 if kind == DELROUTE and network.version == 4 else scope,
            RTN_UNICAST if kind == NEWROUTE else 0, onlink,
        )  # fmt: skip
        if network.prefixlen:
            body += attributes.encode(RTA_DST, network.network_address.packed)
        if gateway:
            body += attributes.encode(RTA_GATEWAY, ip_address(gateway).packed)
        self._change(kind, flags, body + attributes.encode(RTA_OIF, struct.pack("=I", index)))

    def delete_qdisc(self, index: int, handle: int, parent: int) -> None:
        self._change(DELQDISC, 0, struct.pack("=BxxxiIII", AF_UNSPEC, index, handle, parent, 0))

    def _change(self, kind: int, flags: int, body: bytes) -> None:
        for _ in self._ask(kind, REQUEST | ACK | flags, body):
            pass

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        return list(self._ask(kind, REQUEST | DUMP, body))

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            data = self._socket.recv(1 << 20)
            while data:
                length, its, _, sequence, _ = struct.unpack_from("=IHHII", data)
                payload, data = data[16:length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if its == DONE:
                    return
                if its == ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield payload


class _opened:
    """A descriptor of a namespace for the length of a request; None for no namespace."""

    def __init__(self, netns: Netns | None) -> None:
        self._netns = netns
        self._descriptor: int | None = None

    def __enter__(self) -> int | None:
        if self._netns is not None:
            self._descriptor = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
