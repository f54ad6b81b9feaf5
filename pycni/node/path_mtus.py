# SPDX-License-Identifier: Apache-2.0
"""Paths to other nodes that are narrower than the overlay's MTU, and how senders learn of them.

Whoever encapsulates hides the sender from the routers: their ICMP errors come to this node. The
kernel learns a path's MTU from them, for packets of our programs, too, since its VXLAN socket
vouches for them (vxlan_err_lookup, drivers/net/vxlan). It can do no more: with tunnel keys from
metadata the packet has lost the route that the kernel would write the MTU to
(skb_tunnel_check_pmtu, net/ipv4/ip_tunnel_core.c). So this module tells

* the programs, by the map `path_mtus`, which packets they must not send to a node, and
* the host's stack, by one route for each prefix of that node, with an MTU. The stack then answers
  what the programs hand to it with an ICMP error, or fragments it, and its own sockets send less.

Where no path is narrow there is no entry and no route. What is decided here is pure; the kernel
decides what a path carries.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pycni import cluster
from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import maps
from pycni.dataplane.reconcile import apply, plan
from pycni.faults import Fault, Weight
from pycni.kernel.fib import Fib
from pycni.kernel.fib import Path as Way
from pycni.kernel.link_routes import route_mtus
from pycni.kernel.links import Link
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import Route
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node import modes as node_modes
from pycni.node import overlay
from pycni.node.modes import Mode
from pycni.node.overlay import DEVICE, NEXT_HOPS
from pycni.node.record import Node
from pycni.settings import Settings

T = TypeVar("T", IPAddress, IPNetwork)

PART = "paths"

GONE = (errno.ESRCH, errno.ENODEV)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PathMtus:
    """Bytes of the largest IP packet of a pod, where that is less than the overlay's MTU."""

    nodes: Mapping[IPAddress, int] = field(default_factory=dict)
    """By VTEP: the map."""
    prefixes: Mapping[IPNetwork, int] = field(default_factory=dict)
    """By what is behind those VTEPs: the routes."""


def inner_mtu(vtep: IPAddress, path: Way, link: Link, mode: Mode = Mode.VXLAN) -> int:
    """The largest IP packet of a pod that fits a path, in bytes."""
    return min(link.mtu, path.mtu or link.mtu) - node_modes.header(mode, vtep.version)


def narrow(
    paths: Mapping[IPAddress, Way],
    links: Mapping[int, Link],
    *,
    overlay_mtu: int,
    modes: Mapping[IPAddress, Mode] = MappingProxyType({}),
) -> dict[IPAddress, int]:
    """What the paths carry that are narrower than the overlay's MTU, by VTEP. `modes`: how packets
    leave to nodes that get something else than VXLAN. Pure."""
    found: dict[IPAddress, int] = {}
    for vtep, path in paths.items():
        if (link := links.get(path.ifindex)) is not None:
            mtu = inner_mtu(vtep, path, link, modes.get(vtep, Mode.VXLAN))
            if mtu < overlay_mtu:
                found[vtep] = mtu
    return found


def wanted(nodes: Mapping[IPAddress, int], remotes: Mapping[IPNetwork, IPAddress]) -> PathMtus:
    """What map and routes must hold, if `nodes` are the narrow ones. Pure.

    An IPv6 route has 1280 bytes at least: the kernel sends no datagram by a smaller one
    (ip6_setup_cork, net/ipv6/ip6_output.c), and no sender may be told less (RFC 8200 5).
    """
    return PathMtus(
        nodes,
        {
            prefix: max(nodes[vtep], cluster.IPV6_MTU_MIN) if prefix.version == 6 else nodes[vtep]
            for prefix, vtep in remotes.items()
            if vtep in nodes
        },
    )


def untracked_errors(node: Node) -> tuple[str, ...]:
    """nftables rules for the chain `prerouting`, before connection tracking: routers' errors about
    what our programs encapsulated are not tracked. Pure.

    Connection tracking never saw those packets, and calls errors about them invalid: common
    firewalls drop what is invalid before they accept such errors. What the device encapsulated is
    tracked, and so are errors about it ("related"). `@th` counts bits from the ICMP header on: the
    protocol in the quoted IP header, 17 for UDP, and the quoted destination port.
    """
    kind, protocol, port = "icmp type destination-unreachable icmp code frag-needed", 136, 240
    if node.vtep.version == 6:
        kind, protocol, port = "icmpv6 type packet-too-big", 112, 400
    quoted = [f"17 @th,{port},16 {node.port}"] if node.encap == "ebpf" else []
    quoted += ["4", "41"] if node.ipip else []
    return tuple(f"{kind} @th,{protocol},8 {one} notrack" for one in quoted)


def differences(have: PathMtus, want: PathMtus) -> list[Fault]:
    """What differs. Pure."""
    return [
        *_differences(have.nodes, want.nodes, "the path MTU of node {}"),
        *_differences(have.prefixes, want.prefixes, "the MTU of the route to {}"),
    ]


def faults(settings: Settings) -> list[Fault]:
    """What map and routes hold that the kernel's paths do not say. Only looks, in the node's
    network namespace. Raises PycniError or OSError."""
    nodes = _narrow_now(settings)
    return differences(look(settings), wanted(nodes, _remotes(settings) if nodes else {}))


def mend(settings: Settings) -> None:
    """`write` what the kernel's paths say now. Callers hold the network lock. Raises PycniError or
    OSError."""
    write(settings, _narrow_now(settings))


def look(settings: Settings) -> PathMtus:
    """What map and routes hold, in the node's network namespace. Raises NotAvailable or OSError."""
    with maps.open_path_mtus(settings.pin_root) as table:
        nodes = dict(table.items())
    device = overlay.ifindex()  # setup's own routes by it have no MTU
    return PathMtus(nodes, route_mtus(device) if device else {})


def write(settings: Settings, nodes: Mapping[IPAddress, int]) -> bool:
    """Make map and routes agree with what the narrow paths carry; True if there is anything in them
    now, or if the kernel refused a change.

    Callers hold the network lock. Raises NotAvailable or OSError.
    """
    have = look(settings)
    want = wanted(nodes, _remotes(settings) if nodes else {})
    is_refused = False
    # the routes first: what the programs hand to the stack must find them
    if have.prefixes != want.prefixes:
        try:
            _write_routes(have.prefixes, want.prefixes, Node.load(settings).gateways)
        except NetlinkError as error:
            is_refused = True
            log.warning("routes of narrow paths refused device=%s error=%s", quoted(DEVICE),
                        quoted(str(error)))  # fmt: skip
    if have.nodes != want.nodes:
        changes = plan(have.nodes, want.nodes, synced=True)
        with maps.open_path_mtus(settings.pin_root) as table:
            apply(changes, table)
        for vtep, mtu in changes.upserts.items():
            log.info("path is narrow vtep=%s mtu=%d", quoted(vtep), mtu)
        for vtep in changes.deletes:
            log.info("path is as wide as the overlay vtep=%s", quoted(vtep))
    return bool(want.nodes) or is_refused


def write_all(
    root: Path,
    vtep: IPAddress,
    others: Mapping[IPAddress, Mode],
    *,
    overlay_mtu: int,
) -> None:
    """Fill a map that no program uses yet, as the kernel has the paths; `others` says of each node
    how packets may leave to it. Raises OSError."""
    with Fib() as fib, maps.open_path_mtus(root) as table:
        paths = fib.paths(others, vtep)
        links = fib.links({path.ifindex for path in paths.values()})
        modes = node_modes.chosen(others, paths, links)
        found = narrow(paths, links, overlay_mtu=overlay_mtu, modes=modes)
        for other, mtu in found.items():
            table.put(other, mtu)


def _differences(have: Mapping[T, int], want: Mapping[T, int], thing: str) -> Iterator[Fault]:
    for key in {**want, **have}:
        found = str(have.get(key, "gone"))
        if key not in want:
            yield Fault(PART, thing.format(key), f"{found}, without need", weight=Weight.DEGRADED)
        elif found != str(want[key]):
            yield Fault(PART, thing.format(key), f"{found}, not {want[key]}")


def _narrow_now(settings: Settings) -> dict[IPAddress, int]:
    """What the kernel says of the paths to all other nodes."""
    root = settings.pin_root
    with maps.open_vteps(root) as table, maps.open_nexthops(root) as hops:
        others = [vtep for vtep, _ in table.items()]
        leaving = ((vtep, node_modes.leaves(hop)) for vtep, hop in hops.items())
        modes = {vtep: mode for vtep, mode in leaving if mode is not Mode.VXLAN}
    with Fib(groups=0) as fib, Rtnl() as ipr:
        device = overlay.find(ipr)
        paths = fib.paths(others, Node.load(settings).vtep)
        links = fib.links({path.ifindex for path in paths.values()})
    overlay_mtu = device.mtu if device is not None else 0
    return narrow(paths, links, overlay_mtu=overlay_mtu, modes=modes)


def _remotes(settings: Settings) -> dict[IPNetwork, IPAddress]:
    with maps.open_remotes(settings.pin_root) as table:
        return dict(table.items())


def _write_routes(
    have: Mapping[IPNetwork, int], want: Mapping[IPNetwork, int], gateways: Sequence[IPAddress]
) -> None:
    changes = plan(have, want, synced=True)
    device = overlay.ifindex()
    sources = {gateway.version: gateway for gateway in gateways}
    with Rtnl() as ipr:
        for prefix, mtu in changes.upserts.items():
            version = prefix.version
            ipr.replace_route(
                Route(prefix, device, NEXT_HOPS[version], sources.get(version), mtu=mtu,
                      mtu_locked=version == 6)
            )  # fmt: skip
        for prefix in changes.deletes:
            try:
                ipr.delete_route(Route(prefix, device, NEXT_HOPS[prefix.version]))
            except NetlinkError as error:
                if error.errno not in GONE:
                    raise
