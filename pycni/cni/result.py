"""The result of ADD, the same for all versions of the CNI specification, and its JSON in each.

Converts as the reference library in Go does. The old form (0.1.0, 0.2.0: `ip4` and `ip6`) has one
address per family and no interfaces, so it loses what does not fit. Source: CNI spec 0.2.0, 0.4.0,
1.0.0 and 1.1.0, "Success" of section "Result".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any

from pycni.cni.document import pick
from pycni.cni.protocol import OLDEST, check_version
from pycni.errors import DecodingError, IncompatibleVersion

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
    """A route in the pod; what follows `gateway` is in results since 1.1.0 only."""

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

    def after(self, previous: Result) -> Result:
        """This result behind that of the plugins before us in the chain: theirs stays, in front."""
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
    """`result` as the document of exactly this version; empty optional parts are left out.

    Raises IncompatibleVersion if the version cannot say it (the old form, without any address).
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


def from_json(document: Any, version: str, *, what: str = "prevResult") -> Result:
    """The result in a decoded document; `version` is what it is in unless it says so itself.

    Raises DecodingError (code 6) naming the part, IncompatibleVersion for an unknown version.
    """
    try:
        return _from_json(_mapping(document), version)
    except (ValueError, TypeError) as error:
        raise DecodingError(f"{what} is no CNI result", details=str(error)) from error


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
        raise IncompatibleVersion(f"a result without an address cannot be told in CNI {version}")
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


def _from_json(document: Mapping[str, Any], version: str) -> Result:
    found = pick(document, ("cniVersion", "ip4", "ip6", "interfaces", "ips", "routes", "dns"))
    version = _string(found, "cniVersion") or version or OLDEST
    check_version(version)
    dns = _read_dns(_mapping(found.get("dns", {})))
    if version in OLD_FORM:
        halves = [_mapping(found[key]) for key in ("ip4", "ip6") if key in found]
        read = [pick(half, ("ip", "gateway", "routes")) for half in halves]
        return Result(
            ips=tuple(_read_address(half, "ip") for half in read),
            routes=tuple(route for half in read for route in _read_routes(half)),
            dns=dns,
        )
    interfaces = tuple(_read_interface(one) for one in _mappings(found, "interfaces"))
    ips = tuple(
        _read_address(pick(one, ("address", "gateway", "interface")), "address")
        for one in _mappings(found, "ips")
    )
    for index in (one.interface for one in ips):
        if index is not None and index not in range(len(interfaces)):
            raise ValueError(f"ips has interface {index}, there are {len(interfaces)} interfaces")
    return Result(interfaces, ips, tuple(_read_routes(found)), dns)


def _read_interface(document: Mapping[str, Any]) -> Interface:
    found = pick(document, (*INTERFACE_KEYS, *INTERFACE_DETAILS))
    name, mac, sandbox = (_string(found, key) for key in INTERFACE_KEYS)
    return Interface(
        name,
        mac,
        sandbox,
        mtu=_number(found, "mtu"),
        socket_path=_string(found, "socketPath"),
        pci_id=_string(found, "pciID"),
    )


def _read_address(found: Mapping[str, Any], key: str) -> Address:
    index = found.get("interface")
    if index is not None and type(index) is not int:
        raise TypeError(f"interface is {index!r}, not an index")
    return Address(ip_interface(_cidr(found, key)), _address(found, "gateway"), index)


def _read_routes(found: Mapping[str, Any]) -> Iterable[Route]:
    for one in _mappings(found, "routes"):
        route = pick(one, ("dst", "gw", *ROUTE_DETAILS))
        yield Route(
            ip_network(_cidr(route, "dst"), strict=False),
            _address(route, "gw"),
            **{key: _number(route, key) for key in ROUTE_DETAILS},
        )


def _read_dns(document: Mapping[str, Any]) -> Dns:
    found = pick(document, ("nameservers", "domain", "search", "options"))
    return Dns(
        nameservers=tuple(_strings(found, "nameservers")),
        domain=_string(found, "domain"),
        search=tuple(_strings(found, "search")),
        options=tuple(_strings(found, "options")),
    )


def _cidr(found: Mapping[str, Any], key: str) -> str:
    text = _string(found, key)
    if not text.partition("/")[2].isdecimal():  # Python would take a netmask, or none at all.
        raise ValueError(f"{key} is {text!r}, not an address with a prefix length")
    return text


def _address(found: Mapping[str, Any], key: str) -> IPv4Address | IPv6Address | None:
    text = _string(found, key)
    return ip_address(text) if text else None


def _number(found: Mapping[str, Any], key: str) -> int | None:
    value = found.get(key)
    if value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"{key} is {value!r}, not a number")
    return value


def _string(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}, not a string")
    return value


def _strings(found: Mapping[str, Any], key: str) -> list[str]:
    return [_string({key: one}, key) for one in _list(found, key)]


def _mappings(found: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [_mapping(one) for one in _list(found, key)]


def _list(found: Mapping[str, Any], key: str) -> list[Any]:
    value = found.get(key, [])
    if not isinstance(value, list):
        raise TypeError(f"{key} is {value!r}, not a list")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"found {value!r}, which is no object")
    return value
