# SPDX-License-Identifier: Apache-2.0
"""CHECK of a pod on the LAN: is it still as ADD left it?"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.attachments.on_lan.wanted import refuse_missing
from pycni.cni.call import Call
from pycni.errors import CheckMismatch, UnknownContainer
from pycni.ipam import delegation
from pycni.kernel.rtnl import Rtnl
from pycni.lan import host_child, leases, parents
from pycni.lan.leases import LanLease
from pycni.node.record import Node
from pycni.pods import pod_end


def check(call: Call) -> None:
    """Raise CheckMismatch unless everything is as ADD left it; the IPAM plugin's CHECK comes first.

    As attachments/check.py has it. Changes nothing.
    """
    Node.load(call.settings)
    refuse_missing(call.conf)
    delegation.forward("CHECK", call)
    request, previous = call.request, call.conf.previous_result()
    with Rtnl() as ipr:
        lease = leases.find(call.settings.run_dir, call.key.digest)
        if lease is None or not lease.addresses or not leases.is_alive(ipr, lease):
            raise UnknownContainer(
                f"nothing is attached as {request.ifname} of container {request.container_id}",
                hint="ADD comes before CHECK; if there was one, the link is gone, or its parent: "
                "restart the pod",
            )
        problems = [
            *_link_problems(ipr, call, lease),
            *pod_end.problems(
                call.netns_fd,
                request.ifname,
                addresses=lease.addresses,
                ruled=lease.ruled,
                previous=previous,
            ),
            *_node_problems(ipr, lease),
        ]
    if problems:
        raise CheckMismatch(
            f"{request.ifname} of container {request.container_id} is not as ADD left it",
            details="; ".join(problems),
            hint="restart the pod",
        )


def _link_problems(ipr: Rtnl, call: Call, lease: LanLease) -> Iterator[str]:
    if ipr.netns_number(call.netns_fd) != lease.netnsid:
        yield "its link is in another network namespace"
    if lease.device != call.conf.device:
        yield f"its link is a {lease.device}, and the network has {call.conf.device} now"


def _node_problems(ipr: Rtnl, lease: LanLease) -> Iterator[str]:
    """Of what the node has for the pod: an agent mends it."""
    pod = leases.link_of(ipr, lease)
    parent = parents.carrying(ipr, lease.parent, pod) if pod is not None else None
    if parent is None or not parent.is_up:
        name = parent.ifname if parent else lease.parent
        yield f"the interface {name} that it is on is {'down' if parent else 'gone'}"
        return
    child = host_child.find(ipr, parent._replace(ifname=lease.parent))
    if child is None:
        yield f"the node's own link {host_child.name_of(lease.parent)} to its pods is gone"
        return
    have = {
        route.dst.network_address
        for version in {address.version for address in lease.addresses}
        for route in ipr.routes_by(child.ifindex, version)
    }
    for address in lease.addresses:
        if address not in have:
            yield f"the node's route to {address} is missing"
