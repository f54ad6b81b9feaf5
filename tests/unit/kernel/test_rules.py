# SPDX-License-Identifier: Apache-2.0
"""Rules of routing as bytes; the kernel takes and lists them in test_rtnl_kernel.py."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pycni.kernel import rules
from pycni.kernel.netlink import FAMILIES, attribute, number
from pycni.kernel.rules import Listed, Rule


def listed(*parts: bytes, version: int = 4, source: int = 0, destination: int = 0) -> bytes:
    header = rules.FIB_RULE_HDR.pack(
        FAMILIES[version], destination, source, 0, 254, rules.FR_ACT_TO_TBL, 0
    )
    return header + b"".join(parts)


@pytest.mark.parametrize("source", ["10.0.0.1", "fd00::1"])
def test_a_rule_is_read_as_it_was_packed(source: str) -> None:
    address = ip_address(source)

    found = rules.read_rule(rules.pack_rule(Rule(address, 500, 70000)))

    assert found == Listed(ip_network(address), None, 0, rules.FR_ACT_TO_TBL, 70000, 500)


def test_a_table_below_256_may_stand_in_the_header() -> None:
    assert rules.read_rule(listed()).table == 254
    assert rules.read_rule(listed(number(rules.FRA_TABLE, 255))).table == 255


def test_a_destination_is_a_network() -> None:
    packed = attribute(rules.FRA_DST, ip_address("10.1.0.0").packed)

    assert rules.read_rule(listed(packed, destination=16)).destination == ip_network("10.1.0.0/16")


def test_a_network_with_bits_that_are_not_compared_is_the_network() -> None:
    """As after `ip rule add from 10.1.2.3/16 to 10.4.5.6/16`: the kernel keeps such bits."""
    packed = attribute(rules.FRA_SRC, ip_address("10.1.2.3").packed)
    packed += attribute(rules.FRA_DST, ip_address("10.4.5.6").packed)

    found = rules.read_rule(listed(packed, source=16, destination=16))

    assert found.source == ip_network("10.1.0.0/16")
    assert found.destination == ip_network("10.4.0.0/16")


def test_any_source_is_none() -> None:
    assert rules.read_rule(listed()).source is None


def test_a_rule_that_is_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="attribute of"):
        rules.read_rule(rules.pack_rule(Rule(ip_address("10.0.0.1"), 500, 3))[:-2])
