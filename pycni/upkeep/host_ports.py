# SPDX-License-Identifier: Apache-2.0
"""Part "host ports": their table, and in it the ports of living pods, by the node's records."""

from __future__ import annotations

from pycni.faults import Fault
from pycni.kernel.rtnl import Rtnl
from pycni.node import overlay
from pycni.node.record import Node
from pycni.pods import port_table, port_upkeep
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
