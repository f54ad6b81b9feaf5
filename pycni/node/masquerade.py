# SPDX-License-Identifier: Apache-2.0
"""ipMasq: an nftables table of our own, which hides pods behind the node's address and keeps some
packets between pods out of connection tracking.

The table lists no pods: `from_container` marks the packets that leave the cluster, so ADD and DEL
change no rule. Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from pycni.cluster import IPNetwork
from pycni.kernel import nft

TABLE = "pycni"
WHAT = "pycni's table for ipMasq"
SRCNAT_PRIORITY = 100
RAW_PRIORITY = -300


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    return nft.table_exists(TABLE, what=WHAT)


def setup(
    mark: int,
    *,
    overlay: str,
    pods: str,
    clusters: Iterable[IPNetwork],
    untracked: Iterable[str] = (),
) -> None:
    """Write the table, replacing an older one of ours in the same transaction.

    A packet with `mark` is masqueraded, except if it leaves by the device `overlay`: then a host
    port has sent it to a pod, and the table of host ports decides (port_table.py).

    A packet that comes in on a link whose name begins with `pods`, and goes to one of `clusters`,
    is not tracked. Only pods with an ingress qdisc of somebody else send such packets through the
    host's stack (link_changes.py). The answers bypass the stack. So connection tracking would call
    the further packets invalid, and kube-proxy drops invalid packets. Packets to the node itself
    are tracked, because answers of host ports are among them.

    `untracked` are rules of what else is not tracked. Raises SetupError.
    """
    nft.run(
        f"""
        add table inet {TABLE}
        delete table inet {TABLE}
        table inet {TABLE} {{
            chain postrouting {{
                type nat hook postrouting priority {SRCNAT_PRIORITY};
                meta mark & {mark:#x} == {mark:#x} oifname != "{overlay}" masquerade
            }}
            chain prerouting {{
                type filter hook prerouting priority {RAW_PRIORITY};
                {" ".join(_untracked(pods, cluster) for cluster in clusters)}
                {" ".join(f"{rule};" for rule in untracked)}
            }}
        }}
        """,
        what=WHAT,
    )


def teardown() -> None:
    """Delete the table; no error if it is gone."""
    nft.delete_table(TABLE, what=WHAT)


def _untracked(pods: str, cluster: IPNetwork) -> str:
    family = "ip" if cluster.version == 4 else "ip6"
    return f'iifname "{pods}*" {family} daddr {cluster} fib daddr type != local notrack;'
