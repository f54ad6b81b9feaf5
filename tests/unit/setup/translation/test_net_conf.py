# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/net_conf.py: the configuration of flannel's daemon."""

from __future__ import annotations

from typing import Any

import pytest

from unit.setup.translation.samples import NET_CONF, finding, result


def test_a_net_conf_becomes_settings_alone() -> None:
    done = result(NET_CONF)

    assert done.refused == []
    assert done.settings == 'cluster_cidrs = ["10.244.0.0/16"]\nencap = "auto"\n'
    assert done.network is None


def test_both_families_and_lengths_go_on() -> None:
    document = NET_CONF | {"EnableIPv6": True, "IPv6Network": "2001:cafe:42::/56",
                           "SubnetLen": 25, "IPv6SubnetLen": 65}  # fmt: skip

    done = result(document)

    assert 'cluster_cidrs = ["10.244.0.0/16", "2001:cafe:42::/56"]' in done.settings
    assert "node_prefix = {ipv4 = 25, ipv6 = 65}" in done.settings


def test_a_small_network_is_divided_as_flannel_does() -> None:
    done = result(NET_CONF | {"Network": "10.244.0.0/24"})

    assert "node_prefix = {ipv4 = 26}" in done.settings
    assert "ipv4 = 28" in result(NET_CONF | {"Network": "10.1.0.0/24", "SubnetLen": 28}).settings


@pytest.mark.parametrize(
    ("keys", "key", "fate", "says"),
    [
        ({"IPv6Network": "fd00::/56"}, "IPv6Network", "not needed", "EnableIPv6 is not true"),
        ({"EnableIPv4": False}, "Network", "not needed", "EnableIPv4 is not true"),
        ({"EnableIPv6": True}, "EnableIPv6", "refused", "IPv6Network is missing"),
        ({"EnableIPv6": False}, "EnableIPv6", "not needed", "cluster_cidrs"),
        ({"EnableIPv6": 1}, "EnableIPv6", "refused", "true or false"),
        ({"Network": "fd00::/56"}, "Network", "refused", "a network of IPv4"),
        ({"Network": "::ffff:10.0.0.0/112"}, "Network", "refused", "write it as IPv4"),
        ({"Network": 10}, "Network", "refused", "text in quotes"),
        ({"SubnetLen": "24"}, "SubnetLen", "refused", "whole number"),
        ({"SubnetLen": 33}, "SubnetLen", "refused", "from 1 to 32"),
        ({"SubnetMin": "10.244.1.0"}, "SubnetMin", "refused", "smaller network"),
        ({"IPv6SubnetMax": "fd00::"}, "IPv6SubnetMax", "refused", "smaller network"),
        ({"EnableNFTables": True}, "EnableNFTables", "not needed", "nftables"),
        ({"Networks": "x"}, "Networks", "refused", "did you mean network"),
        ({"Backend": []}, "Backend", "refused", "an object in braces"),
    ],
)
def test_a_key_of_net_conf(keys: dict[str, Any], key: str, fate: str, says: str) -> None:
    found = finding(NET_CONF | keys, key)

    assert found.fate == fate
    assert says in found.says


@pytest.mark.parametrize(
    ("keys", "key", "fate", "says"),
    [
        ({"Type": "vxlan"}, "Type", "becomes", 'encap = "auto"'),
        ({"Type": "host-gw"}, "Type", "becomes", 'encap = "direct"'),
        ({"Type": "ipip"}, "Type", "becomes", 'encap = "ipip"'),
        ({"Type": "ipvlan"}, "Type", "refused", '"Type": "vxlan"'),
        ({"Type": "udp"}, "Type", "refused", "knows no 'udp'"),
        ({"Type": "wireguard"}, "Type", "refused", "knows no 'wireguard'"),
        ({"Type": 3}, "Type", "refused", "text in quotes"),
        ({}, "Type", "refused", "which means udp"),
        ({"Type": "vxlan", "VNI": 1}, "VNI", "becomes", "vni = 1"),
        ({"Type": "vxlan", "VNI": 0}, "VNI", "refused", "from 1"),
        ({"Type": "vxlan", "Port": 8472}, "Port", "becomes", "port = 8472"),
        ({"Type": "vxlan", "Port": 0}, "Port", "not needed", "none"),
        ({"Type": "vxlan", "Port": 65536}, "Port", "refused", "to 65535"),
        ({"Type": "vxlan", "MTU": 0}, "MTU", "not needed", "uplink"),
        ({"Type": "vxlan", "MTU": 1400}, "MTU", "refused", "50 bytes less"),
        ({"Type": "vxlan", "DirectRouting": False}, "DirectRouting", "not needed", "VXLAN"),
        ({"Type": "vxlan", "DirectRouting": True}, "DirectRouting", "becomes", "auto-direct"),
        ({"Type": "vxlan", "GBP": True}, "GBP", "refused", "group"),
        ({"Type": "vxlan", "GBP": False}, "GBP", "not needed", "group"),
        ({"Type": "vxlan", "Learning": True}, "Learning", "not needed", "store"),
        ({"Type": "vxlan", "MacPrefix": "0E-2A"}, "MacPrefix", "not needed", "MAC"),
        ({"Type": "vxlan", "PSK": "x"}, "PSK", "refused", "unknown key"),
    ],
)
def test_a_key_of_a_backend(keys: dict[str, Any], key: str, fate: str, says: str) -> None:
    found = finding(NET_CONF | {"Backend": keys}, f"Backend.{key}")

    assert found.fate == fate
    assert says in found.says


def test_vxlan_with_direct_routing_is_one_setting() -> None:
    found = result(NET_CONF | {"Backend": {"Type": "vxlan", "DirectRouting": True}})

    assert not found.refused
    assert 'encap = "auto-direct"' in found.settings


@pytest.mark.parametrize(
    "document",
    [
        {"Backend": {"Type": "vxlan"}},
        {"Network": "10.244.0.0/16", "EnableIPv4": False, "Backend": {"Type": "vxlan"}},
        {"IPv6Network": "fd00::/56", "Backend": {"Type": "vxlan"}},
    ],
)
def test_a_net_conf_without_a_network_is_refused(document: dict[str, Any]) -> None:
    (found,) = result(document).refused

    assert found.value is None
    assert "pods have no network" in found.says


def test_without_a_backend_flannel_speaks_udp() -> None:
    assert "which means udp" in finding({"Network": "10.244.0.0/16"}, "Backend").says
