"""ipMasq: one nftables table of our own that hides pods behind the node's address.

Pods are not listed here: `from_container` marks what leaves the cluster, so an ADD or DEL changes
no rule. Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

from pycni import nft

TABLE = "pycni"
WHAT = "pycni's table for ipMasq"
SRCNAT_PRIORITY = 100


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    return nft.table_exists(TABLE, what=WHAT)


def setup(mark: int, *, overlay: str) -> None:
    """Write the table, replacing an older one of ours in the same transaction.

    A marked packet is masqueraded unless it leaves by the overlay device `overlay`: what turned out
    to be for a pod after all is left to the table of host ports. Raises SetupError.
    """
    table = {"family": nft.FAMILY, "name": TABLE}
    chain = {"family": nft.FAMILY, "table": TABLE, "name": "postrouting"}
    marked = {"&": [{"meta": {"key": "mark"}}, mark]}
    rule = [
        {"match": {"op": "==", "left": marked, "right": mark}},
        {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": overlay}},
        {"masquerade": None},
    ]
    hook = {"type": "nat", "hook": "postrouting", "prio": SRCNAT_PRIORITY, "policy": "accept"}
    nft.run(
        [
            {"add": {"table": table}},
            {"delete": {"table": table}},
            {"add": {"table": table}},
            {"add": {"chain": chain | hook}},
            {
                "add": {
                    "rule": {"family": nft.FAMILY, "table": TABLE, "chain": "postrouting"}
                    | {"expr": rule}
                }
            },
        ],
        what=WHAT,
    )


def teardown() -> None:
    """Delete the table; no error if it is gone."""
    nft.delete_table(TABLE, what=WHAT)
