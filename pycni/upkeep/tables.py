# SPDX-License-Identifier: Apache-2.0
"""Part "nftables": the tables of ipMasq and of host ports, each rule of them."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel import nft
from pycni.names import NAME_HEAD
from pycni.node import masquerade
from pycni.node.overlay import DEVICE
from pycni.pods import port_table
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "nftables"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """A table, a chain or some of its rules may be gone. Rules that others add are no fault."""
    for table, chains in wanted(d).items():
        have = nft.rule_counts(table, what=f"the table {table}")
        if have is None:
            yield _fault(f"the table inet {table}", "gone")
            continue
        for chain, rules in chains.items():
            if have.get(chain, 0) < len(rules):
                lost = len(rules) - have.get(chain, 0)
                yield _fault(f"the chain {chain} of table inet {table}",
                             f"without {lost} of its {len(rules)} rules")  # fmt: skip


def mend(d: Description, _: Seen) -> None:
    """Write both tables; elements of the table of host ports stay. Raises SetupError."""
    write(d)


def write(d: Description) -> None:
    """As `mend`."""
    mark, clusters = d.settings.masquerade_mark, d.node.cluster_cidrs
    masquerade.setup(mark, overlay=DEVICE, pods=NAME_HEAD, clusters=clusters)
    port_table.setup(mark, overlay=DEVICE, clusters=clusters)


def wanted(d: Description) -> dict[str, dict[str, list[str]]]:
    """Rules by table and chain."""
    mark, clusters = d.settings.masquerade_mark, d.node.cluster_cidrs
    return {
        masquerade.TABLE: masquerade.rules(mark, overlay=DEVICE, pods=NAME_HEAD, clusters=clusters),
        port_table.TABLE: port_table.rules(mark, overlay=DEVICE, clusters=clusters),
    }


def _fault(thing: str, found: str) -> Fault:
    return Fault(PART, thing, found, weight=Weight.BROKEN)
