"""Reservations: addresses that an ADD takes for its lease, each with its undo.

An address is taken with its entry in the endpoints table (endpoints.py) and, if it is outside of
the node's pod CIDRs, published. Runs in the node's namespace, under the network lock, shared.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace

from pycni.attachments import upkeep
from pycni.cluster import IPAddress
from pycni.cni.call import Call
from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.ipam import choice, published
from pycni.ipam.assignment import Assignment
from pycni.ipam.pools import Rotation
from pycni.kernel.rtnl import Rtnl
from pycni.node.record import Node
from pycni.pods import endpoints
from pycni.pods.endpoints import Endpoints
from pycni.pods.lease import Lease


def take(
    call: Call,
    ipr: Rtnl,
    table: Endpoints,
    lease: Lease,
    *,
    node: Node,
    given: Assignment | None,
    undo: ExitStack,
) -> Lease:
    """The lease with its addresses, each of them reserved and, where needed, published."""

    def claim(address: IPAddress) -> bool:
        if not reserve(call, ipr, table, address, lease=lease, node=node, undo=undo):
            return False
        if not published.is_outside(address, node):
            return True
        if published.publish(ipr, address, node=node, settings=call.settings):
            return True
        _give_back(call, ipr, address, lease=lease, node=node)
        return False

    if given is None:
        rotation = Rotation(call.settings.state_dir)
        taken = choice.take(call.request, call.conf, node=node, rotation=rotation, claim=claim)
    else:
        taken = tuple(one.address.ip for one in given.ips)
        for address in taken:
            published.refuse_unusable(address, node=node, settings=call.settings)
            if not claim(address):
                raise published.taken(address)
    return replace(lease, addresses=taken)


def reserve(
    call: Call,
    ipr: Rtnl,
    table: Endpoints,
    address: IPAddress,
    *,
    lease: Lease,
    node: Node,
    undo: ExitStack,
) -> bool:
    """Make an entry for a lease, whose removal goes onto `undo`; False if another has it."""
    if not endpoints.reserve(table, address, lease.endpoint):
        return False
    undo.callback(_give_back, call, ipr, address, lease=lease, node=node)
    return True


def _give_back(call: Call, ipr: Rtnl, address: IPAddress, *, lease: Lease, node: Node) -> None:
    """What cannot be released now is when the link is gone, by a sweep."""
    with suppress(NotAvailable), maps.open_endpoints(call.settings.pin_root) as table:
        endpoints.release(
            table,
            address,
            lease.ifindex,
            run_dir=call.settings.run_dir,
            belongings=upkeep.belongings(ipr, call.settings, node, ports=lease.ports),
        )
