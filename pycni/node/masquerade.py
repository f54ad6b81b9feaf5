"""ipMasq: one nftables table of our own that hides pods behind the node's address, and keeps what
pods send to pods out of connection tracking.

Pods are not listed here: `from_container` marks what leaves the cluster, so an ADD or DEL changes
no rule. Runs in the network namespace of the calling thread.
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


def setup(mark: int, *, overlay: str, pods: str, clusters: Iterable[IPNetwork]) -> None:
    """Write the table, replacing an older one of ours in the same transaction.

    A marked packet is masqueraded unless it leaves by the overlay device `overlay`: what turned out
    to be for a pod after all is left to the table of host ports.

    What comes in on a link whose name begins with `pods` and goes to one of `clusters` is not
    tracked. That is what pods send that others limit (link_changes.py): answers do not pass the
    stack, so that to connection tracking the rest would be invalid, and kube-proxy drops that.
    What goes to the node itself, as the answers of host ports do, is tracked. Raises SetupError.
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
