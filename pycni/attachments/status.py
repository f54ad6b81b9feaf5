# SPDX-License-Identifier: Apache-2.0
"""STATUS: would an ADD succeed now, and does the network of the pods on this node still work?

Looks at the cheap parts of the node's description (upkeep/parts.py), and whether the node itself is
cut off, and takes no lock, because container runtimes ask every few seconds and wait for the
answer. A node without pods gets none before its Services are written. A way to some other node that
is lost is not told: runtimes would have all nodes unready for one. An agent that is down is no
failure: ADD works without one, and a node that turns unready for the second in which its agent
restarts would lose its pods for nothing. Source: CNI spec 1.1.0, section 2 "STATUS".
"""

from __future__ import annotations

import random
import socket

from pycni.cluster import IPAddress
from pycni.cni.call import Call
from pycni.dataplane import maps
from pycni.errors import LimitedConnectivity, NotAvailable, PoolExhausted, PycniError
from pycni.faults import Fault, Weight
from pycni.ipam import allocation, delegation, pools, shortage
from pycni.kernel.rtnl import Rtnl
from pycni.names import NAME_HEAD
from pycni.node import first_services, place
from pycni.node.record import Node
from pycni.pods import link_kinds
from pycni.upkeep import parts, uplink
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

SAMPLE = 4
"""Of the pods' links, how many are looked at: all of them cost too much every few seconds. What
cuts many pods is found at once, what cuts one by and by."""


def check(call: Call) -> None:
    """Raise NotAvailable if no pod can be added, LimitedConnectivity if pods suffer already.

    Raises what the IPAM plugin's STATUS reports, and InvalidConfig if the network needs a kind of
    link that this kernel does not have.
    """
    node = Node.load(call.settings)
    pods = [ifindex for ifindex, name in socket.if_nameindex() if name.startswith(NAME_HEAD)]
    some = random.sample(pods, min(SAMPLE, len(pods)))
    with Rtnl() as ipr:
        description, seen = Description(call.settings, node), Seen(ipr, only=some)
        for part in parts.PARTS:
            for fault in parts.faults_of(part, description, seen) if part.is_cheap else ():
                if fault.weight is Weight.BROKEN or part.serves_adds:
                    raise _error(fault, has_pods=bool(pods))
        for fault in uplink.cut(description, seen):
            raise _error(fault, has_pods=bool(pods))
    place.refuse_lost(call.settings)
    if not pods:
        first_services.refuse_unwritten(call.settings)
    link_kinds.choose(call.conf.device)
    delegation.forward("STATUS", call)
    if not call.conf.delegate:
        _find_free_addresses(call, node)


def _error(fault: Fault, *, has_pods: bool) -> PycniError:
    is_cut = fault.weight is Weight.BROKEN and has_pods
    error = LimitedConnectivity if is_cut else NotAvailable
    return error(fault.sentence, hint=fault.todo or "run: pycni setup, or restart the agent")


def _find_free_addresses(call: Call, node: Node) -> None:
    """Raise NotAvailable if a pool has none. The pods on the node do not suffer from that."""
    with maps.open_endpoints(call.settings.pin_root) as table:

        def is_free(address: IPAddress) -> bool:
            return table.get(address) is None

        rotation = pools.Rotation(call.settings.state_dir)
        for own in allocation.pools_of(call.conf, node).values():
            try:
                pools.take_of(own, rotation.last, is_free)
            except PoolExhausted as error:
                reason = shortage.explained(call.settings, error)
                raise NotAvailable(reason.message, hint=reason.hint) from error
