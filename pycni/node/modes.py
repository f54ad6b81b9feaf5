# SPDX-License-Identifier: Apache-2.0
"""How packets leave to each other node: the one place that decides it, out of what both nodes say
and what the kernel's routes allow.

The sender's settings choose the mode, and the other node's record says whether it takes that. So a
node whose record has several words gets from each other node what that one is set to send; no node
chooses between two modes. Where the two do not agree, or no path is there for it, the mode is
VXLAN, which every node takes. direct.py and ipip.py have what is peculiar to each mode. Pure: no
netlink, no maps, no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from pycni import stores
from pycni.cluster import VXLAN_OVERHEAD, IPAddress
from pycni.dataplane.maps import NextHop, Vtep
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node import direct, ipip
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord


class Mode(StrEnum):
    """How packets may leave to a node. The words of records, and of `pycni nodes`."""

    VXLAN = stores.VXLAN
    DIRECT = stores.DIRECT
    """Without outer headers, on one link."""
    ROUTED = stores.ROUTED
    """And by routers. What leaves so is DIRECT."""
    IPIP = stores.IPIP


BESIDE = (Mode.DIRECT, Mode.ROUTED, Mode.IPIP)
"""What a node may accept besides VXLAN. Each is a flag in `vteps`."""


def overhead(settings: Settings, version: int) -> int:
    """Bytes that the MTU of pods leaves for outer headers; `version` is that of the VTEPs."""
    if ipip.is_wanted(settings):
        return ipip.overhead(version)
    return direct.overhead(settings, version)


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says that it takes besides VXLAN."""
    return (*direct.accepts(node), *ipip.accepts(node))


def still_accepts(settings: Settings, accepted: Iterable[str]) -> tuple[str, ...]:
    """What a node that is about to change accepts before and after it, by what it `accepted`."""
    stays = {
        Mode.DIRECT: direct.is_wanted(settings),
        Mode.ROUTED: direct.is_routed(settings),
        Mode.IPIP: ipip.is_wanted(settings),
    }
    return tuple(word for word, is_so in stays.items() if is_so and word in accepted)


def accepted(known: Vtep) -> tuple[str, ...]:
    """What a node accepts, by its entry in `vteps`."""
    return tuple(word for word in BESIDE if getattr(known, word))


def towards(node: Node, accepts: Collection[str]) -> Mode:
    """How packets of `node` may leave to one that `accepts` these words."""
    if node.direct and Mode.DIRECT in accepts:
        return Mode.ROUTED if node.routed and Mode.ROUTED in accepts else Mode.DIRECT
    return Mode.IPIP if node.ipip and Mode.IPIP in accepts else Mode.VXLAN


def towards_all(node: Node, others: Iterable[NodeRecord]) -> dict[IPAddress, Mode]:
    """The same of each other node, by its record."""
    return {other.vtep: towards(node, other.accepts) for other in others}


def chosen(
    modes: Mapping[IPAddress, Mode], paths: Mapping[IPAddress, Way], links: Mapping[int, Link]
) -> dict[IPAddress, Mode]:
    """The nodes that get something else than VXLAN by these paths, and what: DIRECT or IPIP.

    No program of ours takes either from an interface without an Ethernet header. Routers do not
    matter to IPIP, since they see only addresses of nodes.
    """
    found: dict[IPAddress, Mode] = {}
    for vtep, mode in modes.items():
        path = paths.get(vtep)
        link = links.get(path.ifindex) if path is not None else None
        if path is None or link is None or not link.is_ethernet:
            continue
        if mode is Mode.IPIP:
            found[vtep] = mode
        elif mode is Mode.ROUTED or (mode is Mode.DIRECT and direct.is_on_link(vtep, path, link)):
            found[vtep] = Mode.DIRECT
    return found


def leaves(hop: NextHop) -> Mode:
    """How packets leave by an entry of `nexthops`."""
    if hop.direct:
        return Mode.DIRECT
    return Mode.IPIP if hop.ipip else Mode.VXLAN


def header(mode: Mode, version: int) -> int:
    """Bytes that a mode puts in front of a pod's packet; `version` is that of the VTEPs."""
    if mode is Mode.VXLAN:
        return VXLAN_OVERHEAD[version]
    return ipip.overhead(version) if mode is Mode.IPIP else 0
