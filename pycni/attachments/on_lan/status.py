# SPDX-License-Identifier: Apache-2.0
"""STATUS of a network on the LAN: would an ADD succeed now? Takes no lock."""

from __future__ import annotations

from pycni.attachments.on_lan import addresses
from pycni.attachments.on_lan.wanted import ranges_of, refuse_mixed
from pycni.cni.call import Call
from pycni.errors import NotAvailable, PoolExhausted
from pycni.ipam import delegation, pools
from pycni.kernel.rtnl import Rtnl
from pycni.lan import devices, parents
from pycni.node.record import Node


def check(call: Call) -> None:
    """Raise NotAvailable if no pod can be added: the parent is gone or down, no address is free.

    Raises what the IPAM plugin's STATUS reports, and InvalidConfig for a configuration or kernel
    with which no ADD succeeds.
    """
    node, conf = Node.load(call.settings), call.conf
    with Rtnl() as ipr:
        device = devices.choose(ipr, conf.device)
        mode = devices.mode_of(device, conf.mode)
        parent = parents.find(ipr, conf.master or node.uplink)
        refuse_mixed(ipr, call, parent, device=device, mode=mode)
        delegation.forward("STATUS", call)
        if conf.delegate:
            return
        taken = addresses.taken(call.settings)
        for pool in addresses.free_pools(conf, ranges_of(conf, node), ipr).values():
            try:
                pools.take(pool, None, lambda address: address not in taken)
            except PoolExhausted as error:
                raise NotAvailable(
                    error.message, hint="remove pods from this node, or give it a wider range"
                ) from error
