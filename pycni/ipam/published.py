# SPDX-License-Identifier: Apache-2.0
"""Addresses of pods outside their node's own networks: asked for, or given by another IPAM plugin.

The store tells the other nodes of each such address, as an extra prefix of this node. An address
outside the cluster's CIDRs, which the node's cluster routes do not cover, also gets a route here.
Prefix and route depend on the address's entry in the endpoints table: they are made after it and
removed before it (pods/endpoints.py).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_network

from pycni.cluster import IPAddress, IPNetwork, is_usable
from pycni.errors import AddressUnavailable, InvalidConfig
from pycni.kernel.routes import Route
from pycni.kernel.rtnl import Rtnl
from pycni.node import overlay
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import Store, open_store

GONE = (errno.ESRCH, errno.ENODEV, None)
"""The route or its device is gone. None: the error of if_nametoindex(3) has no errno."""


def is_outside(address: IPAddress, node: Node) -> bool:
    """Whether an address must be published to be reachable from other nodes."""
    return not (address.is_link_local or any(address in cidr for cidr in node.networks))


def publish(ipr: Rtnl, address: IPAddress, *, node: Node, settings: Settings) -> str:
    """Make an address reachable; returns the node that has it already, "" if no other has it.

    Raises StoreError.
    """
    owner = _store(settings).publish(node.name, ip_network(address))
    if owner != node.name:
        return owner
    if _needs_route(address, node):
        ipr.replace_route(_route(address))
    return ""


def withdraw(ipr: Rtnl, address: IPAddress, *, node: Node, settings: Settings) -> None:
    """The undo of `publish`; no error if there is nothing to undo. Raises StoreError."""
    if _needs_route(address, node):
        try:
            ipr.delete_route(_route(address))
        except OSError as error:
            if error.errno not in GONE:
                raise
    _store(settings).withdraw(node.name, ip_network(address))


def restore_routes(ipr: Rtnl, alive: Iterable[IPAddress], *, node: Node) -> None:
    """Make the routes to the addresses that pods have; needs no store."""
    for address in alive:
        if is_outside(address, node) and _needs_route(address, node):
            ipr.replace_route(_route(address))


def restore(
    ipr: Rtnl,
    alive: Iterable[IPAddress],
    *,
    node: Node,
    settings: Settings,
    before: Iterable[IPNetwork] | None = None,
) -> None:
    """Publish the addresses that pods have; withdraw those that no pod has. Raises StoreError.

    `before` is what the store has as published by this node; None: the store is asked.
    """
    wanted = {address for address in alive if is_outside(address, node)}
    for address in wanted:
        publish(ipr, address, node=node, settings=settings)
    if before is None:
        own = (one for one in _store(settings).nodes() if one.name == node.name)
        before = [prefix for record in own for prefix in record.extra]
    for prefix in before:
        if prefix.network_address not in wanted:
            withdraw(ipr, prefix.network_address, node=node, settings=settings)


def refuse_others(networks: Iterable[IPNetwork], *, node: Node, settings: Settings) -> None:
    """Raise InvalidConfig if a network overlaps a pod CIDR of another node."""
    wanted = list(networks)
    if not wanted:
        return
    for other in _store(settings).nodes():
        for network in wanted:
            for cidr in other.networks:
                if (
                    other.name != node.name
                    and cidr.version == network.version
                    and network.overlaps(cidr)
                ):
                    raise InvalidConfig(
                        f"the range {network} overlaps {cidr}, the pod CIDR of node {other.name}",
                        hint="correct `ranges`: no other node may give out its addresses",
                    )


def refuse_unusable(ipr: Rtnl, address: IPAddress, *, node: Node, settings: Settings) -> None:
    """Raise AddressUnavailable for an address from IPAM that a node has itself, or that no packet
    can reach. Raises StoreError."""
    if why := _unusable(ipr, address, node, settings):
        raise AddressUnavailable(
            f"the address {address} that IPAM gave cannot be a pod's: it is {why}",
            hint="correct the ranges in the IPAM configuration",
        )


def taken(address: IPAddress, owner: str) -> AddressUnavailable:
    """The error for an address that somebody has, who is the `owner` in words."""
    return AddressUnavailable(
        f"the address {address} that IPAM gave is taken by {owner}",
        hint="give each node, and each IPAM configuration, addresses of its own",
    )


def _unusable(ipr: Rtnl, address: IPAddress, node: Node, settings: Settings) -> str:
    if not is_usable(ip_network(address)):
        return "of a network for special use, to which nobody routes packets"
    if address in node.gateways:
        return "the gateway of this node's pods"
    if not is_outside(address, node):
        return ""
    if any(address == one.ip for one in ipr.addresses()):
        return "this node's own"
    nodes = _store(settings).nodes()
    owners = (one.name for one in nodes if address == one.vtep or address in one.addresses)
    owner = next(owners, None)
    return "" if owner is None else f"an address of node {owner}"


def _needs_route(address: IPAddress, node: Node) -> bool:
    return not any(address in cidr for cidr in node.cluster_cidrs)


def _store(settings: Settings) -> Store:
    return open_store(settings.store_url, settings.cluster, create=False)


def _route(address: IPAddress) -> Route:
    """Raises OSError if the overlay device is gone."""
    ifindex = socket.if_nametoindex(overlay.DEVICE)
    return Route(ip_network(address), ifindex, overlay.NEXT_HOPS[address.version])
