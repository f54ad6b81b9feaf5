# SPDX-License-Identifier: Apache-2.0
"""The result of ADD, the same for all versions of the CNI specification, and its JSON in each.

Converts as the reference library in Go does. The old form (0.1.0, 0.2.0: `ip4` and `ip6`) has one
address per family and no interfaces, so it loses what does not fit. result_reader.py reads such
JSON. Source: CNI spec 0.2.0, 0.4.0, 1.0.0 and 1.1.0, "Success" of section "Result".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any

from pycni.errors import IncompatibleVersion

OLD_FORM = ("0.1.0", "0.2.0")
WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")
"""The versions whose `ips` say "4" or "6"."""

WITH_DETAILS = ("1.1.0",)
"""The versions whose interfaces have an MTU and whose routes have metrics."""

IPInterface = IPv4Interface | IPv6Interface

INTERFACE_KEYS = ("name", "mac", "sandbox")
INTERFACE_DETAILS = {"mtu": "mtu", "socketPath": "socket_path", "pciID": "pci_id"}
"""Key in JSON: attribute."""
ROUTE_DETAILS = ("mtu", "advmss", "priority", "table", "scope")


@dataclass(frozen=True)
class Interface:
    """An interface of the attachment: in the pod if it has a sandbox, else on the node."""

    name: str
    mac: str = ""
    sandbox: str = ""
    """CNI_NETNS verbatim: chained plugins compare it."""
    mtu: int | None = None
    """Bytes of an IP packet; results have this and the following since 1.1.0 only."""
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True)
class Address:
    """An address of the pod, with its prefix length."""

    address: IPInterface
    gateway: IPv4Address | IPv6Address | None = None
    interface: int | None = None
    """Index into `Result.interfaces`."""


@dataclass(frozen=True)
class Route:
    """A route in the pod. Results have what follows `gateway` since 1.1.0 only."""

    dst: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None
    mtu: int | None = None
    """Bytes of an IP packet; with the kernel's RTAX_ADVMSS and its metric, table and scope:"""
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True)
class Dns:
    """What the runtime writes into the pod's resolv.conf."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What an ADD made."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    take_back: Callable[[], None] | None = field(default=None, compare=False)
    """Undoes the ADD, in case its caller never has the result; not part of it."""

    def after(self, previous: Result) -> Result:
        """This result appended to that of the plugins before us in the chain."""
        shift = len(previous.interfaces)
        shifted = (
            one if one.interface is None else replace(one, interface=one.interface + shift)
            for one in self.ips
        )
        return Result(
            interfaces=previous.interfaces + self.interfaces,
            ips=(*previous.ips, *shifted),
            routes=previous.routes + self.routes,
            dns=previous.dns if self.dns == Dns() else self.dns,
        )


def to_json(result: Result, version: str) -> dict[str, Any]:
    """`result` as a document of exactly this version, without empty optional parts.

    Raises IncompatibleVersion if the version cannot express it (the old form needs an address).
    """
    if version in OLD_FORM:
        body = _to_old_form(result, version)
    else:
        body = {
            "interfaces": [_interface(one, version) for one in result.interfaces],
            "ips": [_ip(one, version) for one in result.ips],
            "routes": [_route(one, version) for one in result.routes],
        }
    return {"cniVersion": version, **_without_empty(body | {"dns": dns_to_json(result.dns)})}


def dns_to_json(dns: Dns) -> dict[str, Any]:
    """The `dns` object of a result, of any version."""
    return _without_empty(
        {
            "nameservers": list(dns.nameservers),
            "domain": dns.domain,
            "search": list(dns.search),
            "options": list(dns.options),
        }
    )


def _to_old_form(result: Result, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for family in (4, 6):
        first = next((one for one in result.ips if one.address.version == family), None)
        if first is not None:
            routes = [_route(one, version) for one in result.routes if one.dst.version == family]
            body[f"ip{family}"] = _without_empty(
                {"ip": str(first.address), "gateway": _text(first.gateway), "routes": routes}
            )
    if not body:
        raise IncompatibleVersion(
            f"a result without an address cannot be told in CNI {version}",
            hint="set cniVersion in the network list to 0.3.0 or later",
        )
    return body


def _interface(one: Interface, version: str) -> dict[str, Any]:
    document = {key: getattr(one, key) for key in INTERFACE_KEYS}
    if version in WITH_DETAILS:
        document |= {key: getattr(one, name) for key, name in INTERFACE_DETAILS.items()}
    return _without_empty(document)


def _ip(one: Address, version: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if version in WITH_IP_VERSION:
        document["version"] = str(one.address.version)
    if one.interface is not None:
        document["interface"] = one.interface
    document["address"] = str(one.address)
    return document | _without_empty({"gateway": _text(one.gateway)})


def _route(one: Route, version: str) -> dict[str, Any]:
    document: dict[str, Any] = {"dst": str(one.dst), "gw": _text(one.gateway)}
    if version in WITH_DETAILS:
        document |= {key: getattr(one, key) for key in ROUTE_DETAILS}
    return _without_empty(document)


def _text(value: object | None) -> str:
    return "" if value is None else str(value)


def _without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value not in ("", [], {}, None)}
