# SPDX-License-Identifier: Apache-2.0
"""Addresses from pycni's own IPAM: the ones that were asked for, or the next ones of the pools.

A pool is one of the node's pod CIDRs, or the ranges that the configuration sets in its place: one
address per IP version. `ipam.exclude` keeps addresses out of the pools, but a pod may still ask for
them. Pure except for `claim`, which the caller gives: it takes an address, or says that another pod
has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

Claim = Callable[[IPAddress], bool]


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
        if not claim(address):
            raise AddressUnavailable(
                f"the address {address} that was asked for is another pod's or another node's",
                hint="ask for another, or delete the pod that has it",
            )
    picked = {}
    taken = list(wanted)
    for pool in pools_of(conf, node):
        if all(address.version != pool.version for address in wanted):
            picked[pool.name] = pools.take(pool, rotation.last(pool), claim, since=resting.since)
            taken.append(picked[pool.name])
    if picked:
        rotation.remember(picked)
    return tuple(taken)


def pools_of(conf: NetConf, node: Node) -> Iterator[Pool]:
    """One pool per IP version of the cluster, without excluded addresses and gateways."""
    chosen = ranges.configured(conf, node)
    excluded = [*ranges.excluded(conf), *(ip_network(one) for one in node.gateways)]
    for cidr in node.pod_cidrs:
        own = [(one.first, one.last) for one in chosen if one.network.version == cidr.version]
        pool = pools.ranges_pool(cidr.version, own) if own else pools.node_pool(cidr)
        yield pool.without(excluded)


def _check(address: IPAddress, node: Node) -> None:
    reserved = {cidr.network_address for cidr in node.pod_cidrs}
    reserved |= {cidr.broadcast_address for cidr in node.pod_cidrs if cidr.version == 4}
    if not any(address in cidr for cidr in node.cluster_cidrs):
        raise AddressUnavailable(
            f"the address {address} that was asked for is not in the cluster's networks",
            details=f"they are {', '.join(map(str, node.cluster_cidrs))}",
            hint="ask for an address of these networks, or for none",
        )
    if address in reserved or address in node.gateways:
        raise AddressUnavailable(
            f"the address {address} that was asked for is reserved",
            details="a pod CIDR's first address, gateway and IPv4 broadcast are no pod's",
            hint="ask for another address, or for none",
        )
