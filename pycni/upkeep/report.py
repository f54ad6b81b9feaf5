# SPDX-License-Identifier: Apache-2.0
"""The state of a node as rows, one for each thing: what `pycni status` prints.

The parts of the description come first, each as one row if it is as it must be, else a row for each
fault; then what a node also needs to serve, and what it has done. Looks only, takes no lock, and
runs in the node's network namespace.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from loader import pins, probe
from loader.errors import LoaderError
from loader.probe import Feature
from pycni.dataplane import dumps, maps
from pycni.errors import PycniError
from pycni.faults import Fault, Weight
from pycni.kernel.rtnl import Rtnl
from pycni.node import (
    advice,
    cluster_faults,
    firewall_accepts,
    next_hops,
    other_firewalls,
    overlay_guard,
    reachability,
    service_faults,
)
from pycni.node.peers import followed
from pycni.node.reachability import Local
from pycni.settings import Settings
from pycni.stores import DIRECT, IPIP, VXLAN, Listing, NodeRecord, open_store
from pycni.upkeep import (
    attachments,
    bgp,
    device,
    direct,
    hooks,
    node,
    parts,
    peers,
    plugin,
    pods,
    programs,
    registration,
    routes,
    underlay,
    uplink,
)
from pycni.upkeep.book import Book, key_of
from pycni.upkeep.description import Description, describe
from pycni.upkeep.part import Part
from pycni.upkeep.seen import Seen

START_AGENT = "start the agent, which mends it; or run: pycni setup"
WAIT = (
    "wait: the agent mends it; if it does not, its log says why. After an edit of the settings: "
    "pycni setup"
)


NAMED = 3
"""Nodes that a row names."""
ASKED = 256
"""Nodes whose ways are asked for, at most."""


class State(StrEnum):
    """Of one thing, or of the node: the worst of its things."""

    OK = "ok"
    MISSING = "missing"
    """This kernel does not have it; something else is done instead."""
    DEGRADED = "degraded"
    """Packets flow, but something that was promised does not hold."""
    BROKEN = "broken"
    """Packets of pods are lost."""


@dataclass(frozen=True)
class Row:
    """One thing."""

    name: str
    state: State
    cause: str = ""
    """What was found."""
    todo: str = ""
    """What a person has to do."""


def rows(settings: Settings) -> list[Row]:
    """All rows, in an order in which a fault explains those after it. Raises OSError where the
    kernel cannot be asked."""
    listing, store_rows = _store(settings)
    serving = _is_serving(settings)
    d = describe(settings)
    found: list[Row] = []
    local: list[Local] = []
    if d is None:
        found += [_fault_row(one, Book(), serving=serving) for one in node.absent(settings)]
    else:
        with Rtnl() as ipr:
            seen, book = Seen(ipr), Book.load(settings)
            if listing is not None:
                d = replace(d, nodes=_followed(listing, d, seen))
            for part in parts.PARTS:
                faults = list(parts.faults_of(part, d, seen))
                found += _part_rows(part, faults, d, seen, book, serving=serving)
                local += _local(faults, d)
            found += [_encap(d, _advice(d, seen)), *_services(settings, serving=serving)]
            found += _traffic(settings)
    cluster = _cluster(settings, listing, local, serving=serving)
    found += [*store_rows, *cluster, _agent(serving=serving, is_node=d is not None)]
    return [*found, *map(_feature, probe.probe())]


def _followed(listing: Listing, d: Description, seen: Seen) -> tuple[NodeRecord, ...]:
    """The nodes that the agent follows, too: others are in no map, and that is no fault."""
    own = {address.ip for address in seen.addresses}
    return followed(listing.nodes, d.node.name, own)


def worst(found: list[Row]) -> State:
    """The state of a node with these rows."""
    order = list(State)
    return max((row.state for row in found), key=order.index, default=State.OK)


def _part_rows(
    part: Part, faults: list[Fault], d: Description, seen: Seen, book: Book, *, serving: bool
) -> Iterator[Row]:
    for fault in faults:
        yield _fault_row(fault, book, serving=serving)
    if not faults:
        known = _details(part, d, seen)
        tally = book.tallies.get(part.name)
        if tally:
            ago = max(0, round(time.time() - tally.last))
            times = "once" if tally.count == 1 else f"{tally.count} times"
            known = "; ".join(filter(None, [known, f"mended {times}, last {ago} s ago"]))
        yield Row(part.name, State.OK, known)


def _fault_row(fault: Fault, book: Book, *, serving: bool) -> Row:
    cause, todo = fault.sentence, fault.todo or (WAIT if serving else START_AGENT)
    rest = book.rests.get(key_of(fault))
    if rest is not None and rest.holds(time.time()):
        cause = f"{cause}; {rest.words}"
        todo = "find who undoes it and stop that; then run: pycni setup"
    state = State.BROKEN if fault.weight is Weight.BROKEN else State.DEGRADED
    return Row(fault.part, state, cause, todo)


def _details(part: Part, d: Description, seen: Seen) -> str:
    """What a person likes to know of a part that is as it must be; or why that cannot be had."""
    tell = DETAILS.get(part.name)
    try:
        return "" if tell is None else tell(d, seen)
    except (PycniError, LoaderError) as error:
        return f"no details: {error.message}"
    except OSError as error:
        return f"no details: {error}"


def _programs(d: Description, _: Seen) -> str:
    current = pins.current(d.settings.pin_root)
    return "" if current is None else pins.fingerprint(current)


AROUND = frozenset({uplink.PART, underlay.PART, other_firewalls.PART})
"""Rows that may say why another node is not reached in any way."""
OF_OVERLAY = frozenset({
    programs.PART, device.PART, device.ADDRESSES, routes.PART, firewall_accepts.PART,
    overlay_guard.PART, hooks.PART, peers.PART, direct.PART,
})  # fmt: skip
"""Rows that may say why it is not reached through the overlay."""

DETAILS: dict[str, Callable[[Description, Seen], str]] = {
    node.PART: lambda d, _: d.node.name,
    programs.PART: _programs,
    device.PART: lambda d, _: f"up, mtu {d.node.mtu}",
    routes.PART: lambda d, _: " ".join(map(str, d.node.cluster_cidrs)),
    hooks.PART: hooks.details,
    pods.PART: lambda _, seen: f"{len(seen.pods)} attached",
    attachments.PART: lambda d, _: attachments.details(d),
    bgp.PART: lambda d, _: bgp.details(d),
    plugin.PART: lambda d, _: plugin.details(d.settings),
    registration.PART: lambda d, _: "" if d.nodes is not None else "not known: no store",
}


def _advice(d: Description, seen: Seen) -> str:
    """A better way to send to the other nodes, if these tell one. To ask for all of a large
    cluster would take long."""
    vteps = [one.vtep for one in d.others if one.vtep.version == d.node.vtep.version][:ASKED]
    ways = seen.ipr.paths(vteps, d.node.vtep)
    near = advice.on_link(vteps, ways, {link.ifindex: link for link in seen.links})
    return advice.about(d.settings, near=near, others=len(vteps))


def _encap(d: Description, better: str) -> Row:
    """Who makes VXLAN now, and who gets packets without it; `better` is what to try."""
    chosen = d.settings.encap
    if d.node.direct:
        return _besides(d, DIRECT, "without VXLAN")
    if d.node.ipip:
        return _besides(d, IPIP, "in IPIP")
    if d.node.encap == "kernel":
        return Row("encap", State.OK, f"kernel (settings: {chosen})")
    try:
        with maps.open_nexthops(d.settings.pin_root) as table:
            known = sum(1 for _ in table.items())
        fresh = next_hops.is_fresh(d.settings)
    except PycniError:
        return Row("encap", State.BROKEN, "ebpf, but its programs are not loaded", START_AGENT)
    except OSError as error:
        cause = f"kernel: the next hops for ebpf cannot be read: {error.strerror}"
        return Row("encap", State.DEGRADED, cause, "see the row programs")
    if not fresh:
        return Row("encap", State.OK, "kernel: no agent confirms the next hops for ebpf")
    cause = f"ebpf (settings: {chosen}), next hops known: {known}"
    return Row("encap", State.OK, "; ".join(filter(None, [cause, better])))


def _besides(d: Description, way: str, words: str) -> Row:
    """How many nodes get packets by another way than VXLAN, which `words` name. Where they shall
    not all be named, `pycni nodes` does."""
    try:
        modes = next_hops.modes(d.settings)
        fresh = next_hops.is_fresh(d.settings)
    except PycniError:
        cause = f"{d.settings.encap}, but its programs are not loaded"
        return Row("encap", State.BROKEN, cause, START_AGENT)
    except OSError as error:
        cause = f"VXLAN: the next hops cannot be read: {error.strerror}"
        return Row("encap", State.DEGRADED, cause, "see the row programs")
    by = Counter[str](modes.values())
    cause = f"{d.settings.encap}: {by[way]} of {len(modes)} nodes {words}"
    others = [other for other in d.others if modes.get(other.vtep) == VXLAN]
    unable = sorted(other.name for other in others if way not in other.accepts)
    if others:
        cause += f"; {by[VXLAN]} by VXLAN, made by {d.node.encap}"
    if unable:
        named = ", ".join(unable[:NAMED]) + (" and others" if len(unable) > NAMED else "")
        cause += f"; by their records {named} do not take that"
    if not fresh:
        cause += "; no agent confirms the next hops, so the kernel is asked for each packet"
    return Row("encap", State.OK, cause)


def _services(settings: Settings, *, serving: bool) -> list[Row]:
    """What of Services is forwarded."""
    faults = service_faults.faults(settings) if settings.services != "off" else []
    if not faults:
        return [Row(service_faults.PART, State.OK, service_faults.summary(settings))]
    return [_fault_row(fault, Book(), serving=serving) for fault in faults]


def _traffic(settings: Settings) -> Iterator[Row]:
    """Packets since the programs' counters began."""
    with suppress(PycniError, OSError):
        passed = sum(row["packets"] for row in dumps.dump(settings.pin_root, "forwarded")[0])
        drops: Counter[str] = Counter()
        for row in dumps.dump(settings.pin_root, "drops")[0]:
            drops[dumps.spelled(row["reason"])] += row["packets"]
        normal = sum(drops.pop(reason, 0) for reason in dumps.NORMAL)
        text = f"{passed} packets forwarded, {drops.total()} dropped"
        if drops:
            most = ", ".join(f"{reason} {count}" for reason, count in drops.most_common(3))
            text = f"{text} ({most})"
        if normal:
            text = f"{text}; {normal} more drops are normal: pycni drops"
        yield Row("traffic", State.OK, text)


def _store(settings: Settings) -> tuple[Listing | None, list[Row]]:
    """What the store lists, None if it cannot be read, and the rows about it."""
    try:
        listing = open_store(settings.store_url, settings.cluster, create=False).listing()
    except PycniError as error:
        todo = error.hint or "start it; until then no news of other nodes comes"
        return None, [Row("store", State.DEGRADED, error.message, todo)]
    count = len(listing.nodes)
    state = f"{count} node{'' if count == 1 else 's'} in {settings.store_url}"
    found = [Row("store", State.OK, state)]
    if listing.rejected:
        todo = (
            "mend or remove the records: pycni nodes, pycni forget; "
            "in Kubernetes: kubectl delete node"
        )
        return listing, [*found, Row("records", State.DEGRADED, listing.summary, todo)]
    return listing, [*found, Row("records", State.OK, listing.summary)]


def _local(faults: list[Fault], d: Description) -> Iterator[Local]:
    """Of these faults, those that may keep this node from others."""
    nodes = {underlay.thing(one): one.name for one in d.others} if faults else {}
    for fault in faults:
        if fault.part in AROUND or fault.part in OF_OVERLAY:
            node = nodes.get(fault.thing, "")
            yield Local(fault.part, fault.sentence, fault.part in AROUND, node)


def _cluster(
    settings: Settings, listing: Listing | None, local: list[Local], *, serving: bool
) -> list[Row]:
    """What the agent found out about the other nodes."""
    faults = cluster_faults.faults(settings, listing, local=local)
    if not faults:
        return [Row(reachability.PART, State.OK, cluster_faults.summary(settings))]
    return [_fault_row(fault, Book(), serving=serving) for fault in faults]


def _is_serving(settings: Settings) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        return agent.connect_ex(str(settings.socket_path)) == 0


def _agent(*, serving: bool, is_node: bool) -> Row:
    if serving:
        return Row("agent", State.OK, "serving")
    if not is_node:
        return Row("agent", State.DEGRADED, "not running", "first set the node up")
    cause = "not running; packets still flow, but nobody follows other nodes or mends this one"
    return Row("agent", State.DEGRADED, cause, "run: pycni agent, or start its unit")


def _feature(feature: Feature) -> Row:
    name = f"kernel {feature.name}"
    if feature.available:
        return Row(name, State.OK, "available")
    if feature.fallback:
        return Row(name, State.MISSING, f"{feature.fallback} (the kernel says: {feature.reason})")
    cause = f"{feature.reason}; needed by {feature.needed_by}"
    return Row(name, State.BROKEN, cause, "run as root, on Linux 5.10 or later")
