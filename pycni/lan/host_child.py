# SPDX-License-Identifier: Apache-2.0
"""The node's own child of the parent: by it the node reaches its pods, kubelet's probes first.

The kernel passes nothing from a parent to the macvlan or ipvlan links on it, but does so between
these. The child has no address. A route to each pod leads to it, from the node's address on the
parent, which stays as it is. The child is made for the first pod and removed after the last one.

The node must not ask for a pod's MAC by it: the LAN's hosts hear the question, and take the child's
MAC for that of the node's address. So the MACs of pods are permanent entries (`add_way`).

Callers hold the LAN's lock. Runs in the node's network namespace.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network

from pycni.cluster import IPAddress
from pycni.errors import InterfaceExists
from pycni.kernel import sysctl
from pycni.kernel.links import (
    IPV4_DEVCONF_ARPFILTER,
    IPV4_DEVCONF_FORWARDING,
    End,
    Link,
    link_local,
)
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, Route
from pycni.kernel.rtnl import Rtnl
from pycni.lan import devices
from pycni.lan.devices import Device
from pycni.names import ALIAS_HEAD, CHILD_HEAD, AttachmentKey

CLOSED = {IPV4_DEVCONF_FORWARDING: 0, IPV4_DEVCONF_ARPFILTER: 1}
"""The node forwards nothing for these pods, and answers ARP by the child to pods alone: to those
whose route leads to it. Other hosts learn the parent's MAC, as before."""

GONE = (errno.ESRCH, errno.ENODEV, errno.ENOENT, errno.ENXIO)


def name_of(parent: str) -> str:
    """Of the child of an interface: 15 bytes, the kernel's limit."""
    return CHILD_HEAD + hashlib.sha256(parent.encode()).hexdigest()[:12]


def find(ipr: Rtnl, parent: Link) -> Link | None:
    """The child, if there is one on this very parent."""
    link = ipr.link(name_of(parent.ifname))
    if link is None or not is_ours(link):
        return None
    return link if is_on(link, parent) else None


def is_on(link: Link, parent: Link) -> bool:
    """Whether a macvlan or ipvlan is on that parent. On one of its own kind the kernel makes it
    beside that (macvlan_common_newlink, ipvlan_link_new)."""
    lower = parent.peer_ifindex if link.kind == parent.kind else parent.ifindex
    return link.peer_ifindex == lower


def is_ours(link: Link) -> bool:
    """Whether a link is the child of some parent: by its name, and its alias or, as long as it has
    none yet, its kind."""
    named = re.fullmatch(rf"{CHILD_HEAD}[0-9a-f]{{12}}", link.ifname) is not None
    return named and (link.alias.startswith(ALIAS_HEAD) or link.kind in devices.DEVICES)


def setup(ipr: Rtnl, device: Device, *, parent: Link, mode: str, node: str) -> Link:
    """The child, made if it is missing, and up. `node` is the node's name.

    Raises InterfaceExists, InvalidConfig, PycniError.
    """
    ifname = name_of(parent.ifname)
    if find(ipr, parent) is None:
        if (stranger := ipr.link(ifname)) is not None:
            _refuse_stranger(stranger)
            ipr.delete_link(stranger.ifindex)
        mac = AttachmentKey(parent.ifname, node, ifname).mac if device.has_own_mac else ""
        devices.add(ipr, device, End(ifname, mac), parent=parent, mode=mode)
    with suppress(OSError):  # a network of IPv4 does without
        sysctl.write(f"net/ipv6/conf/{ifname}/accept_ra", "0")
    made = ipr.link(ifname)
    assert made is not None
    ipr.generate_no_address(made.ifindex)
    alias = f"{ALIAS_HEAD} child of {parent.ifname}"
    ipr.set_up(made.ifindex, alias=alias, ipv4=CLOSED)
    if flags := device.child_flags():  # an ipvlan that rises forgets them (ipvlan_open)
        ipr.set_up(made.ifindex, flags=flags)
    with suppress(NetlinkError):  # there already, or IPv6 is off
        ipr.add_address(made.ifindex, link_local(_seed(made, parent)), prefixlen=64)
    return made


def teardown(ipr: Rtnl, parent: str) -> bool:
    """Remove the child, and with it all routes to pods; False if there is none of ours."""
    link = ipr.link(name_of(parent))
    if link is None or not is_ours(link):
        return False
    return ipr.delete_link(link.ifindex)


def routes(child: Link, pods: Iterable[IPAddress], sources: Iterable[IPAddress]) -> list[Route]:
    """The route to each address of a pod; `sources` are the node's addresses, the best first."""
    own = list(sources)
    return [
        Route(
            ip_network(pod),
            child.ifindex,
            source=next((one for one in own if one.version == pod.version), None),
            scope=RT_SCOPE_LINK if pod.version == 4 else RT_SCOPE_UNIVERSE,
        )
        for pod in pods
    ]


def add_way(ipr: Rtnl, child: Link, route: Route, pod: Link | None) -> None:
    """One of `routes`, and before it the MAC of the pod whose link `pod` is. Pods that have the
    child's own MAC are not asked for it (`Device.child_flags`). Raises NetlinkError."""
    if pod is not None and pod.mac != child.mac:
        ipr.replace_neighbour(child.ifindex, route.dst.network_address, pod.mac)
    ipr.replace_route(route)


def remove_ways(ipr: Rtnl, child: Link, pods: Iterable[IPAddress]) -> None:
    """Undo of `add_way` for these addresses; no error if they are gone."""
    for route in routes(child, pods, ()):
        with _unless_gone():
            ipr.delete_route(route)
        with _unless_gone():
            ipr.delete_neighbour(child.ifindex, route.dst.network_address)


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.errno not in GONE:
            raise


def _seed(child: Link, parent: Link) -> str:
    """What the child's link-local address is made of: no two links on one network may have the
    same, and children of an ipvlan have the parent's MAC."""
    if child.mac != parent.mac:
        return child.mac
    return AttachmentKey(parent.ifname, parent.mac, child.ifname).mac


def _refuse_stranger(link: Link) -> None:
    if not is_ours(link):
        raise InterfaceExists(
            f"the node's interface {link.ifname} is not pycni's, and has the name of its own",
            hint=f"rename or remove it: ip link show {link.ifname}",
        )
