# SPDX-License-Identifier: Apache-2.0
"""Part "leases": the host end of each pod's link has its lease, which is the link's alias, and the
name that follows from it.

Without the alias nothing else of the pod is looked at, and without the name a DEL that has no agent
finds no link. Only an agent that has seen the alias before can write it again: nobody else knows
it. It knows a link by its index, which nobody can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pycni.faults import Fault, Weight
from pycni.kernel.links import Link
from pycni.names import GATEWAY_MAC, NAME_HEAD, NETKIT, VETH, host_ifname
from pycni.pods.lease import held_by, is_ours
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "leases"
ANEW = "find the pod by its addresses (pycni endpoints), and delete it, so that it is made anew"


class Astray(NamedTuple):
    """A host end that somebody changed."""

    link: Link
    ifname: str
    """The name that it must have; the one that it has, if nobody knows."""
    alias: str | None
    """What its alias must be; empty if nobody knows, None if it is right."""

    @property
    def is_renamed(self) -> bool:
        """Whether the name is another one."""
        return self.ifname != self.link.ifname


def faults(_: Description, seen: Seen) -> Iterator[Fault]:
    """Of links that are up, or that were seen before: an ADD sets a link up and writes the alias in
    one request."""
    astray = list(_astray(seen))
    leaving = {one.link.ifname for one in astray if one.is_renamed}
    for one in astray:
        now = one.link.ifname
        if one.alias is not None:
            todo = f"if the agent does not mend it at once: {ANEW}"
            if seen.aliases is not None:
                todo = "" if one.alias else ANEW
            found = "without its lease: somebody changed its alias"
            found += f", and its name to {now}" if one.is_renamed else ""
            yield Fault(PART, one.ifname, found, todo, Weight.DEGRADED)
        else:
            is_taken = one.ifname not in leaving and seen.link(one.ifname) is not None
            todo = f"rename what has that name: ip link show {one.ifname}" if is_taken else ""
            found = f"renamed: it is {now} now"
            yield Fault(PART, one.ifname, found, todo, Weight.DEGRADED)


def mend(_: Description, seen: Seen) -> None:
    """Write the aliases that are remembered, and give names back. Two links may have each other's:
    whatever has a name that belongs to another is renamed first."""
    astray = list(_astray(seen))
    wanted = {one.ifname for one in astray if one.is_renamed}
    for one in astray:
        if one.alias:
            seen.ipr.set_alias(one.link.ifindex, one.alias)
        if one.is_renamed and one.link.ifname in wanted:
            seen.ipr.rename(one.link, f"{NAME_HEAD}_{one.link.ifindex}")
    for one in astray:
        if one.is_renamed and seen.ipr.link(one.ifname) is None:
            seen.ipr.rename(one.link, one.ifname)


def _astray(seen: Seen) -> Iterator[Astray]:
    known = {lease.ifindex: lease for _, lease in seen.pods}
    for link in seen.pods_links:
        lease, before = known.get(link.ifindex), seen.remembered(link)
        if before is not None and (lease is None or lease.key_digest != before.key_digest):
            alias = (seen.aliases or {})[link.ifindex]
            yield Astray(link, host_ifname(before.key_digest), alias)
        elif lease is not None and link.ifname != host_ifname(lease.key_digest):
            yield Astray(link, host_ifname(lease.key_digest), None)
        elif link.is_up and _is_of_pod(link) and held_by(link) is None:
            yield Astray(link, link.ifname, "")


def _is_of_pod(link: Link) -> bool:
    """Whether a link without a lease is ours by its name and MAC, or by its MAC alone."""
    return is_ours(link) or (link.kind in (VETH, NETKIT) and link.mac == GATEWAY_MAC)
