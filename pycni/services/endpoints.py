# SPDX-License-Identifier: Apache-2.0
"""The endpoints of Services: the union of their EndpointSlices. Pure.

Slices are made in any order and number, and an endpoint moves between them in two steps. So what is
one endpoint is told by address and port, and an endpoint that two slices have is there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from sys import intern

from pycni.cluster import IPAddress, is_routable
from pycni.services.objects import EndpointSlice, SetAside, SliceEndpoint, SlicePort

VERSIONS = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True)
class PortKey:
    """A service port in one family: what has endpoints of its own."""

    service: str
    """Namespace and name, with a slash between."""
    port_name: str
    protocol: str
    version: int
    """4 or 6."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a service port."""

    address: IPAddress
    port: int
    node: str = ""
    """The name of its Node; empty: of none that is known."""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: frozenset[str] | None = None
    """For clients in which zones it is; None: there is no hint."""
    nodes: frozenset[str] | None = None
    """For clients on which nodes it is; None: there is no hint."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one slice has of the endpoints of its Service."""

    service: str
    """Namespace and name; empty: of none."""
    endpoints: Mapping[PortKey, tuple[Endpoint, ...]]
    set_aside: tuple[SetAside, ...] = ()
    """What no endpoint can be."""


def read_slice(one: EndpointSlice) -> Part:
    """The endpoints of a slice, in its order."""
    version = VERSIONS.get(one.address_type)
    found: dict[PortKey, list[Endpoint]] = {}
    aside: list[SetAside] = []
    if version is None or not one.service:
        return Part("", {})
    ports = [
        (PortKey(one.service, port.name or "", port.protocol, version), port)
        for port in one.ports
        if port.port
    ]
    for number, entry in enumerate(one.endpoints):
        try:
            address = _usable(entry, version)
        except ValueError as error:
            aside.append(SetAside("EndpointSlice", f"{one.name} endpoint {number}", str(error)))
            continue
        for key, port in ports:
            found.setdefault(key, []).append(_endpoint(entry, address, port))
    return Part(one.service, {key: tuple(ones) for key, ones in found.items()}, tuple(aside))


def merge(parts: Iterable[Part], node: str) -> dict[PortKey, tuple[Endpoint, ...]]:
    """The endpoints of all service ports, each list in the order of addresses.

    `node` is the name of this node: of two that are one, that of this node counts (kube-proxy's
    endpointslicecache does the same), and then the one that is ready.
    """
    found: dict[PortKey, dict[tuple[int, int], Endpoint]] = {}
    for part in parts:
        for key, ones in part.endpoints.items():
            known = found.setdefault(key, {})
            for new in ones:
                place = (int(new.address), new.port)
                old = known.get(place)
                if old is None or _rank(new, node) > _rank(old, node):
                    known[place] = new
    return {key: tuple(known[place] for place in sorted(known)) for key, known in found.items()}


def collect(
    slices: Iterable[EndpointSlice], node: str
) -> tuple[dict[PortKey, tuple[Endpoint, ...]], list[SetAside]]:
    """What `merge` makes of slices, and what of them no endpoint can be."""
    parts = [read_slice(one) for one in slices]
    return merge(parts, node), [aside for part in parts for aside in part.set_aside]


def _rank(one: Endpoint, node: str) -> tuple[bool, bool, bool, bool]:
    return (one.node == node, one.ready, one.serving, not one.terminating)


def _usable(entry: SliceEndpoint, version: int) -> IPAddress:
    """The address that counts, which is the first. Raises ValueError, which says what is wrong."""
    if not entry.addresses:
        raise ValueError("it has no address")
    address = ip_address(entry.addresses[0])
    if address.version != version:
        raise ValueError(f"{address} is not of the slice's addressType")
    if not is_routable(address):
        raise ValueError(f"{address} is the address of no endpoint that others can reach")
    return address


def _endpoint(entry: SliceEndpoint, address: IPAddress, port: SlicePort) -> Endpoint:
    conditions, hints = entry.conditions, entry.hints
    return Endpoint(
        address,
        port.port or 0,
        intern(entry.node_name),
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        zones=frozenset(one.name for one in hints.for_zones) or None,
        nodes=frozenset(one.name for one in hints.for_nodes) or None,
    )
