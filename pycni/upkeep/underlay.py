# SPDX-License-Identifier: Apache-2.0
"""Part "underlay": the kernel has a way to each other node, by an interface of other machines.

A route of the underlay is not pycni's: what is missing is told, and never made. All nodes are asked
for, since each may have a route of its own. To ask for 5,000 takes a third of a second, so that is
done only if the node's links, addresses, routes or rules, or the other nodes, are not as they were
at a look without a fault (`state`, upkeep/settled.py); else every ten minutes. While something is
wrong, it is done at each look.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel.fib import Path
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rules import Listed
from pycni.stores import NodeRecord
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "underlay"
NAMED = 3
"""Nodes that are named; of more only their number is told."""


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Of nodes without a way. Where this node has no address or no uplink, uplink.py says so."""
    uplink = seen.link(d.node.uplink)
    if seen.around.holder(d.node.vtep) is None or uplink is None or not uplink.is_running:
        return
    others = [one for one in d.others if one.vtep.version == d.node.vtep.version]
    paths = seen.ipr.paths([one.vtep for one in others], d.node.vtep)
    astray = [
        (one, why) for one in others if (why := _problem(paths.get(one.vtep), seen)) is not None
    ]
    weight = Weight.BROKEN if len(astray) == len(others) else Weight.DEGRADED
    for one, why in astray[:NAMED]:
        yield Fault(PART, thing(one), why, _todo(d, one), weight)
    if (left := len(astray) - NAMED) > 0:
        todo = _todo(d, astray[-1][0])
        yield Fault(PART, f"the way to {left} more nodes", "wrong, too", todo, weight)


def leave(_: Description, __: Seen) -> None:
    """The underlay's routes are others' to mend."""


def state(_: Description, seen: Seen) -> object:
    """All that the kernel chooses a path by: of routes, which may be many, only a hash."""
    links = {(link.ifindex, link.is_running) for link in seen.around.links.values()}
    rules = tuple(rule for version in (4, 6) for rule in _rules(seen, version))
    return frozenset(links), seen.around.addresses, hash(tuple(seen.routes)), rules


def thing(other: NodeRecord) -> str:
    """A node's way, as a row names it."""
    return f"the way to node {other.name} ({other.vtep})"


def _problem(path: Path | None, seen: Seen) -> str | None:
    if path is None:
        return "nowhere: this node has no route there"
    if any(link.ifindex == path.ifindex for link in seen.around.outer):
        return None
    if seen.around.leads_on(path.ifindex, seen.routes):
        return None  # without an address, and by a table that rules lead to
    link = seen.ipr.link_at(path.ifindex)
    name = f"interface {path.ifindex}" if link is None else link.ifname
    return f"out of {name}, which is no uplink of this node"


def _todo(d: Description, other: NodeRecord) -> str:
    return (
        f"give this node a route to {other.vtep} by its uplink; the kernel's choice: "
        f"ip route get {other.vtep} from {d.node.vtep}"
    )


def _rules(seen: Seen, version: int) -> list[Listed]:
    try:
        return seen.ipr.listed_rules(version)
    except NetlinkError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return []
