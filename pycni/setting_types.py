# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that several tables of the settings file have, each checked as it is read."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from pycni.cluster import IPNetwork


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


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
Cidr = Annotated[IPNetwork, BeforeValidator(_cidr)]
