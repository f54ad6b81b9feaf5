"""STATUS: would an ADD succeed now, and does the network of the pods on this node still work?

Looks at the kernel and takes no lock, because container runtimes ask every few seconds and wait for
the answer. An agent that is down is no failure: ADD works without one, and a node that turns
unready for the second in which its agent restarts would lose its pods for nothing. Source: CNI spec
1.1.0, section 2 "STATUS".
"""

from __future__ import annotations

import socket

from pycni.cluster import IPAddress
from pycni.cni.call import Call
from pycni.dataplane import maps
from pycni.errors import LimitedConnectivity, NotAvailable, PoolExhausted
from pycni.ipam import allocation, delegation, pools
from pycni.names import NAME_HEAD
from pycni.node import health
from pycni.node.record import Node
from pycni.pods import link_kinds


def check(call: Call) -> None:
    """Raise NotAvailable if no pod can be added, LimitedConnectivity if pods suffer already.

    Raises what the IPAM plugin's STATUS reports, and InvalidConfig if the network needs a kind of
    link that this kernel does not have.
    """
    node = Node.load(call.settings)
    for need in health.checks(call.settings):
        if not need.ok:
            error = LimitedConnectivity if _has_pods() else NotAvailable
            raise error(need.state, hint=f"{need.hint}, or restart the agent")
    link_kinds.choose(call.conf.device)
    delegation.forward("STATUS", call)
    if not call.conf.delegate:
        _find_free_addresses(call, node)


def _has_pods() -> bool:
    return any(name.startswith(NAME_HEAD) for _, name in socket.if_nameindex())


def _find_free_addresses(call: Call, node: Node) -> None:
    """Raise NotAvailable if a pool has none. The pods on the node do not suffer from that."""
    with maps.open_endpoints(call.settings.pin_root) as table:

        def is_free(address: IPAddress) -> bool:
            return table.get(address) is None

        for pool in allocation.pools_of(call.conf, node):
            try:
                pools.take(pool, pools.Rotation(call.settings.state_dir).last(pool), is_free)
            except PoolExhausted as error:
                raise NotAvailable(error.message, hint=error.hint) from error
