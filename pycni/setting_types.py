# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that several tables of the settings file have, each checked as it is read."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from pycni.cluster import IPAddress, IPNetwork, is_routable


def _own_address(value: object) -> object:
    if value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("must be an IP address in quotes, or empty")
    try:
        address = ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address, or empty") from None
    if not is_routable(address):
        raise ValueError("must be an address other nodes can reach")
    return address


def _link_local(value: object) -> object:
    try:
        address = ip_address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if not isinstance(address, IPv4Address) or not address.is_link_local:
        raise ValueError("must be an IPv4 link-local address, such as '169.254.169.254'")
    return address


def _cidr(value: object) -> object:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError("must be a network with its prefix length, such as '10.244.0.0/16'")
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is no network such as '10.244.0.0/16' or 'fd00:10:244::/56'") from None
    if str(network.network_address) != str(ip_address(value.partition("/")[0])):
        raise ValueError(f"has bits set after its prefix; did you mean '{network}'?")
    return network


def _absolute(value: object) -> object:
    if not isinstance(value, (str, Path)) or not Path(value).is_absolute():
        raise ValueError("must be an absolute path in quotes")
    return value


def _absolute_or_none(value: object) -> object:
    return None if value in ("", None) else _absolute(value)


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
OptionalPath = Annotated[Path | None, BeforeValidator(_absolute_or_none)]
Cidr = Annotated[IPNetwork, BeforeValidator(_cidr)]
LinkLocal = Annotated[IPv4Address, BeforeValidator(_link_local)]
OwnAddress = Annotated[IPAddress | None, BeforeValidator(_own_address)]
"""One that other nodes can send to; None for an empty text."""
