# SPDX-License-Identifier: Apache-2.0
"""Part "registration": this node's own record in the store."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.cluster import IPNetwork
from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.faults import Fault, Weight
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "registration"
ASK = "see who did that: pycni nodes; then run: pycni setup"


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

    A store that lists no other node, or gave the place of one to another, has lost its data: then
    the order in which nodes come back decides who gets what, and a person has to look. Until then
    the tables have the nodes of before, whose pods still run.
    """
    if not d.others or _has_heirs(d):
        return False
    taken = {cidr for other in d.others for cidr in other.networks}
    return all(_first_free(d, cidr, taken) == cidr for cidr in d.node.pod_cidrs)


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


def _first_free(d: Description, own: IPNetwork, taken: set[IPNetwork]) -> IPNetwork | None:
    """The pod CIDR that a new node would get, of the family of `own`."""
    for whole in d.node.cluster_cidrs:
        if whole.version == own.version:
            parts = whole.subnets(new_prefix=own.prefixlen)
            return next((part for part in parts if part not in taken), None)
    return None
