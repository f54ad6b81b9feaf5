# SPDX-License-Identifier: Apache-2.0
"""Part "registration": this node's own record in the store."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.faults import SETUP, Fault, Weight
from pycni.stores import Former, open_store
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "registration"
ASK = f"see who did that: pycni nodes; then {SETUP}"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Whoever removes the record cuts the pods: the other nodes forget where they are."""
    if d.nodes is None:
        return
    own, node = d.own_record, d.node
    if own is None:
        todo = "" if is_free(d) else ASK
        yield Fault(PART, f"node {node.name}", "not in the store", todo, Weight.DEGRADED)
    elif own.pod_cidrs != node.pod_cidrs:
        given = " ".join(map(str, own.pod_cidrs))
        yield Fault(PART, f"node {node.name}", f"in the store with the pod CIDRs {given}", ASK)
    elif own.vtep != node.vtep:
        yield Fault(PART, f"node {node.name}", f"in the store with the address {own.vtep}")


def is_free(d: Description) -> bool:
    """Whether a setup would get this node its place back, and take nobody else's.

    Where the store itself decides, one that lists no other node, or gave the place of one to
    another, has lost its data: then a person has to look, since the place may be that of a node
    that has not come back yet. Until then the tables have the nodes of before, whose pods still
    run.
    """
    taken = {cidr for other in d.others for cidr in other.networks}
    if taken.intersection(d.node.networks):
        return False
    had = Former(d.node.pod_cidrs, d.node.blocks)
    store = open_store(d.settings.store_url, d.settings.cluster, create=False)
    kept = store.keeps(d.node.name, had)
    return bool(d.others) and not _has_heirs(d) if kept is None else kept


def _has_heirs(d: Description) -> bool:
    """Whether a pod CIDR leads to another node than the one that has it in the store."""
    try:
        with maps.open_remotes(d.settings.pin_root) as table:
            known = dict(table.items())
    except NotAvailable:  # nothing is known, so nothing can be lost
        return False
    return any(
        known.get(cidr, other.vtep) != other.vtep for other in d.others for cidr in other.networks
    )
