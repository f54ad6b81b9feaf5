# SPDX-License-Identifier: Apache-2.0
"""What others change on a pod's link after its ADD, and what the pod's endpoint must be then.

A later plugin of the chain, or the pod itself, may give the pod's end another MAC. A later plugin
such as `bandwidth` may put queues on the host end: a root qdisc for packets to the pod, and an
ingress qdisc for packets from the pod. The pod's end is read through the number that the kernel has
for its namespace (nsid, ip-netns(8)), which does not keep the namespace alive. Everything runs in
the node's network namespace.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from pycni.dataplane.maps import Endpoint
from pycni.errors import DataplaneError
from pycni.kernel import sysctl
from pycni.kernel.event_filter import HOST_END_AS_IT_SHALL_BE, ONLY_FLAGS
from pycni.kernel.event_socket import Event, EventSocket
from pycni.kernel.links import RTM_NEWLINK, Link, read_link
from pycni.kernel.netlink import NetlinkError, messages
from pycni.kernel.netlink_socket import RTMGRP_LINK, RTMGRP_TC
from pycni.kernel.qdiscs import RTM_DELQDISC, RTM_NEWQDISC, TC_H_INGRESS, read_qdisc
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import Lease

NO_QUEUE = ("noqueue", "noop", "")

STACK_ADDRESS = ip_address("169.254.1.2")
"""For the host end of a pod that others limit. Loose reverse path filtering accepts no packet from
an interface without an address (__fib_validate_source, net/ipv4/fib_frontend.c)."""


@dataclass(frozen=True)
class Change:
    """Something changed about the link `ifindex`, which may be the host end of a pod."""

    ifindex: int
    mac: str | None = None
    """Of the pod's end, if the event tells it."""
    queued: bool | None = None
    """Whether the host end has an ingress qdisc, if the event tells it."""


def subscribe() -> EventSocket:
    """A socket for events of links and qdiscs of this namespace, and of links in namespaces that
    have a number in this one. Raises as netlink_socket.subscribe."""
    kinds = (RTM_NEWLINK, RTM_NEWQDISC, RTM_DELQDISC)
    without = (HOST_END_AS_IT_SHALL_BE, ONLY_FLAGS)
    return EventSocket(RTMGRP_LINK | RTMGRP_TC, kinds=kinds, without=without, everywhere=True)


def changes(events: Iterable[Event]) -> Iterator[Change]:
    """What changed by these events.

    What another namespace says is a hint and no fact: a pod can make a link there whose peer seems
    to be any link of the node. `endpoint` asks the kernel.
    """
    for event in events:
        for kind, _, _, body in messages(event.data):
            if kind == RTM_NEWLINK and event.elsewhere:
                link = read_link(body)
                # 0: the other end is gone; without a namespace, it is in the same one as the link
                if link.peer_ifindex and link.peer_netnsid is not None and link.mac:
                    yield Change(link.peer_ifindex, mac=link.mac)
            elif kind in (RTM_NEWQDISC, RTM_DELQDISC) and not event.elsewhere:
                qdisc = read_qdisc(body)
                if qdisc.parent != TC_H_INGRESS:
                    yield Change(qdisc.ifindex)
                elif qdisc.kind == "ingress":  # clsact is ours
                    yield Change(qdisc.ifindex, queued=kind == RTM_NEWQDISC)


def endpoint(ipr: Rtnl, lease: Lease, *, queued: bool | None = None) -> Endpoint | None:
    """As `look`, and if the pod's packets pass an ingress qdisc, open the link to the host's stack,
    which gets them from there. Raises DataplaneError."""
    now = look(ipr, lease, queued=queued)
    if now is not None and now.queued:
        _open_to_stack(ipr, lease)
    return now


def look(ipr: Rtnl, lease: Lease, *, queued: bool | None = None) -> Endpoint | None:
    """The endpoint that the lease's addresses must have now; None if the link is gone.

    `queued` says whether there is an ingress qdisc; None asks the kernel.
    """
    host = ipr.link_at(lease.ifindex)
    if host is None:
        return None
    try:
        if queued is None:
            queued = ipr.ingress_qdisc(lease.ifindex) == "ingress"
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    return endpoint_of(lease, host, mac=_mac_of_peer(ipr, host) or "", queued=queued)


def endpoint_of(lease: Lease, host: Link, *, mac: str, queued: bool) -> Endpoint:
    """The endpoint of a lease whose host end is `host`, with the MAC of the pod's end (empty: not
    known), and whether there is an ingress qdisc. Pure."""
    return replace(
        lease.endpoint,
        mac=mac or lease.mac,
        shaped=lease.shaped or host.qdisc not in NO_QUEUE,
        queued=queued,
    )


def _mac_of_peer(ipr: Rtnl, host: Link) -> str | None:
    """None if the pod's end is gone, or if another interface took its place."""
    if not host.peer_ifindex:
        return None
    try:
        peer = ipr.link_at(host.peer_ifindex, netnsid=host.peer_netnsid)
    except NetlinkError as error:
        if error.errno != errno.EINVAL:  # its namespace is gone
            raise
        return None
    return None if peer is None else peer.mac


def _open_to_stack(ipr: Rtnl, lease: Lease) -> None:
    """Let the host's stack accept and forward packets from the link, though no route leads back.

    Nothing undoes this when the qdisc goes: then the programs take every packet again, and the
    settings end with the link.
    """
    names = {
        f"net/ipv4/conf/{lease.host_ifname}/rp_filter": "2",
        f"net/ipv4/conf/{lease.host_ifname}/forwarding": "1",
        f"net/ipv6/conf/{lease.host_ifname}/disable_ipv6": "0",
    }
    try:
        ipr.generate_no_address(lease.ifindex)
        for name, value in names.items():
            sysctl.write(name, value)
        _have_address(ipr, lease.ifindex)
    except OSError as error:
        raise DataplaneError(
            f"what {lease.host_ifname} takes from its pod cannot pass the queue that others put "
            f"there: {error}",
            hint="/proc/sys must be writable; or limit the pod by the capability `bandwidth`",
        ) from error


def _have_address(ipr: Rtnl, ifindex: int) -> None:
    try:
        ipr.add_address(ifindex, STACK_ADDRESS)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
