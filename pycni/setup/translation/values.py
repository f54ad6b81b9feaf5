# SPDX-License-Identifier: Apache-2.0
"""Values of other plugins' keys, read and checked. All raise Unfit: what was expected."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from pycni.cluster import V4_MAPPED, IPAddress, IPNetwork
from pycni.setup.translation.finding import Unfit, kind


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit(f"must be text in quotes, not {kind(value)}")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"must be true or false, not {kind(value)}")
    return value


def number(value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unfit(f"must be a whole number, not {kind(value)}")
    if not least <= value <= most:
        raise Unfit(f"must be from {least} to {most}")
    return value


def items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unfit(f"must be a list in brackets, not {kind(value)}")
    return value


def network(value: Any) -> IPNetwork:
    """A network with its prefix length. Bits after the prefix are cleared, as Go's readers do."""
    if "/" not in text(value):
        raise Unfit("must be a network with its prefix length, such as 10.244.0.0/16")
    try:
        found = ip_network(value, strict=False)
    except ValueError:
        raise Unfit("is no network, such as 10.244.0.0/16") from None
    if found.network_address in V4_MAPPED and found.broadcast_address in V4_MAPPED:
        raise Unfit("is IPv4 in the form of IPv6: write it as IPv4, such as 10.244.0.0/16")
    return found


def address(value: Any) -> IPAddress:
    written = text(value)
    try:
        found = ip_address(written)
    except ValueError:
        raise Unfit("is no IP address, such as 10.244.0.10") from None
    if found.version == 6 and found in V4_MAPPED:
        raise Unfit(f"is IPv4 in the form of IPv6: write {found.ipv4_mapped}")
    if found.version == 6 and found.scope_id:
        raise Unfit("has a zone after %: write the address alone")
    return found
