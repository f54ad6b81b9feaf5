"""Which addresses an attachment gets by our own IPAM: what was asked for, else of which pool.

Pure but for `claim`, which a caller gives: it takes an address, or says that it is another's. Pools
are the node's pod CIDRs, or `ipam.ranges` and the capability `ipRanges` in their place: one address
per IP version. `ipam.exclude` keeps addresses out of the pools; they can still be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from pycni.cluster import IPAddress, IPNetwork
from pycni.cni import requests
from pycni.cni.document import pick
from pycni.cni.netconf import NetConf
from pycni.cni.protocol import Request
from pycni.errors import AddressUnavailable, InvalidConfig
from pycni.ipam import pools
from pycni.ipam.pools import Pool, Rotation
from pycni.node.record import Node

Claim = Callable[[IPAddress], bool]
Range = tuple[IPNetwork, IPAddress, IPAddress]
"""A network, and the first and last of its addresses that pods may have."""

RANGE_KEYS = ("subnet", "rangeStart", "rangeEnd")


def take(
    request: Request, conf: NetConf, *, node: Node, rotation: Rotation, claim: Claim
) -> tuple[IPAddress, ...]:
    """Claim an address of each of the cluster's IP versions, IPv4 first, or those asked for.

    Raises AddressUnavailable, PoolExhausted, InvalidConfig, InvalidParameter; what was claimed
    until then stays so.
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
            picked[pool.name] = pools.take(pool, rotation.last(pool), claim)
            taken.append(picked[pool.name])
    if picked:
        rotation.remember(picked)
    return tuple(taken)


def pools_of(conf: NetConf, node: Node) -> Iterator[Pool]:
    """One pool per IP version of the cluster, without excluded and gateway addresses."""
    chosen = ranges(conf, node)
    excluded = list(_excluded(conf.ipam.exclude))
    for cidr in node.pod_cidrs:
        own = [(first, last) for net, first, last in chosen if net.version == cidr.version]
        pool = pools.ranges_pool(cidr.version, own) if own else pools.node_pool(cidr)
        yield pool.without([*excluded, *(ip_network(one) for one in node.gateways)])


def ranges(conf: NetConf, node: Node) -> list[Range]:
    """The configured ranges; a capability's replace the configuration's of the same IP version.

    Raises InvalidConfig for what is no range, or not in the cluster's CIDRs.
    """
    asked = list(_ranges(requests.ranges(conf), "ipRanges"))
    versions = {net.version for net, _, _ in asked}
    static = [one for one in _ranges(conf.ipam.ranges, "ipam.ranges")
              if one[0].version not in versions]  # fmt: skip
    for network, first, last in (*asked, *static):
        if not any(first in cidr and last in cidr for cidr in node.cluster_cidrs):
            raise InvalidConfig(
                f"the range {network} is not in the cluster's networks",
                details=f"they are {', '.join(map(str, node.cluster_cidrs))}",
                hint="correct `ranges`, or the cluster_cidrs of all nodes",
            )
    return [*asked, *static]


def outside(networks: Iterable[Range], node: Node) -> list[IPNetwork]:
    """Networks of ranges that are not in the node's own pod CIDRs."""
    return [
        network
        for network, first, last in networks
        if not any(first in cidr and last in cidr for cidr in node.pod_cidrs)
    ]


def _check(address: IPAddress, node: Node) -> None:
    reserved = {one for cidr in node.pod_cidrs for one in (cidr.network_address,)}
    reserved |= {cidr.broadcast_address for cidr in node.pod_cidrs if cidr.version == 4}
    if not any(address in cidr for cidr in node.cluster_cidrs):
        raise AddressUnavailable(
            f"the address {address} that was asked for is not in the cluster's networks",
            details=f"they are {', '.join(map(str, node.cluster_cidrs))}",
        )
    if address in reserved or address in node.gateways:
        raise AddressUnavailable(f"the address {address} that was asked for is reserved")


def _ranges(value: Any, key: str) -> Iterator[Range]:
    """A list of CIDRs, of objects as host-local has them, or of lists of these."""
    if value is None:
        return
    if not isinstance(value, list):
        raise _wrong(key, value)
    for one in value:
        for inner in one if isinstance(one, list) else [one]:
            yield _range(inner, key)


def _range(value: Any, key: str) -> Range:
    found = pick(value, RANGE_KEYS) if isinstance(value, dict) else {"subnet": value}
    try:
        if not all(isinstance(one, str) for one in found.values()):
            raise ValueError("not text")
        network = ip_network(found["subnet"])
        first = network.network_address + (1 if network.num_addresses > 2 else 0)
        last = network.broadcast_address
        if network.version == 4 and network.num_addresses > 2:
            last -= 1
        start = ip_address(found["rangeStart"]) if found.get("rangeStart") else first
        end = ip_address(found["rangeEnd"]) if found.get("rangeEnd") else last
        if start not in network or end not in network or int(start) > int(end):
            raise ValueError("ends outside")
    except (ValueError, LookupError):
        raise _wrong(key, value) from None
    return network, start, end


def _excluded(value: Any) -> Iterator[IPNetwork]:
    if not isinstance(value if value is not None else [], list):
        raise _wrong("ipam.exclude", value)
    for one in value or []:
        try:
            if not isinstance(one, str):
                raise ValueError("not text")
            yield ip_network(one)
        except ValueError:
            raise _wrong("ipam.exclude", one) from None


def _wrong(key: str, found: Any) -> InvalidConfig:
    return InvalidConfig(
        f"{key} in the network configuration is wrong",
        details=f"found {found!r}",
        hint="write networks as '10.244.0.0/24', with no bits set after the prefix",
    )
