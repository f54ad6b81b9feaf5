# SPDX-License-Identifier: Apache-2.0
"""Who gets which place in the cluster: parameters all nodes share, node ids, pod CIDRs, addresses.

Pure: it decides by the records that a store has read. Every kind of store asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count

from pycni.cluster import Cluster, IPAddress, IPNetwork, node_capacity, overlap
from pycni.errors import ClusterError, NameTaken, StoreError
from pycni.stores.former import NEW, Former
from pycni.stores.records import EXTRA_MAX, NODE_ID_MAX, Claim, Raw, printable, read, write
from pycni.stores.registry import BY_VXLAN, HEARTBEAT_FRESH, Liveness, NodeRecord, Reach
from pycni.stores.roster import Roster

DIFFERENCES = 8
"""How many an error names."""


def parameters(cluster: Cluster) -> dict[str, str]:
    """What all nodes of a cluster must agree on, as text by name."""
    found = {"vni": str(cluster.vni), "port": str(cluster.port)}
    for cidr in cluster.cidrs:
        found[f"cluster_cidr.ipv{cidr.version}"] = str(cidr)
        found[f"node_prefix.ipv{cidr.version}"] = str(cluster.node_prefix(cidr.version))
    return found


def refuse_other_cluster(stored: Mapping[str, str], cluster: Cluster, *, where: str) -> None:
    """Raise ClusterError, with both values of each, if `where` was made with other parameters."""
    wanted = parameters(cluster)
    differences = [
        f"{printable(key)} is {printable(str(stored.get(key, 'absent')))} in the store "
        f"and {wanted.get(key, 'absent')} here"
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key) != wanted.get(key)
    ]
    if differences:
        differences[DIFFERENCES:] = ["and more"] * (len(differences) > DIFFERENCES)
        raise ClusterError(
            f"{where} belongs to a cluster with other parameters: {'; '.join(differences)}",
            hint="give this node the store's parameters; to change them for the whole cluster, "
            "tear all nodes down and remove the store",
        )


@dataclass(frozen=True)
class Applicant:
    """A machine that wants to be a node."""

    name: str
    vtep: IPAddress
    identity: str
    """The machine's (see `machine_identity`)."""
    instance: str = ""
    """The machine's (see `machine_instance`)."""
    reach: Reach = BY_VXLAN
    had: Former = NEW
    """Its place before."""


def place(applicant: Applicant, roster: Roster, *, liveness: Mapping[str, Liveness]) -> NodeRecord:
    """The record that a machine gets: what it had before with the new VTEP, or what is free.

    Raises NameTaken when another living machine has that name, and StoreError when another node has
    that VTEP, all pod CIDRs are taken, or the record could not be valid.
    """
    name, vtep = applicant.name, applicant.vtep
    refuse(applicant, roster, liveness=liveness)
    former = roster.claims.get(name)
    others = [claim for claim in roster.claims.values() if claim.name != name]
    record = NodeRecord(
        name=name,
        node_id=_node_id(former, others, roster),
        vtep=vtep,
        pod_cidrs=tuple(
            _pod_cidr(cidr, former, others, roster, had=applicant.had)
            for cidr in _by_family(roster.cluster)
        ),
        extra=_kept_extra(former, roster),
        addresses=applicant.reach.addresses,
        accepts=applicant.reach.accepts,
    )
    return _checked(record, applicant, roster)


def refuse(applicant: Applicant, roster: Roster, *, liveness: Mapping[str, Liveness]) -> None:
    """Raise NameTaken when another living machine has that name, StoreError when another node has
    that VTEP."""
    _refuse_name(applicant, roster, liveness)
    _refuse_vtep(applicant, roster, liveness)


def seat(
    applicant: Applicant,
    roster: Roster,
    *,
    pod_cidrs: tuple[IPNetwork, ...],
    blocks: tuple[IPNetwork, ...] = (),
) -> NodeRecord:
    """As `place`, for a machine that has its networks from elsewhere, and that `refuse` let pass.

    Raises StoreError if another node has one of its pod CIDRs. Its id is the number of its first
    pod CIDR among those of the cluster, counted from 1.
    """
    name = applicant.name
    for cidr in pod_cidrs:
        if (holder := roster.holder(cidr)) not in ("", name):
            raise StoreError(
                f"the pod CIDR {cidr} of node {name} is still that of node {printable(holder)}",
                hint=f"wait until node {printable(holder)} is removed, or remove it if it is gone: "
                "pycni forget; in Kubernetes: kubectl delete node",
            )
    former = roster.claims.get(name)
    node_id = _number(pod_cidrs[0], roster.cluster)
    if roster.holder(node_id) not in ("", name):
        others = [claim for claim in roster.claims.values() if claim.name != name]
        node_id = _node_id(former, others, roster)
    record = NodeRecord(
        name=name,
        node_id=node_id,
        vtep=applicant.vtep,
        pod_cidrs=pod_cidrs,
        extra=_kept_extra(former, roster),
        addresses=applicant.reach.addresses,
        blocks=tuple(one for one in blocks if roster.holder(one) in ("", name)),
        accepts=applicant.reach.accepts,
    )
    return _checked(record, applicant, roster)


def refuse_another_address(roster: Roster, name: str) -> None:
    """Raise StoreError if the node publishes as many addresses as a record may have."""
    if len(roster.claims[name].extra) >= EXTRA_MAX:
        raise StoreError(
            f"the node {name} publishes {EXTRA_MAX} addresses already",
            hint="give pods addresses of the node's own pod CIDR, or use more nodes",
        )


def owner(roster: Roster, prefix: IPNetwork) -> str:
    """Name of the node that has an address; empty if none has.

    It published the address, or it is its VTEP, or it is in its pod CIDRs. Records that are set
    aside count as well, after the valid ones: they may be mended.
    """
    claims = sorted(roster.claims.values(), key=lambda claim: claim.name not in roster.nodes)
    for claim in claims:
        if prefix in claim.extra or prefix.network_address == claim.vtep:
            return claim.name
    for claim in claims:
        if any(overlap(prefix, cidr) for cidr in claim.networks):
            return claim.name
    return ""


def _checked(record: NodeRecord, applicant: Applicant, roster: Roster) -> NodeRecord:
    """The record. Raises StoreError if it could not be valid, PlaceLost if pods of the machine
    live in networks that it would not have."""
    document = write(record, applicant.identity)
    if problem := read(record.name, Raw(document), roster.cluster).problem:
        raise StoreError(
            f"the node {record.name} cannot be registered: {problem}",
            hint="correct node_name and vtep in the settings",
        )
    applicant.had.refuse_renumbering(record.pod_cidrs)
    applicant.had.refuse_lost_blocks(record.networks)
    return record


def _kept_extra(former: Claim | None, roster: Roster) -> tuple[IPNetwork, ...]:
    """What it published and still has."""
    if former is None:
        return ()
    return tuple(one for one in former.extra if owner(roster, one) == former.name)


def _refuse_name(applicant: Applicant, roster: Roster, liveness: Mapping[str, Liveness]) -> None:
    name = applicant.name
    former, life = roster.claims.get(name), liveness.get(name)
    if former is None or life is None or not life.alive:
        return
    if former.identity and former.identity != applicant.identity:
        raise NameTaken(
            f"the node name {name} is in use by another machine with VTEP {former.vtep}, "
            f"which is {life}",
            hint="give this machine its own node_name; if it replaces the other one, stop that "
            f"and try again in {HEARTBEAT_FRESH:.0f} s",
        )
    is_other = "" not in (life.instance, applicant.instance) and (
        life.instance != applicant.instance
    )
    if is_other and former.vtep != applicant.vtep:
        raise NameTaken(
            f"the node name {name} is in use with VTEP {former.vtep} by another machine with the "
            f"same machine-id, which is {life}",
            hint="give this machine its own node_name and /etc/machine-id (a copied image has the "
            "first one's); if it is the same machine after a reboot, try again in "
            f"{HEARTBEAT_FRESH:.0f} s",
        )


def _refuse_vtep(applicant: Applicant, roster: Roster, liveness: Mapping[str, Liveness]) -> None:
    """A VTEP that is new for the node must be nobody's, not even by a record that is set aside;
    or, where the newer record counts, of a node that is silent."""
    name, vtep = applicant.name, applicant.vtep
    former = roster.claims.get(name)
    is_new = former is None or former.vtep != vtep
    for other in roster.claims.values():
        if other.name == name or not (is_new or other.name in roster.nodes):
            continue
        if vtep == other.vtep or any(vtep == one.network_address for one in other.extra):
            life = liveness.get(other.name, Liveness(alive=False))
            is_junior = former is None or former.seniority > other.seniority
            if roster.newer_has_vtep and vtep == other.vtep and is_junior and not life.alive:
                continue
            shown = printable(other.name)
            aside = roster.rejected.get(other.name)
            state = f"whose record is set aside: {aside}" if aside else f"which is {life}"
            raise StoreError(
                f"the VTEP {vtep} of node {name} is already that of node {shown}, {state}",
                hint=f"set another vtep, or remove node {shown} if it is gone: pycni forget; "
                "in Kubernetes: kubectl delete node",
            )


def _node_id(former: Claim | None, others: Iterable[Claim], roster: Roster) -> int:
    """The one it has, unless a valid record of another has it; or the smallest that is free."""
    if former and former.node_id and roster.holder(former.node_id) in ("", former.name):
        return former.node_id
    taken = {claim.node_id for claim in others}
    return next(number for number in count(1) if number not in taken)


def _number(cidr: IPNetwork, cluster: Cluster) -> int:
    """Which of the pod CIDRs of its cluster CIDR one is, from 1 on."""
    whole = next(one for one in cluster.cidrs if one.version == cidr.version)
    distance = int(cidr.network_address) - int(whole.network_address)
    return (distance >> (cidr.max_prefixlen - cidr.prefixlen)) % NODE_ID_MAX + 1


def _pod_cidr(
    cidr: IPNetwork,
    former: Claim | None,
    others: Sequence[Claim],
    roster: Roster,
    *,
    had: Former,
) -> IPNetwork:
    """The node's part of a cluster CIDR: the one it has, unless a valid record of another has it;
    or one that no record claims or has an address of: the one it had, or the first."""
    if former:
        for part in former.pod_cidrs:
            if overlap(part, cidr) and roster.holder(part) in ("", former.name):
                return part
    length = roster.cluster.node_prefix(cidr.version)
    taken: set[IPNetwork] = set()
    for claim in others:
        taken.update(one for one in claim.networks if one.version == cidr.version)
        taken.update(one.supernet(new_prefix=length) for one in claim.extra if overlap(one, cidr))
    for part in had.pod_cidrs:
        if overlap(part, cidr) and part.prefixlen == length and part not in taken:
            return part
    capacity = node_capacity(cidr, length)
    if len(taken) >= capacity:
        raise StoreError(
            f"no free pod CIDR: {cidr} cut into /{length} is enough for {capacity} nodes, "
            f"and there are {len(taken)}",
            hint="remove nodes that are gone, or build the cluster with larger cluster_cidrs",
        )
    candidates = (_part(cidr, length, index) for index in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _part(cidr: IPNetwork, length: int, index: int) -> IPNetwork:
    size = 1 << (cidr.max_prefixlen - length)
    return ip_network((cidr.network_address + index * size, length))


def _by_family(cluster: Cluster) -> list[IPNetwork]:
    return sorted(cluster.cidrs, key=lambda cidr: cidr.version)
