"""STATUS: would an ADD succeed now, and do the pods there are still have their network?

Looks at the kernel and takes no lock: container runtimes ask every few seconds, and wait. An agent
that is down is no failure: ADD does without it, and a node that reports itself unready for the
second in which its agent restarts has its pods moved away for nothing. Source: CNI spec 1.1.0,
section 2 "STATUS".
"""

from __future__ import annotations

import socket

from pycni.cluster import IPAddress
from pycni.cni.call import Call
from pycni.dataplane import maps
from pycni.errors import LimitedConnectivity, NotAvailable, PoolExhausted
from pycni.ipam import choice, delegate, pools
from pycni.names import NAME_HEAD
from pycni.node import health
from pycni.node.record import Node
from pycni.pods import pod_link


def check(call: Call) -> None:
    """Raise NotAvailable if no pod can be added, LimitedConnectivity if pods suffer already.

    What the IPAM plugin's STATUS reports is raised as it is, and InvalidConfig if the network wants
    links that this kernel has not.
    """
    node = Node.load(call.settings)
    for need in health.checks(call.settings):
        if not need.ok:
            error = LimitedConnectivity if _has_pods() else NotAvailable
            raise error(need.state, hint=f"{need.hint}, or restart the agent")
    pod_link.choose_kind(call.conf.device)
    if call.conf.delegate:
        delegate.execute(
            "STATUS",
            call.conf.delegate,
            env=call.env,
            stdin=call.stdin,
            lock=None,
            timeout=call.left(),
        )
    else:
        _find_free_addresses(call, node)


def _has_pods() -> bool:
    return any(name.startswith(NAME_HEAD) for _, name in socket.if_nameindex())


def _find_free_addresses(call: Call, node: Node) -> None:
    """Raise NotAvailable if a pool has none: the pods that have them are well."""
    with maps.open_endpoints(call.settings.pin_root) as table:

        def is_free(address: IPAddress) -> bool:
            return table.get(address) is None

        for pool in choice.pools_of(call.conf, node):
            try:
                pools.take(pool, pools.Rotation(call.settings.state_dir).last(pool), is_free)
            except PoolExhausted as error:
                raise NotAvailable(error.message, hint=error.hint) from error
