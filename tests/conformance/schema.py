# SPDX-License-Identifier: Apache-2.0
"""What the result of ADD must look like in each version of the specification.

CNI specification 0.1.0 to 1.1.0, section "Result Types" ("Success" in 1.0.0); keys of a later
version in a result of an earlier one are named, and so are keys of no version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

OLD = ("0.1.0", "0.2.0")
WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")

ROUTE_KEYS = {"dst", "gw", "mtu", "advmss", "priority", "table", "scope"}
NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
DNS_KEYS = {"nameservers", "domain", "search", "options"}
INTERFACE_KEYS = {"name", "mac", "sandbox"}
LATER_INTERFACE_KEYS = {"mtu", "socketPath", "pciID"}


def problems(result: Any, version: str) -> list[str]:
    """All that is wrong with a result, in words; empty if nothing is."""
    if not isinstance(result, dict):
        return ["the result is no object"]
    return list(_problems(result, version))


def _problems(result: dict[str, Any], version: str) -> Iterator[str]:
    if result.get("cniVersion") != version:
        yield f"cniVersion is {result.get('cniVersion')!r}"
    if version in OLD:
        yield from _unknown("the result", result, {"cniVersion", "ip4", "ip6", "dns"})
        if not {"ip4", "ip6"} & result.keys():
            yield "neither ip4 nor ip6"
        for key, family in (("ip4", 4), ("ip6", 6)):
            if key in result:
                yield from _old_ip(key, result[key], family)
    else:
        yield from _unknown(
            "the result", result, {"cniVersion", "interfaces", "ips", "routes", "dns"}
        )
        interfaces = result.get("interfaces", [])
        for number, one in enumerate(interfaces):
            yield from _interface(f"interfaces[{number}]", one, version)
        for number, one in enumerate(result.get("ips", [])):
            yield from _ip(f"ips[{number}]", one, version, len(interfaces))
        yield from _routes("routes", result.get("routes", []))
    yield from _dns(result.get("dns", {}))


def _old_ip(where: str, one: Any, family: int) -> Iterator[str]:
    yield from _unknown(where, one, {"ip", "gateway", "routes"})
    yield from _parses(f"{where}.ip", one.get("ip"), _cidr(family))
    if "gateway" in one:
        yield from _parses(f"{where}.gateway", one["gateway"], _plain(family))
    yield from _routes(f"{where}.routes", one.get("routes") or [])


def _interface(where: str, one: Any, version: str) -> Iterator[str]:
    later = LATER_INTERFACE_KEYS if version >= "1.0.0" else set()
    yield from _unknown(where, one, INTERFACE_KEYS | later)
    if not isinstance(one.get("name"), str) or not one["name"]:
        yield f"{where} has no name"
    for key in ("mac", "sandbox", "socketPath", "pciID"):
        if key in one and (not isinstance(one[key], str) or not one[key]):
            yield f"{where}.{key} is {one[key]!r}"
    if "mac" in one:
        yield from _parses(f"{where}.mac", one["mac"], lambda text: _mac(text))
    if "mtu" in one and not _is_number(one["mtu"]):
        yield f"{where}.mtu is {one['mtu']!r}"


def _ip(where: str, one: Any, version: str, interfaces: int) -> Iterator[str]:
    with_version = {"version"} if version in WITH_IP_VERSION else set()
    yield from _unknown(where, one, {"address", "gateway", "interface"} | with_version)
    yield from _parses(f"{where}.address", one.get("address"), _cidr(None))
    family = 6 if ":" in str(one.get("address")) else 4
    if with_version and one.get("version") != str(family):
        yield f"{where}.version is {one.get('version')!r}"
    if "gateway" in one:
        yield from _parses(f"{where}.gateway", one["gateway"], _plain(family))
    index = one.get("interface", 0 if interfaces else None)
    if index is not None and (not _is_number(index) or not 0 <= index < interfaces):
        yield f"{where}.interface is {index!r}, of {interfaces} interfaces"


def _routes(where: str, routes: Any) -> Iterator[str]:
    for number, one in enumerate(routes):
        here = f"{where}[{number}]"
        yield from _unknown(here, one, ROUTE_KEYS)
        yield from _parses(f"{here}.dst", one.get("dst"), partial(ip_network, strict=False))
        if "gw" in one:
            yield from _parses(f"{here}.gw", one["gw"], ip_address)
        for key in NUMBERS:
            if key in one and not _is_number(one[key]):
                yield f"{here}.{key} is {one[key]!r}"


def _dns(dns: Any) -> Iterator[str]:
    yield from _unknown("dns", dns, DNS_KEYS)
    for key in ("nameservers", "search", "options"):
        texts = dns.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            yield f"dns.{key} is {texts!r}"
    for server in dns.get("nameservers", []):
        yield from _parses("dns.nameservers", server, ip_address)


def _unknown(where: str, found: Any, known: set[str]) -> Iterator[str]:
    extra = found.keys() - known
    if extra:
        yield f"{where} has {', '.join(sorted(extra))}"


def _parses(where: str, text: Any, parse: Callable[[str], object]) -> Iterator[str]:
    try:
        if not isinstance(text, str):
            raise ValueError
        parse(text)
    except ValueError:
        yield f"{where} is {text!r}"


def _cidr(family: int | None) -> Callable[[str], None]:
    def parse(text: str) -> None:
        if "/" not in text or ip_interface(text).version != (family or ip_interface(text).version):
            raise ValueError

    return parse


def _plain(family: int) -> Callable[[str], None]:
    def parse(text: str) -> None:
        if ip_address(text).version != family:
            raise ValueError

    return parse


def _mac(text: str) -> None:
    if len(bytes.fromhex(text.replace(":", ""))) != 6 or text.count(":") != 5:
        raise ValueError


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
