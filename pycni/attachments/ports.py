# SPDX-License-Identifier: Apache-2.0
"""The node's table of host ports, held to the node's record and the leases of its pods.

`faults` and `mend` are for whoever keeps the node; an ADD opens the ports of its pod with `open`.
Runs in the node's network namespace.
"""

from __future__ import annotations

from pycni.attachments.attaching import Attaching
from pycni.cni import requests
from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.kernel.rtnl import Rtnl
from pycni.node import overlay
from pycni.node.record import Node
from pycni.pods import host_ports, port_table, port_upkeep
from pycni.pods.port_records import PortRecord
from pycni.pods.port_table import Rules
from pycni.settings import Settings


def rules(settings: Settings, node: Node) -> Rules:
    """The rules that the table of this node must have. Pure."""
    return port_table.rules(
        settings.masquerade_mark, overlay=overlay.DEVICE, clusters=node.cluster_cidrs
    )


def setup(settings: Settings, node: Node) -> None:
    """Make the table, or its rules again; elements stay. Raises SetupError."""
    port_table.setup(rules(settings, node))


def faults(ipr: Rtnl, settings: Settings, node: Node) -> list[Fault]:
    """What differs from the rules, and from the ports of living pods; only looks.

    Raises SetupError, NetlinkError.
    """
    state = port_upkeep.look(ipr, settings)
    return [
        *port_table.faults(state.contents, rules(settings, node)),
        *port_upkeep.faults(settings, state),
    ]


def mend(ipr: Rtnl, settings: Settings, node: Node) -> int:
    """Make the table again and put back the ports of living pods; returns how many were put back or
    taken away. Nobody's connection is lost: elements and rules that are right stay as they are.

    Raises SetupError, NetlinkError, FileError.
    """
    wanted = rules(settings, node)
    if port_table.faults(port_upkeep.look(ipr, settings).contents, wanted):
        port_table.setup(wanted)
    return port_upkeep.mend(ipr, settings)


def open_for(one: Attaching) -> None:
    """Open the ports that an ADD asks for, with their undo; makes the table if it is lost.

    Raises HostPortTaken, InvalidConfig, SetupError, NetlinkError, FileError.
    """
    forwards = host_ports.plan(
        one.wanted.ports, one.lease.addresses, owner=one.call.request.container_id
    )
    if not forwards:
        return
    pod = requests.pod_name(one.call.request)
    record = PortRecord(one.call.key.digest, pod, tuple(forwards))
    one.undo.callback(host_ports.teardown, one.settings, record)
    try:
        host_ports.setup(one.ipr, one.settings, record)
    except NotAvailable:
        mend(one.ipr, one.settings, one.node)
        host_ports.setup(one.ipr, one.settings, record)
