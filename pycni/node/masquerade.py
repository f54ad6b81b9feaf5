# SPDX-License-Identifier: Apache-2.0
"""ipMasq: an nftables table of our own, which hides pods behind the node's address.

The table lists no pods: `from_container` marks the packets that leave the cluster, so ADD and DEL
change no rule. Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

from pycni.faults import Fault, Weight
from pycni.kernel import nft, nft_table
from pycni.kernel.nft_table import Chain, Hook, Table
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.settings import Settings

TABLE = "pycni"
WHAT = "pycni's table for ipMasq"
PART = "masquerade"
SRCNAT_PRIORITY = 100


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    return nft.table_exists(TABLE, what=WHAT)


def wanted(settings: Settings, node: Node) -> Table:
    """What the table must be. Pure.

    A packet with the masquerade mark is masqueraded, except if it leaves by the overlay device:
    then a host port has sent it to a pod, and the table of host ports decides (port_table.py). To
    the port of VXLAN nothing is masqueraded: other nodes would take it for this node's.
    """
    mark = settings.masquerade_mark
    return Table(
        TABLE,
        chains=(
            Chain(
                "postrouting",
                (
                    f"meta l4proto udp th dport {node.port} return",
                    f'meta mark & {mark:#x} == {mark:#x} oifname != "{DEVICE}" masquerade',
                ),
                Hook("nat", "postrouting", SRCNAT_PRIORITY),
            ),
        ),
    )


def setup(settings: Settings, node: Node) -> None:
    """Write the table unless it is as it must be. Raises SetupError."""
    table = wanted(settings, node)
    if nft_table.differences(table, what=WHAT):
        nft_table.write(table, what=WHAT)


def teardown() -> None:
    """Delete the table; no error if it is gone."""
    nft.delete_table(TABLE, what=WHAT)


def faults(settings: Settings, node: Node) -> list[Fault]:
    """What `setup` would mend. Raises SetupError."""
    return [
        Fault(PART, one.thing, one.found, weight=Weight.BROKEN)
        for one in nft_table.differences(wanted(settings, node), what=WHAT)
    ]
