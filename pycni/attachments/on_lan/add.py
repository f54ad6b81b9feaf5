# SPDX-License-Identifier: Apache-2.0
"""ADD of a pod on the LAN. Read `add` from top to bottom: it is the order in which it comes about.

Runs in the node's network namespace and reaches the pod's through a descriptor. A lease is written
before the link is made, so whatever a killed ADD leaves is found (leases.link_of).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_network

from pycni.attachments import delete
from pycni.attachments.on_lan import addresses, detaching
from pycni.attachments.on_lan.attaching import LanAttaching, attaching
from pycni.attachments.on_lan.wanted import refuse_mixed
from pycni.cluster import IPAddress
from pycni.cni.call import Call
from pycni.cni.netconf import DHCP
from pycni.cni.result import Dns, Interface, Result, Route
from pycni.errors import (
    AddressUnavailable,
    DuplicateAttachment,
    InterfaceExists,
    PoolExhausted,
    PycniError,
)
from pycni.ipam import delegation, delegation_records
from pycni.ipam.ipam_result import DEFAULT_ROUTE, IpamResult
from pycni.kernel import namespaces
from pycni.kernel.links import End, Link
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import RT_SCOPE_LINK
from pycni.kernel.rtnl import Rtnl
from pycni.lan import devices, host_child, leases, parents, probe
from pycni.lan.leases import LanLease
from pycni.logfmt import quoted
from pycni.pods import pod_end, source_rules
from pycni.pods.lease import find_lease

PATIENCE = 4
"""Addresses of its ranges that may be others' before an ADD gives up."""

log = logging.getLogger(__name__)


def add(call: Call) -> Result:
    """Attach a pod: addresses, link, routes both ways; returns the CNI result.

    Raises PycniError (with its CNI code); then nothing is left behind. A second ADD of a live
    attachment is refused before anything is touched, IPAM included.
    """
    with attaching(call) as one:
        _start_clean(one)
        by_dhcp = call.conf.delegate == DHCP
        given = _ask(one) if call.conf.delegate and not by_dhcp else None
        one.undo.callback(detaching.detach, one.ipr, one.settings, call.key.digest)
        if by_dhcp:
            given = _ask_over_link(one)
        addresses.take(one, given, without=())
        child = _make_child(one)
        _settle(one, given, child)
        if not by_dhcp:
            _make_link(one)
        if given is None:
            given = addresses.result(one.wanted, one.lease.addresses, one.ipr)
        routes = _configure_pod(one, given, child)
        _lead_to_pod(one, child)
        _announce(one)
        pod_end.wait_until_heard(
            call.netns_fd,
            call.request.ifname,
            addresses=[ip.address.ip for ip in given.ips if ip.address.version == 6],
            timeout=call.patience(),
        )
        return _result(one, given, routes)


def _start_clean(one: LanAttaching) -> None:
    """Refuse a second ADD, and remove what an ADD left that was killed and that no DEL followed.
    A lease without addresses is no attachment."""
    call = one.call
    lease = leases.find(one.settings.run_dir, call.key.digest)
    is_other_kind = find_lease(one.ipr, call.key.digest) is not None
    is_whole = lease is not None and lease.addresses and leases.is_alive(one.ipr, lease)
    if is_other_kind or is_whole:
        raise DuplicateAttachment(
            f"container {call.request.container_id} has {call.request.ifname} attached already",
            hint="run DEL first",
        )
    detaching.detach(one.ipr, one.settings, call.key.digest, netns_fd=call.netns_fd)
    record = delegation_records.find(one.settings, call.key.digest)
    if record is not None:
        delegation.release(one.settings, record, env=call.env, lock=one.lock, timeout=call.left())


def _ask(one: LanAttaching) -> IpamResult:
    """Addresses from another IPAM plugin."""
    return delegation.add(one.call, one.lock, one.undo)


def _ask_over_link(one: LanAttaching) -> IpamResult:
    """The same from a plugin that talks over the link, which must be up for it. The lease is
    written before, still without addresses."""
    with one.alone():  # nobody removes the directory meanwhile
        one.save()
    _make_link(one)
    pod_end.bring_up(one.call.netns_fd, one.call.request.ifname)
    return _ask(one)


def _make_child(one: LanAttaching) -> Link:
    """The node's own link beside the pod's. The lease is written: of two ADDs that want different
    kinds at once, the second one sees the first."""
    parent, device, mode = one.wanted.parent, one.wanted.device, one.wanted.mode
    with one.alone():
        held = leases.leases(one.settings.run_dir)
        others = [lease for lease in held if lease.key != one.lease.key]
        if all(lease.parent != parent.ifname for lease in others):  # it may be of another kind
            host_child.teardown(one.ipr, parent.ifname)
        refuse_mixed(one.ipr, one.call, parent, device=device, mode=mode)
        return host_child.setup(one.ipr, device, parent=parent, mode=mode, node=one.node.name)


def _settle(one: LanAttaching, given: IpamResult | None, child: Link) -> None:
    """Ask the LAN whether another host has the addresses. One of our ranges is left out then, and
    the next one taken; one that was asked for, or given by another plugin, is refused, and so is a
    range of which several addresses are others'. Raises AddressUnavailable."""
    if not one.wanted.has_neighbours:
        return
    asker = one.wanted.device.asker(one.wanted.parent, child)
    taken: dict[IPAddress, str] = {}
    while found := probe.owners(asker.ifname, asker.mac, one.lease.addresses):
        for address, mac in found.items():
            log.warning("the LAN has it already address=%s mac=%s", quoted(address), quoted(mac))
        taken |= found
        named = ", ".join(f"{address} by {mac}" for address, mac in taken.items())
        refusal = AddressUnavailable(
            f"a host of the LAN on {one.wanted.parent.ifname} has the pod's address: {named}",
            hint="give pods a range that is no other node's, no host's and no DHCP server's",
        )
        if given is not None or addresses.asked(one, found) or len(taken) > PATIENCE:
            raise refusal
        try:
            addresses.take(one, None, without=taken)
        except PoolExhausted:
            raise refusal from None


def _make_link(one: LanAttaching) -> None:
    """The link, down, deaf to routers, in the pod.

    It is made under a name that nothing else has: the kernel looks for the name on the node, too,
    where eth0 is another interface.
    """
    call, wanted = one.call, one.wanted
    new = End(call.key.host_ifname, wanted.mac, wanted.mtu, call.netns_fd)
    devices.add(one.ipr, wanted.device, new, parent=wanted.parent, mode=wanted.mode)
    with namespaces.open_rtnl(call.netns_fd) as pod:
        link = pod.link(new.ifname)
        assert link is not None
        pod.set_alias(link.ifindex, one.lease.alias)
        one.lease = replace(one.lease, ifindex=link.ifindex)
        one.save()  # first: without its index, the link is looked for by its first name
        if pod.link(call.request.ifname) is not None:
            raise InterfaceExists(
                f"the pod has an interface {call.request.ifname} already",
                hint="run DEL for this attachment, or remove the interface that has the name",
            )
        pod.rename(link, call.request.ifname)
    before = pod_end.close(call.netns_fd, call.request.ifname)
    one.undo.callback(pod_end.reopen, call.netns_fd, before)


def _configure_pod(one: LanAttaching, given: IpamResult, child: Link) -> tuple[Route, ...]:
    """Addresses and routes in the pod; returns the routes in effect."""
    netns_fd, ifname = one.call.netns_fd, one.call.request.ifname

    def announce(versions: tuple[int, ...]) -> None:
        one.lease = replace(one.lease, rules=versions)
        one.save()
        one.undo.callback(source_rules.teardown, netns_fd, one.lease.ruled)

    routes = pod_end.configure(
        netns_fd,
        ifname,
        mac=one.wanted.own_mac,
        addresses=[ip.address for ip in given.ips],
        routes=list(_routes(one, given)),
        announce=announce,
    )
    if one.wanted.has_neighbours:
        ruled = [ip.address for ip in given.ips if ip.address.version in one.lease.rules]
        pod_end.add_neighbours(netns_fd, ifname, ruled)
        mac = one.wanted.device.node_mac(one.wanted.parent, child)
        with namespaces.open_rtnl(netns_fd) as pod:
            index = pod.ifindex(ifname)
            for address in _node_addresses(one, given):
                pod.replace_neighbour(index, address, mac)
    return routes


def _routes(one: LanAttaching, given: IpamResult) -> Iterator[Route]:
    """Routes from IPAM, each with the router of its version, if there is one; a default route where
    IPAM has none; and one to each address of the node that is in no network of the pod."""
    routers = {ip.gateway.version: ip.gateway for ip in given.ips if ip.gateway is not None}
    versions = dict.fromkeys(ip.address.version for ip in given.ips)
    missing = set(versions) - {route.dst.version for route in given.routes}
    if one.wanted.has_neighbours:
        missing &= set(routers)  # without a router there is only the LAN
        for address in _node_addresses(one, given):
            if not any(address in ip.address.network for ip in given.ips):
                yield Route(ip_network(address), scope=_on_link(address.version))
    for route in (*given.routes, *(Route(DEFAULT_ROUTE[version]) for version in versions
                                   if version in missing)):  # fmt: skip
        gateway = route.gateway or routers.get(route.dst.version)
        if one.wanted.has_neighbours and gateway is not None:
            yield replace(route, gateway=gateway)
        else:
            yield replace(route, gateway=None, scope=_on_link(route.dst.version))


def _on_link(version: int) -> int | None:
    return RT_SCOPE_LINK if version == 4 else None


def _node_addresses(one: LanAttaching, given: IpamResult) -> list[IPAddress]:
    """The node's addresses that its pods must reach: those on the parent, of the pod's versions; if
    it has none there, the one at which other nodes know it."""
    versions = {ip.address.version for ip in given.ips}
    found = [address.ip for address in parents.addresses(one.ipr, one.wanted.parent)]
    own = [address for address in found if address.version in versions]
    return own or ([one.node.vtep] if one.node.vtep.version in versions else [])


def _lead_to_pod(one: LanAttaching, child: Link) -> None:
    """The node's routes to the pod; they go with the lease."""
    own = [address.ip for address in parents.addresses(one.ipr, one.wanted.parent)]
    pod = leases.link_of(one.ipr, one.lease)
    for route in host_child.routes(child, one.lease.addresses, [*own, one.node.vtep]):
        try:
            host_child.add_way(one.ipr, child, route, pod)
        except NetlinkError as error:
            raise PycniError(
                f"the node cannot reach its pod at {route.dst}: {error.strerror}",
                details=f"its interface for that is {child.ifname}",
                hint="IPv6 is off on this node: give pods IPv4 addresses only, or set it on"
                if route.dst.version == 6
                else "look at the node's routes: ip route",
            ) from error


def _announce(one: LanAttaching) -> None:
    link = leases.link_of(one.ipr, one.lease)
    if one.wanted.has_neighbours and link is not None:
        ifname = one.call.request.ifname
        probe.announce(one.call.netns_fd, ifname, link.mac, one.lease.addresses)


def _is_held(call: Call, lease: LanLease, _: Rtnl) -> bool:
    return leases.find(call.settings.run_dir, lease.key.digest) == lease


def _result(one: LanAttaching, given: IpamResult, routes: tuple[Route, ...]) -> Result:
    request, wanted = one.call.request, one.wanted
    link = leases.link_of(one.ipr, one.lease)
    mac = wanted.mac if link is None else link.mac
    pod = Interface(request.ifname, mac=mac, mtu=wanted.mtu, sandbox=request.netns)
    return Result(
        interfaces=(pod,),
        ips=tuple(replace(address, interface=0) for address in given.ips),
        routes=routes,
        dns=given.dns if wanted.dns == Dns() else wanted.dns,
        take_back=partial(delete.take_back_if, one.call, partial(_is_held, one.call, one.lease)),
    )
