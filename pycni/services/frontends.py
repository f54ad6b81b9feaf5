# SPDX-License-Identifier: Apache-2.0
"""The addresses and ports by which clients reach Services. Pure.

kubernetes.io/docs, "Service" and "Virtual IPs and Service Proxies".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from pycni.cluster import IPAddress, IPNetwork, is_routable
from pycni.services.endpoints import PortKey
from pycni.services.objects import Service, ServicePort, SetAside

PROXY = "Proxy"


class Kind(Enum):
    """What an address is to a Service, and so whose policy counts."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_IP = "ExternalIP"


@dataclass(frozen=True)
class Frontend:
    """An address and port that leads to a service port."""

    kind: Kind
    address: IPAddress | None
    """None: the node's own addresses, as `nodeport_addresses` says."""
    port: int
    protocol: str
    target: PortKey
    policy: str
    """For traffic that comes by it: Cluster or Local."""
    affinity: int
    """Seconds; 0: none."""
    source_ranges: tuple[IPNetwork, ...] = ()
    """Who may come; empty: everybody."""

    @property
    def key(self) -> tuple[int, IPAddress | None, int, str]:
        """What only one Service can have."""
        return (self.target.version, self.address, self.port, self.protocol)


Owned = Callable[[IPAddress], str]
"""Whose an address is, if no Service may have it: "a node's", "a pod's"; else empty."""


def frontends(
    services: Iterable[Service], *, external_ips: bool, owned: Owned
) -> tuple[list[Frontend], list[SetAside]]:
    """All frontends, and those that no Service gets.

    What two Services claim the older one has, by creationTimestamp and UID. `external_ips`: whether
    `spec.externalIPs` count; who may write a Service takes any address by them (CVE-2020-8554).
    """
    found: list[Frontend] = []
    aside: list[SetAside] = []
    holders: dict[tuple[int, IPAddress | None, int, str], str] = {}
    for service in sorted(services, key=lambda one: one.age):
        if service.spec.external_ips and not external_ips:
            aside.append(_aside(service, "externalIPs are switched off"))
        for one in _of_service(service, external_ips=external_ips):
            holder = holders.get(one.key)
            if holder == service.name:
                continue  # one address by two of its fields
            if reason := _refusal(one, owned) or _rival(one, holder):
                aside.append(_aside(service, reason))
                continue
            holders[one.key] = service.name
            found.append(one)
    return found, aside


def _of_service(service: Service, *, external_ips: bool) -> Iterator[Frontend]:
    spec = service.spec
    cluster = service.cluster_addresses
    versions = {one.version for one in cluster}
    for port in spec.ports:
        for address in cluster:
            yield _frontend(service, port, Kind.CLUSTER_IP, address)
        if not cluster:  # headless: no frontend of any kind
            continue
        if spec.type in ("NodePort", "LoadBalancer") and port.node_port:
            for version in sorted(versions):
                yield _node_port(service, port, version)
        if spec.type == "LoadBalancer":
            for entry in service.status.load_balancer.ingress:
                if entry.ip and entry.ip.version in versions and entry.ip_mode != PROXY:
                    yield _frontend(service, port, Kind.LOAD_BALANCER, entry.ip)
        for address in spec.external_ips if external_ips else ():
            if address.version in versions:
                yield _frontend(service, port, Kind.EXTERNAL_IP, address)


def _frontend(service: Service, port: ServicePort, kind: Kind, address: IPAddress) -> Frontend:
    spec, version = service.spec, address.version
    ranges = spec.load_balancer_source_ranges if kind is Kind.LOAD_BALANCER else ()
    return Frontend(
        kind,
        address,
        port.port,
        port.protocol,
        PortKey(service.name, port.name, port.protocol, version),
        spec.internal_traffic_policy if kind is Kind.CLUSTER_IP else spec.external_traffic_policy,
        service.affinity,
        _of_family(ranges, version),
    )


def _node_port(service: Service, port: ServicePort, version: int) -> Frontend:
    return Frontend(
        Kind.NODE_PORT,
        None,
        port.node_port,
        port.protocol,
        PortKey(service.name, port.name, port.protocol, version),
        service.spec.external_traffic_policy,
        service.affinity,
    )


def _of_family(ranges: Iterable[IPNetwork], version: int) -> tuple[IPNetwork, ...]:
    """Ranges of one family; one of /0 lets everybody in."""
    ones = tuple(one for one in ranges if one.version == version)
    return () if any(one.prefixlen == 0 for one in ones) else ones


def _refusal(one: Frontend, owned: Owned) -> str:
    address = one.address
    if address is None:
        return ""
    if not is_routable(address):
        return f"{one.kind.value} {address} is no address that others can send to"
    owner = owned(address)
    return f"{one.kind.value} {address} is {owner} address" if owner else ""


def _rival(one: Frontend, holder: str | None) -> str:
    if holder is None:
        return ""
    where = one.address or "node port"
    return f"{where} {one.port}/{one.protocol} is of the older Service {holder}"


def _aside(service: Service, reason: str) -> SetAside:
    return SetAside("Service", service.name, reason)
