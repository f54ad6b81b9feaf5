# SPDX-License-Identifier: Apache-2.0
"""The addresses that an ADD on the LAN takes for its lease: of the ranges, or from another plugin.

To take addresses is to write the lease that has them, under the LAN's lock: no two leases of a node
have one address. Whether another host of the LAN has it, the LAN is asked (lan/probe.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import ip_interface

from pycni.attachments.on_lan import detaching
from pycni.attachments.on_lan.attaching import LanAttaching
from pycni.attachments.on_lan.wanted import LanWanted
from pycni.cluster import IPAddress
from pycni.cni import requests
from pycni.cni.netconf import NetConf
from pycni.cni.result import Address
from pycni.errors import AddressUnavailable, PoolExhausted
from pycni.ipam import pools, published, ranges
from pycni.ipam.ipam_result import IpamResult
from pycni.ipam.pools import Pool, Rotation
from pycni.kernel.rtnl import Rtnl
from pycni.lan import leases, parents
from pycni.pods.resting import Resting
from pycni.settings import Settings


def take(one: LanAttaching, given: IpamResult | None, *, without: Collection[IPAddress]) -> None:
    """Write the lease with addresses: those that another plugin gave, or some of the ranges but
    for those `without`. Raises AddressUnavailable, PoolExhausted."""
    try:
        _choose(one, given, without)
    except (PoolExhausted, AddressUnavailable):  # of pods that ended without a DEL, maybe
        if not detaching.sweep(one.ipr, one.settings):
            raise
        _choose(one, given, without)


def asked(one: LanAttaching, addresses: Collection[IPAddress]) -> bool:
    """Whether the runtime asked for one of the addresses."""
    return any(
        address in addresses for address in requests.addresses(one.call.request, one.call.conf)
    )


def result(wanted: LanWanted, addresses: Iterable[IPAddress], ipr: Rtnl) -> IpamResult:
    """Addresses of the ranges as an IPAM plugin would give them. Among neighbours a pod has its
    network's prefix length, and the router that is named, or else the node's own."""
    found = []
    for address in addresses:
        around = wanted.range_of(address)
        assert around is not None
        if wanted.has_neighbours:
            gateway = around.gateway
            router = gateway or parents.gateway(ipr, wanted.parent, address.version)
            if router is not None and router not in around.network and not router.is_link_local:
                router = None
            found.append(Address(ip_interface(f"{address}/{around.network.prefixlen}"), router))
        else:
            found.append(Address(ip_interface(address)))
    return IpamResult(tuple(found))


def free_pools(conf: NetConf, wanted_ranges: Iterable[ranges.Range], ipr: Rtnl) -> dict[int, Pool]:
    """The ranges as one pool per IP version, without excluded addresses, routers, and all that the
    node has itself."""
    own = [address.ip for address in ipr.addresses()]
    found: dict[int, list[ranges.Range]] = {}
    for one in wanted_ranges:
        found.setdefault(one.network.version, []).append(one)
    routers = [one.gateway for of_version in found.values() for one in of_version if one.gateway]
    single = [ip_interface(address).network for address in (*own, *routers)]
    out = [*ranges.excluded(conf), *single]
    return {
        version: pools.ranges_pool(version, [(one.first, one.last) for one in of_version]).without(
            out
        )
        for version, of_version in found.items()
    }


def taken(settings: Settings, digest: str = "") -> dict[IPAddress, str]:
    """The addresses that other leases have, each with its container."""
    return {
        address: lease.container_id
        for lease in leases.leases(settings.run_dir)
        if lease.key.digest != digest
        for address in lease.addresses
    }


def _choose(one: LanAttaching, given: IpamResult | None, without: Collection[IPAddress]) -> None:
    if given is not None:
        _write(one, [ip.address.ip for ip in given.ips], given=True)
    else:
        _allocate(one, without)


def _allocate(one: LanAttaching, without: Collection[IPAddress]) -> None:
    asked = requests.addresses(one.call.request, one.call.conf)
    rotation, resting = Rotation(one.settings.state_dir), Resting(one.settings.run_dir)
    found = free_pools(one.call.conf, one.wanted.ranges, one.ipr)
    for address in asked:
        _refuse_unfit(one, address)
    with one.alone():
        others = taken(one.settings, one.lease.key.digest)

        def is_free(address: IPAddress) -> bool:
            return address not in others and address not in without

        chosen, picked = list(asked), {}
        for version, pool in found.items():
            if all(address.version != version for address in asked):
                try:
                    _, address = pools.take_of([pool], rotation.last, is_free, since=resting.since)
                except PoolExhausted as error:
                    raise PoolExhausted(
                        error.message, hint="remove pods from this node, or give it a wider range"
                    ) from error
                picked[pool.name] = address
                chosen.append(address)
        _write_alone(one, chosen, given=False)
    if picked:
        rotation.remember(picked)


def _write(one: LanAttaching, addresses: Collection[IPAddress], *, given: bool) -> None:
    with one.alone():
        _write_alone(one, addresses, given=given)


def _write_alone(one: LanAttaching, addresses: Collection[IPAddress], *, given: bool) -> None:
    others = taken(one.settings, one.lease.key.digest)
    for address in addresses:
        if owner := others.get(address):
            if given:
                raise published.taken(address, f"container {owner} of this node")
            raise AddressUnavailable(
                f"the address {address} that was asked for is taken by container {owner}",
                hint="ask for another, or delete the pod that has it",
            )
        if any(address == own.ip for own in one.ipr.addresses()):
            raise AddressUnavailable(
                f"the address {address} cannot be a pod's: it is this node's own",
                hint="correct the ranges: no host may have their addresses",
            )
    one.lease = replace(one.lease, addresses=tuple(addresses))
    one.save()


def _refuse_unfit(one: LanAttaching, address: IPAddress) -> None:
    if one.wanted.range_of(address) is None:
        raise AddressUnavailable(
            f"the address {address} that was asked for is in no network of `ipam.ranges`",
            details=", ".join(str(each.network) for each in one.wanted.ranges),
            hint="ask for an address of these networks, or for none",
        )
