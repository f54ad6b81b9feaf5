# SPDX-License-Identifier: Apache-2.0
"""ipMasq: an nftables table of our own, which hides pods behind the node's address, keeps some
packets between pods out of connection tracking, and rejects what nobody takes.

The table lists no pods: `from_container` marks the packets that leave the cluster, so ADD and DEL
change no rule. Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

from pycni.cluster import IPNetwork
from pycni.faults import Fault, Weight
from pycni.kernel import nft, nft_table
from pycni.kernel.nft_table import Chain, Hook, Table
from pycni.names import NAME_HEAD
from pycni.node import path_mtus, rejection
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.settings import Settings

TABLE = "pycni"
WHAT = "pycni's table for ipMasq"
PART = "masquerade"
SRCNAT_PRIORITY = 100
RAW_PRIORITY = -300


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    return nft.table_exists(TABLE, what=WHAT)


def wanted(settings: Settings, node: Node) -> Table:
    """What the table must be. Pure.

    A packet with the masquerade mark is masqueraded, except if it leaves by the overlay device:
    then a host port has sent it to a pod, and the table of host ports decides (port_table.py). To
    the port of VXLAN nothing is masqueraded: other nodes would take it for this node's.

    A packet that comes in on a pod's host end, and goes to the cluster, is not tracked. Only pods
    with an ingress qdisc of somebody else send such packets through the host's stack
    (link_changes.py). The answers bypass the stack. So connection tracking would call the further
    packets invalid, and kube-proxy drops invalid packets. Packets to the node itself are tracked,
    because answers of host ports are among them. Nor are routers' errors about what our programs
    encapsulated (path_mtus.py).

    What nobody takes is rejected there, before any NAT (rejection.py).
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
            Chain(
                "prerouting",
                (
                    *rejection.rules(settings),
                    *map(_untracked, node.cluster_cidrs),
                    *path_mtus.untracked_errors(node),
                ),
                Hook("filter", "prerouting", RAW_PRIORITY),
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


def _untracked(cluster: IPNetwork) -> str:
    family = "ip" if cluster.version == 4 else "ip6"
    return f'iifname "{NAME_HEAD}*" {family} daddr {cluster} fib daddr type != local notrack'
