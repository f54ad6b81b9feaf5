# SPDX-License-Identifier: Apache-2.0
"""Rtnl: what pycni asks of rtnetlink, in one network namespace.

Requests of an ADD, a DEL and an agent at rest are packed here and cost 20 µs each; the rest is
iproute.py's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from typing import Self

from pycni.cluster import IPAddress, IPNetwork
from pycni.kernel.addresses import (
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
    Address,
    pack_address,
    pack_address_question,
    read_address_message,
)
from pycni.kernel.child_requests import ChildRequests
from pycni.kernel.fib import Path, ask_paths
from pycni.kernel.links import (
    IFF_UP,
    IFINFOMSG,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    End,
    FarEnd,
    Link,
    pack_changes,
    pack_down,
    pack_ipv4_parameters,
    pack_link_question,
    pack_mac_change,
    pack_name_change,
    pack_netkit,
    pack_no_ipv6_address,
    pack_veth,
    pack_vxlan,
    read_end,
    read_link,
)
from pycni.kernel.netlink import (
    NEW,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_ECHO,
    NLM_F_REPLACE,
    NetlinkError,
)
from pycni.kernel.netlink_socket import NetlinkSocket
from pycni.kernel.nexthops import RTM_GETNEXTHOP, pack_nexthop_listing, read_nexthop, ways
from pycni.kernel.qdiscs import (
    RTM_DELQDISC,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC_H_INGRESS,
    Filter,
    pack_clsact,
    pack_filter,
    pack_filter_question,
    pack_filters_question,
    pack_ingress_question,
    pack_qdiscs_question,
    read_filter,
    read_qdisc,
)
from pycni.kernel.routes import (
    RT_TABLE_MAIN,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    Route,
    is_copy,
    pack_route,
    pack_route_listing,
    pack_route_question,
    pack_routes_question,
    read_route,
)
from pycni.kernel.rules import (
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWRULE,
    Listed,
    Rule,
    pack_rule,
    pack_rules_question,
    pack_unreachable,
    read_rule,
)

REPLACE = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
"""Flags of a request that makes something or takes the place of what is there."""
NO_PARAMETERS: Mapping[int, int] = {}
UNROUTABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
"""No route, or one of the types unreachable, prohibit and blackhole."""

NO_LINK = (errno.ENODEV, errno.ERANGE)
"""No link has the name; none can have it, for it is too long."""


class Rtnl(ChildRequests):
    """A rtnetlink socket: `made`, which it takes over, or one of the calling thread's namespace.

    Only one thread at a time may use it. A refusal of the kernel is raised as NetlinkError, with
    its errno.
    """

    def __init__(self, made: socket.socket | None = None) -> None:
        super().__init__(NetlinkSocket(made))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def link(self, ifname: str, *, netnsid: int | None = None) -> Link | None:
        """The link of that name in this namespace, or in the one with that number here.

        None if there is none. EINVAL if no namespace has the number.
        """
        return self._find_link(pack_link_question(ifname=ifname, netnsid=netnsid))

    def link_at(self, ifindex: int, *, netnsid: int | None = None) -> Link | None:
        """The link with that index in this namespace, or in the one with that number here.

        None if there is none. EINVAL if no namespace has the number.
        """
        return self._find_link(pack_link_question(ifindex=ifindex, netnsid=netnsid))

    def ends(self, places: Iterable[tuple[int, int | None]]) -> list[FarEnd]:
        """The link at each place, an index and the number of a namespace here (None: this one);
        an empty one where there is none. Many at once are cheap."""
        bodies = [pack_link_question(ifindex=ifindex, netnsid=nsid) for ifindex, nsid in places]
        answers = self._asker.requests(RTM_GETLINK, 0, bodies)
        return [FarEnd() if answer is None else read_end(answer) for answer in answers]

    def ifindex(self, ifname: str) -> int:
        """The index of the link of that name. ENODEV if there is none."""
        return read_link(self._ask_link(pack_link_question(ifname=ifname))).ifindex

    def links(self) -> list[Link]:
        """All links of this namespace, in the kernel's order."""
        return [read_link(body) for body in self._asker.dump(RTM_GETLINK, pack_link_question())]

    def add_veth(self, host: End, peer: End) -> None:
        """Make a veth pair, both ends down."""
        self._asker.request(RTM_NEWLINK, NEW, pack_veth(host, peer))

    def add_netkit(self, host: End, peer: End, *, headroom: int) -> None:
        """Make a netkit pair, both ends down, with `headroom` bytes before each frame."""
        self._asker.request(RTM_NEWLINK, NEW, pack_netkit(host, peer, headroom=headroom))

    def add_vxlan(self, ifname: str, *, mac: str, mtu: int, port: int) -> None:
        """Make a VXLAN device that takes its tunnels from packets' metadata, down.

        `mtu` is in bytes of an inner IP packet, `port` the UDP port.
        """
        body = pack_vxlan(End(ifname, mac=mac, mtu=mtu), port=port)
        self._asker.request(RTM_NEWLINK, NEW, body)

    def set_up(
        self,
        ifindex: int,
        *,
        flags: int = 0,
        alias: str = "",
        ipv4: Mapping[int, int] = NO_PARAMETERS,
    ) -> None:
        """Set a link up, and with it more IFF_* flags, the alias, if it is given, and parameters of
        net.ipv4.conf by IPV4_DEVCONF_*."""
        body = pack_changes(ifindex, flags=IFF_UP | flags, alias=alias)
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, body + pack_ipv4_parameters(ipv4))

    def set_ipv4(self, ifindex: int, values: Mapping[int, int]) -> None:
        """Set parameters of a link in net.ipv4.conf, by IPV4_DEVCONF_*."""
        body = pack_changes(ifindex) + pack_ipv4_parameters(values)
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, body)

    def set_mac(self, ifindex: int, mac: str) -> None:
        """Give a link another MAC."""
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_mac_change(ifindex, mac))

    def set_mtu(self, ifindex: int, mtu: int) -> None:
        """Set the MTU of a link, in bytes."""
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_changes(ifindex, mtu=mtu))

    def set_master(self, ifindex: int, master: int) -> None:
        """Make a link a port of the bridge with the index `master`; 0: of none."""
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_changes(ifindex, master=master))

    def set_alias(self, ifindex: int, alias: str) -> None:
        """Give a link an alias: at most 255 bytes."""
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_changes(ifindex, alias=alias))

    def rename(self, link: Link, ifname: str) -> None:
        """Give a link another name. EEXIST if another one has it.

        Before Linux 6.2 a link that is up cannot be renamed: then it is down for a moment.
        """
        try:
            self._rename(link.ifindex, ifname)
        except NetlinkError as error:
            if error.errno != errno.EBUSY:
                raise
            self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_down(link.ifindex))
            try:
                self._rename(link.ifindex, ifname)
            finally:
                self.set_up(link.ifindex)

    def _rename(self, ifindex: int, ifname: str) -> None:
        self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_name_change(ifindex, ifname))

    def generate_no_address(self, ifindex: int) -> None:
        """Have the kernel make no link-local address, with its DAD and MLD, when a link rises.

        A link that has no IPv6 at all makes none anyway: its MTU is below 1280, or IPv6 is off.
        """
        try:
            self._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_no_ipv6_address(ifindex))
        except NetlinkError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise

    def delete_link(self, ifindex: int) -> bool:
        """Delete a link; False if it is gone already."""
        try:
            self._asker.request(RTM_DELLINK, NLM_F_ACK, IFINFOMSG.pack(0, 0, ifindex, 0, 0))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def addresses(self, ifindex: int = 0) -> list[Address]:
        """The addresses of one link, or of all, in the kernel's order."""
        answers = self._asker.dump(RTM_GETADDR, pack_address_question())
        found = [one for one in map(read_address_message, answers) if one is not None]
        return [one for one in found if ifindex in (0, one.ifindex)]

    def add_address(self, ifindex: int, address: IPAddress, *, prefixlen: int = 0) -> None:
        """Add an address to a link, as a host address if there is no `prefixlen`."""
        body = pack_address(ifindex, address, prefixlen=prefixlen or address.max_prefixlen)
        self._asker.request(RTM_NEWADDR, NEW, body)

    def delete_address(self, ifindex: int, address: IPAddress, *, prefixlen: int) -> None:
        """Delete an address of a link. EADDRNOTAVAIL if it has no such."""
        body = pack_address(ifindex, address, prefixlen=prefixlen)
        self._asker.request(RTM_DELADDR, NLM_F_ACK, body)

    def routes(self) -> list[Route]:
        """All routes of all tables and types, in the kernel's order."""
        answers = self._asker.dump(RTM_GETROUTE, pack_route_listing())
        read = (read_route(answer) for answer in answers if not is_copy(answer))
        found = [one for one in read if one is not None]
        if any(one.nexthop_id and not one.hops for one in found):
            return self._with_ways(found)
        return found

    def add_route(self, route: Route) -> None:
        """Add a route. EEXIST if there is one to the destination."""
        self._asker.request(RTM_NEWROUTE, NEW, pack_route(route))

    def replace_route(self, route: Route) -> None:
        """Add a route, or change the one to the destination."""
        self._asker.request(RTM_NEWROUTE, REPLACE, pack_route(route))

    def delete_route(self, route: Route) -> None:
        """Delete a route. ESRCH if there is none like it, ENODEV if its link is gone."""
        self._asker.request(RTM_DELROUTE, NLM_F_ACK, pack_route(route))

    def routes_by(self, ifindex: int, version: int) -> list[Route]:
        """The routes of the main table by a link, of an IP version. Raises NetlinkError."""
        question = pack_routes_question(ifindex, version)
        found = map(read_route, self._asker.dump_strictly(RTM_GETROUTE, question))
        by = (one for one in found if one is not None and one.table == RT_TABLE_MAIN)
        return [one for one in by if one.ifindex == ifindex]

    def route_to(
        self, address: IPAddress, *, source: IPAddress | None = None, by: int = 0
    ) -> Route | None:
        """The way that a packet of this node would take; or one of `source`, that came by the
        interface with the index `by`. None if it cannot be sent."""
        question = pack_route_question(address, source=source, by=by)
        try:
            return read_route(self._asker.request(RTM_GETROUTE, 0, question))
        except NetlinkError as error:
            if error.errno not in UNROUTABLE:
                raise
            return None

    def paths(self, addresses: Iterable[IPAddress], source: IPAddress) -> dict[IPAddress, Path]:
        """The ways from one of our addresses to others, as Fib.paths. Many at once are cheap."""
        return ask_paths(self._asker, addresses, source)

    def ingress_qdisc(self, ifindex: int) -> str | None:
        """Kind of the qdisc at a link's ingress, or None. ENODEV if there is no such link.

        Everyone who listens to events of qdiscs hears the answer, too.
        """
        question = pack_ingress_question(ifindex)
        try:
            answer = self._asker.request(RTM_GETQDISC, NLM_F_ACK | NLM_F_ECHO, question)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return read_qdisc(answer).kind if answer else None  # of noop the kernel says nothing

    def add_clsact(self, ifindex: int) -> None:
        """Give a link the qdisc clsact. EEXIST if something is at its ingress."""
        self._asker.request(RTM_NEWQDISC, NEW, pack_clsact(ifindex))

    def delete_clsact(self, ifindex: int) -> None:
        """Delete a link's clsact, with all filters. ENOENT or EINVAL if there is none."""
        self._asker.request(RTM_DELQDISC, NLM_F_ACK, pack_clsact(ifindex))

    def filters(self, ifindex: int, parent: int) -> list[Filter]:
        """The filters of a link at `parent`, a handle as TC_H_CLSACT | TC_H_MIN_INGRESS.

        Raises NetlinkError, EINVAL or ENODEV if there is no such place.
        """
        answers = self._asker.dump(RTM_GETTFILTER, pack_filters_question(ifindex, parent))
        return [found for found in map(read_filter, answers) if found is not None]

    def filter_programs(
        self, places: Iterable[tuple[int, int]], *, priority: int, handle: int
    ) -> list[int]:
        """The program of the BPF filter with that priority and handle, for all protocols, at each
        place, an ifindex and a parent; 0 where there is none. Many at once are cheap."""
        bodies = [
            pack_filter_question(ifindex, parent, priority=priority, handle=handle)
            for ifindex, parent in places
        ]
        answers = self._asker.requests(RTM_GETTFILTER, 0, bodies)
        found = (None if answer is None else read_filter(answer) for answer in answers)
        return [0 if one is None else one.program for one in found]

    def ingress_qdiscs(self) -> dict[int, str]:
        """The kind of qdisc at the ingress of each link that has one."""
        found = map(read_qdisc, self._asker.dump(RTM_GETQDISC, pack_qdiscs_question()))
        return {one.ifindex: one.kind for one in found if one.parent == TC_H_INGRESS}

    def add_filter(
        self, ifindex: int, parent: int, *, fd: int, name: str, priority: int, handle: int
    ) -> None:
        """Attach a BPF program in direct-action mode, for all protocols.

        `parent` is a handle as TC_H_CLSACT | TC_H_MIN_INGRESS. EEXIST if the place is taken.
        """
        body = pack_filter(ifindex, parent, fd=fd, name=name, priority=priority, handle=handle)
        self._asker.request(RTM_NEWTFILTER, NEW, body)

    def replace_filter(
        self, ifindex: int, parent: int, *, fd: int, name: str, priority: int, handle: int
    ) -> None:
        """The same; a BPF filter in that place is replaced, and no packet misses both."""
        body = pack_filter(ifindex, parent, fd=fd, name=name, priority=priority, handle=handle)
        self._asker.request(RTM_NEWTFILTER, REPLACE, body)

    def add_rule(self, rule: Rule) -> None:
        """Add a rule."""
        self._asker.request(RTM_NEWRULE, NEW, pack_rule(rule))

    def delete_rule(self, rule: Rule) -> None:
        """Delete a rule. ENOENT if there is none."""
        self._asker.request(RTM_DELRULE, NLM_F_ACK, pack_rule(rule))

    def delete_unreachable(self, version: int, mark: int, priority: int) -> None:
        """Delete a rule that packets with a mark have no route. ENOENT if there is none."""
        self._asker.request(RTM_DELRULE, NLM_F_ACK, pack_unreachable(version, mark, priority))

    def rules(self, version: int) -> list[Rule]:
        """The rules of an IP version that select packets from one address."""
        return [
            Rule(one.source.network_address, one.priority, one.table)
            for one in self.listed_rules(version)
            if one.source is not None and one.source.prefixlen == one.source.max_prefixlen
        ]

    def rule_destinations(self, version: int) -> list[IPNetwork]:
        """Where packets go that rules of an IP version select by that.

        EAFNOSUPPORT if the kernel has no rules for that version.
        """
        return [
            one.destination for one in self.listed_rules(version) if one.destination is not None
        ]

    def listed_rules(self, version: int) -> list[Listed]:
        """All rules of an IP version. EAFNOSUPPORT if the kernel has none for that version."""
        return [
            read_rule(one) for one in self._asker.dump(RTM_GETRULE, pack_rules_question(version))
        ]

    def _with_ways(self, routes: list[Route]) -> list[Route]:
        """The ways of nexthop objects, where the kernel says only their numbers."""
        answers = map(read_nexthop, self._asker.dump(RTM_GETNEXTHOP, pack_nexthop_listing()))
        objects = {one.number: one for one in answers}
        return [one if one.hops else one.with_hops(ways(one.nexthop_id, objects)) for one in routes]

    def _ask_link(self, question: bytes) -> bytes:
        return self._asker.request(RTM_GETLINK, 0, question)

    def _find_link(self, question: bytes) -> Link | None:
        try:
            return read_link(self._ask_link(question))
        except NetlinkError as error:
            if error.errno not in NO_LINK:
                raise
            return None
