# SPDX-License-Identifier: Apache-2.0
"""The node's end of a pod's link: its lease, its state, its programs.

`link_kinds` makes the link; this module works on what is there. All functions run in the node's
network namespace.
"""

from __future__ import annotations

import errno
import time

from loader import ENDPOINT_PROGRAMS, attach
from pycni.errors import TryAgain
from pycni.kernel import deletion, link_events
from pycni.kernel.links import (
    DEVCONF_DISABLE_IPV6,
    IPV4_DEVCONF_FORWARDING,
    IPV4_DEVCONF_RP_FILTER,
    Link,
)
from pycni.kernel.netlink_socket import BUFFER
from pycni.kernel.rtnl import Rtnl
from pycni.names import GATEWAY_MAC
from pycni.pods.lease import Lease, is_ours

CLOSED = {IPV4_DEVCONF_FORWARDING: 0, IPV4_DEVCONF_RP_FILTER: 1}
"""What keeps packets from a pod out of the host's stack as long as no program takes them. Programs
redirect packets before the stack sees them. IPv6 is off on a host end (link_kinds.py)."""

SHORTEST_WAIT = 0.001
"""Seconds. A socket with a timeout of 0 does not block, so it never reports a timeout."""


def claim(ipr: Rtnl, lease: Lease) -> None:
    """Write the lease into the link's alias, close the link to the host's stack and set it up, in
    one request.

    Raises InvalidConfig if the lease does not fit into an alias.
    """
    ipr.set_up(lease.ifindex, alias=lease.alias(), ipv4=CLOSED)


def is_open(link: Link) -> bool:
    """Whether the host's stack takes packets from the link and forwards them. Loose reverse path
    filtering is no opening: it accepts nothing from an interface without an address."""
    return (
        link.ipv4(IPV4_DEVCONF_FORWARDING) == 1
        or link.ipv4(IPV4_DEVCONF_RP_FILTER) == 0
        or link.ipv6(DEVCONF_DISABLE_IPV6) == 0
    )


def teardown(ipr: Rtnl, host_ifname: str) -> int:
    """Delete the link and with it the pod's end; returns the index that it had.

    0 if there is no such link, or if the name belongs to a link that pycni did not make.
    """
    link = ipr.link(host_ifname)
    if link is None or not is_ours(link):
        return 0
    return link.ifindex if deletion.delete_link(link.ifindex) else 0


def wait_until_up(ipr: Rtnl, host_ifname: str, *, timeout: float) -> None:
    """Return when the host end sends, or is gone. Raises TryAgain after `timeout` seconds.

    The pod's end sends as soon as it is up. The kernel starts the queue of the host end a moment
    later, from a work item, and drops packets until then (linkwatch_do_dev, net/core/link_watch.c).
    Since Linux 6.9 a query of the link makes the kernel do it at once.
    """
    if _is_up(ipr, host_ifname):
        return
    end = time.monotonic() + timeout
    with link_events.subscribe() as events:
        while not _is_up(ipr, host_ifname):
            events.settimeout(max(end - time.monotonic(), SHORTEST_WAIT))
            try:
                events.recv(BUFFER)
            except TimeoutError as error:
                raise TryAgain(
                    f"{host_ifname} did not come up within {timeout:.0f} s",
                    hint="the other end must be up in the pod",
                ) from error
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def problems(ipr: Rtnl, lease: Lease) -> list[str]:
    """What is no longer as ADD left it, a sentence each; changes nothing."""
    link = ipr.link(lease.host_ifname)
    if link is None:
        return [f"the host end {lease.host_ifname} is gone"]
    found = []
    if not link.is_up:
        found.append(f"the host end {lease.host_ifname} is down")
    if link.mac != GATEWAY_MAC:
        found.append(f"the host end {lease.host_ifname} has the MAC {link.mac}")
    attached = attach.attached(ipr, lease.ifindex)
    found += [
        f"the program {program} is not attached to {lease.host_ifname}"
        for program in ENDPOINT_PROGRAMS
        if program not in attached
    ]
    return found


def _is_up(ipr: Rtnl, host_ifname: str) -> bool:
    link = ipr.link(host_ifname)
    return link is None or link.operstate == "UP"
