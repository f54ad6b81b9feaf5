# SPDX-License-Identifier: Apache-2.0
"""Addresses from pycni's own IPAM: the ones that were asked for, or the next ones of the pools.

A pool is one of the node's networks, or the ranges that the configuration sets in their place. A
pod gets one address per IP version, of the first pool of that version that has one. `ipam.exclude`
keeps addresses out of the pools, but a pod may still ask for them. Pure except for `claim`, which
the caller gives: it takes an address, or says that another pod has it.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

from pycni.cluster import IPAddress
from pycni.cni import requests
from pycni.cni.netconf import NetConf
from pycni.cni.protocol import Request
from pycni.errors import AddressUnavailable
from pycni.ipam import pools, ranges
from pycni.ipam.pools import Pool, Rotation
from pycni.node.record import Node
from pycni.pods.resting import Resting

Claim = Callable[[IPAddress], str]


def allocate(
    request: Request,
    conf: NetConf,
    *,
    node: Node,
    rotation: Rotation,
    resting: Resting,
    claim: Claim,
) -> tuple[IPAddress, ...]:
    """Claim the addresses asked for, and one of each of the cluster's other IP versions.

    An address that is asked for need not have rested. Without a request the IPv4 address comes
    first. Raises AddressUnavailable, PoolExhausted, InvalidConfig, InvalidParameter; addresses
    claimed before the error stay claimed.
    """
    wanted = requests.addresses(request, conf)
    for address in wanted:
        _check(address, node)
        if owner := claim(address):
            raise AddressUnavailable(
                f"the address {address} that was asked for is taken by {owner}",
                hint="ask for another, or delete the pod that has it",
            )

    def is_free(address: IPAddress) -> bool:
        return not claim(address)

    picked = {}
    taken = list(wanted)
    for version, own in pools_of(conf, node).items():
        if all(address.version != version for address in wanted):
            pool, address = pools.take_of(own, rotation.last, is_free, since=resting.since)
            picked[pool.name] = address
            taken.append(address)
    if picked:
        rotation.remember(picked)
    return tuple(taken)


def pools_of(conf: NetConf, node: Node) -> dict[int, list[Pool]]:
    """The pools by IP version, in the order in which they are used, without excluded addresses and
    gateways. The first ones are used first, so that further blocks become empty."""
    chosen = ranges.configured(conf, node)
    excluded = [*ranges.excluded(conf), *(ip_network(one) for one in node.gateways)]
    found: dict[int, list[Pool]] = {}
    for version in [cidr.version for cidr in node.pod_cidrs]:
        own = [(one.first, one.last) for one in chosen if one.network.version == version]
        whole = (
            [pools.ranges_pool(version, own)]
            if own
            else [pools.node_pool(cidr) for cidr in node.networks if cidr.version == version]
        )
        found[version] = [pool.without(excluded) for pool in whole]
    return found


def _check(address: IPAddress, node: Node) -> None:
    reserved = {cidr.network_address for cidr in node.networks}
    reserved |= {cidr.broadcast_address for cidr in node.networks if cidr.version == 4}
    if not any(address in cidr for cidr in node.cluster_cidrs):
        raise AddressUnavailable(
            f"the address {address} that was asked for is not in the cluster's networks",
            details=f"they are {', '.join(map(str, node.cluster_cidrs))}",
            hint="ask for an address of these networks, or for none",
        )
    if address in reserved or address in node.gateways:
        raise AddressUnavailable(
            f"the address {address} that was asked for is reserved",
            details="a network's first address, gateway and IPv4 broadcast are no pod's",
            hint="ask for another address, or for none",
        )
