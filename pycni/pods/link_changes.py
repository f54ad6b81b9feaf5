"""What others do to a pod's link after its ADD, and what the pod's endpoint has to be then.

A later plugin of the chain, or the pod, may give the pod's end another MAC; a later plugin may put
queues on the host end: at its root for what is sent to the pod, and an ingress qdisc for what the
pod sends, as `bandwidth` does. The other end is looked at through the number that the kernel has
for its namespace (nsid, ip-netns(8)), which keeps no namespace alive. All in the node's namespace.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from pycni.dataplane.maps import Endpoint
from pycni.errors import DataplaneError
from pycni.kernel import netlink_socket, sysctl
from pycni.kernel.links import RTM_NEWLINK, Link, read_link
from pycni.kernel.netlink import NetlinkError, messages
from pycni.kernel.netlink_socket import BUFFER, RTMGRP_LINK, RTMGRP_TC
from pycni.kernel.qdiscs import RTM_DELQDISC, RTM_NEWQDISC, TC_H_INGRESS, read_qdisc
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import Lease

SOL_NETLINK, NETLINK_LISTEN_ALL_NSID = 270, 8
NO_QUEUE = ("noqueue", "noop", "")

STACK_ADDRESS = ip_address("169.254.1.2")
"""Of the host end of a pod that others limit. Loose reverse path filtering takes no packet from an
interface without any address (__fib_validate_source, net/ipv4/fib_frontend.c)."""


@dataclass(frozen=True)
class Change:
    """Something is new about the link `ifindex`, the host end of a pod, perhaps."""

    ifindex: int
    mac: str | None = None
    """Of the pod's end."""
    queued: bool | None = None
    """Whether it has an ingress qdisc, if the change says so."""


def subscribe() -> socket.socket:
    """A socket that hears of links and queues of this namespace, and of links in others that have a
    number here. Errors: netlink_socket.subscribe."""
    events = netlink_socket.subscribe(RTMGRP_LINK | RTMGRP_TC)
    events.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
    return events


def changes(events: socket.socket) -> Iterator[Change]:
    """What the next datagram says; waits for one. Raises OSError, ENOBUFS if some were lost."""
    data, ancillary, _, _ = events.recvmsg(BUFFER, socket.CMSG_SPACE(4))
    elsewhere = any(kind == NETLINK_LISTEN_ALL_NSID for _, kind, _ in ancillary)
    for kind, _, _, body in messages(data):
        if kind == RTM_NEWLINK and elsewhere:
            link = read_link(body)
            if link.peer_ifindex and link.mac:  # 0: of a veth whose other end is gone
                yield Change(link.peer_ifindex, mac=link.mac)
        elif kind in (RTM_NEWQDISC, RTM_DELQDISC) and not elsewhere:
            qdisc = read_qdisc(body)
            if qdisc.parent != TC_H_INGRESS:
                yield Change(qdisc.ifindex)
            elif qdisc.kind == "ingress":  # not clsact, which has our own filters
                yield Change(qdisc.ifindex, queued=kind == RTM_NEWQDISC)


def endpoint(ipr: Rtnl, lease: Lease, *, queued: bool | None = None) -> Endpoint | None:
    """What the endpoints table shall have for the lease's addresses; None if the link is gone.

    If what the pod sends passes a queue, the link is open to the host's stack afterwards, which
    gets it from there. `queued` spares the question. Raises DataplaneError.
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
    if queued:
        _open_to_stack(ipr, lease)
    return replace(
        lease.endpoint,
        mac=_mac_of_peer(ipr, host) or lease.mac,
        shaped=lease.shaped or host.qdisc not in NO_QUEUE,
        queued=queued,
    )


def _mac_of_peer(ipr: Rtnl, host: Link) -> str | None:
    """None if it is gone, or somebody put something else there."""
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
    """Let the host's stack take packets from the link: forward them, though no route leads back.

    Nothing is undone when the queue goes: the programs take every packet again, and all ends with
    the link.
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
