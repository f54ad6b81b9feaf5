# SPDX-License-Identifier: Apache-2.0
"""Ranges of addresses in a network configuration: `ipam.ranges`, `ipRanges`, `ipam.exclude`.

Pure: reads what the configuration says and compares it with the node's and the cluster's networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from pycni.cluster import IPAddress, IPNetwork
from pycni.cni import requests
from pycni.cni.document import pick
from pycni.cni.netconf import NetConf
from pycni.errors import InvalidConfig
from pycni.node.record import Node

KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")


class Range(NamedTuple):
    """Addresses of one network that pods may have."""

    network: IPNetwork
    first: IPAddress
    last: IPAddress
    gateway: IPAddress | None = None
    """The router of that network, for pods that are in it themselves (attachments/on_lan)."""


def configured(conf: NetConf, node: Node) -> list[Range]:
    """The ranges to use. Raises InvalidConfig for a range that is malformed, or outside the
    cluster's networks."""
    found = listed(conf)
    for one in found:
        if not _is_within(one, node.cluster_cidrs):
            raise InvalidConfig(
                f"the range {one.network} is not in the cluster's networks",
                details=f"they are {', '.join(map(str, node.cluster_cidrs))}",
                hint="correct `ranges`, or the cluster_cidrs of all nodes",
            )
    return found


def listed(conf: NetConf) -> list[Range]:
    """The ranges, wherever they are. A capability's replace the configuration's of the same IP
    version. Raises InvalidConfig for a range that is malformed."""
    asked = list(_ranges(requests.ranges(conf), "ipRanges"))
    versions = {one.network.version for one in asked}
    static = [
        one
        for one in _ranges(conf.ipam.ranges, "ipam.ranges")
        if one.network.version not in versions
    ]
    return [*asked, *static]


def excluded(conf: NetConf) -> Iterator[IPNetwork]:
    """The networks of `ipam.exclude`. Raises InvalidConfig."""
    value = conf.ipam.exclude
    if not isinstance(value, list | None):
        raise _invalid("ipam.exclude", value)
    for one in value or []:
        try:
            yield ip_network(_text(one))
        except ValueError:
            raise _invalid("ipam.exclude", one) from None


def outside(found: Iterable[Range], node: Node) -> list[IPNetwork]:
    """The networks of those ranges that are not in the node's own."""
    return [one.network for one in found if not _is_within(one, node.networks)]


def _is_within(one: Range, networks: Iterable[IPNetwork]) -> bool:
    return any(one.first in network and one.last in network for network in networks)


def _ranges(value: Any, key: str) -> Iterator[Range]:
    """From a list of CIDRs, of objects as host-local has them, or of lists of these."""
    if value is None:
        return
    if not isinstance(value, list):
        raise _invalid(key, value)
    for one in value:
        for inner in one if isinstance(one, list) else [one]:
            yield _range(inner, key)


def _range(value: Any, key: str) -> Range:
    found = pick(value, KEYS) if isinstance(value, dict) else {"subnet": value}
    try:
        found = {key: _text(one) for key, one in found.items()}
        network = ip_network(found["subnet"])
        first = network.network_address + (1 if network.num_addresses > 2 else 0)
        last = network.broadcast_address
        if network.version == 4 and network.num_addresses > 2:
            last -= 1
        start = ip_address(found["rangeStart"]) if found.get("rangeStart") else first
        end = ip_address(found["rangeEnd"]) if found.get("rangeEnd") else last
        if start not in network or end not in network or int(start) > int(end):
            raise ValueError("ends outside")
        gateway = ip_address(found["gateway"]) if found.get("gateway") else None
    except (ValueError, LookupError):
        raise _invalid(key, value) from None
    return Range(network, start, end, gateway)


def _text(value: Any) -> str:
    """ip_network(5) is an address, too: only text counts. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


def _invalid(key: str, found: Any) -> InvalidConfig:
    return InvalidConfig(
        f"{key} in the network configuration is wrong",
        details=f"found {found!r}",
        hint="write networks as '10.244.0.0/24', with no bits set after the prefix",
    )
