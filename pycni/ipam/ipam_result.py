"""What IPAM gives an attachment: addresses, routes, DNS.

The result of another IPAM plugin is taken as it is: the pod gets its prefix lengths, gateways and
routes. The node's programs answer for the gateway, whichever it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network

from pycni.cluster import IPAddress
from pycni.cni.result import Address, Dns, Route
from pycni.node import overlay
from pycni.node.record import Node

DEFAULT_ROUTE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

NO_DNS = Dns()


@dataclass(frozen=True)
class IpamResult:
    """As IPAM gave it; the addresses in `ips` name no interface yet."""

    ips: tuple[Address, ...]
    routes: tuple[Route, ...] = ()
    dns: Dns = NO_DNS

    def with_gateways(self, node: Node) -> IpamResult:
        """The same with routes that can be set: each has a gateway, and an IP version that has
        addresses but no route gets a default route."""
        versions = dict.fromkeys(one.address.version for one in self.ips)
        routed = {one.dst.version for one in self.routes}
        missing = tuple(Route(DEFAULT_ROUTE[one]) for one in versions if one not in routed)
        return replace(
            self,
            routes=tuple(
                one if one.gateway else replace(one, gateway=self._gateway(one.dst.version, node))
                for one in (*self.routes, *missing)
            ),
        )

    def _gateway(self, version: int, node: Node) -> IPAddress:
        """The first gateway that IPAM names, or the node's, or an address that nobody has."""
        named = (one.gateway for one in self.ips if one.gateway is not None)
        for gateway in (*named, *node.gateways):
            if gateway.version == version:
                return gateway
        return ip_interface(overlay.NEXT_HOPS[version]).ip


def own(addresses: Iterable[IPAddress], node: Node) -> IpamResult:
    """The result of pycni's own IPAM: host addresses, with the node's gateways."""
    gateways = {gateway.version: gateway for gateway in node.gateways}
    return IpamResult(
        tuple(
            Address(
                ip_interface(f"{address}/{address.max_prefixlen}"),
                gateway=gateways.get(address.version),
            )
            for address in addresses
        )
    )
