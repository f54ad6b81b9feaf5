# SPDX-License-Identifier: Apache-2.0
"""CHECK: is an attachment still as ADD left it?"""

from __future__ import annotations

from pycni import locks
from pycni.attachments import lookup
from pycni.cni.call import Call
from pycni.dataplane import maps
from pycni.errors import CheckMismatch, UnknownContainer
from pycni.ipam import delegation
from pycni.kernel.rtnl import Rtnl
from pycni.node.record import Node
from pycni.pods import endpoints, host_ports, link_changes, link_kinds, pod_end, rate_limits


def check(call: Call) -> None:
    """Raise CheckMismatch unless everything is as ADD left it; the IPAM plugin's CHECK comes first.

    Later plugins of the chain may have changed the pod's interface: `prevResult` says how it should
    be. The endpoint's entries follow the link here first, in case no agent does.
    """
    Node.load(call.settings)
    delegation.forward("CHECK", call)
    ports = host_ports.parse(call.conf.runtime_config)
    limits = rate_limits.parse(call.conf.runtime_config)
    request, netns_fd, previous = call.request, call.netns_fd, call.conf.previous_result()
    ifname = request.ifname
    with (
        locks.network_lock(call.settings.run_dir, shared=True, timeout=call.patience()),
        Rtnl() as ipr,
        maps.open_endpoints(call.settings.pin_root) as table,
    ):
        lease = lookup.find(ipr, call.settings, call.key.digest)
        if lease is None or not lease.addresses:
            raise UnknownContainer(
                f"nothing is attached as {ifname} of container {request.container_id}",
                hint="ADD comes before CHECK; if there was one, somebody deleted the link: restart "
                "the pod",
            )
        now = link_changes.endpoint(ipr, lease) or lease.endpoint
        endpoints.update(table, lease.entries, now, run_dir=call.settings.run_dir)
        problems = [
            *link_kinds.of(lease).problems(ipr, lease),
            *pod_end.problems(
                netns_fd, ifname, addresses=lease.addresses, ruled=lease.ruled, previous=previous
            ),
            *endpoints.problems(table, lease.entries, now),
            *host_ports.problems(ports, lease.addresses),
            *rate_limits.problems(
                ipr, netns_fd, ifindex=lease.ifindex, ifname=ifname, limits=limits
            ),
        ]
    if problems:
        raise CheckMismatch(
            f"{ifname} of container {request.container_id} is not as ADD left it",
            details="; ".join(problems),
            hint="restart the pod",
        )
