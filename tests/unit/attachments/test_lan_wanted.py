# SPDX-License-Identifier: Apache-2.0
"""pycni/attachments/on_lan/wanted.py: what is refused without a kernel and an interface."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pycni.attachments.on_lan import wanted
from pycni.cni.netconf import parse_netconf
from pycni.errors import InvalidConfig
from pycni.node.record import Node

NODE = Node("n", 1, ip_address("192.0.2.1"), (), (ip_network("10.244.0.0/16"),), "eth0", 1450, 4789)
RANGE = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.64", "rangeEnd": "192.0.2.79"}


def refusal(**keys: Any) -> str:
    """The words of the refusal; "": it is right."""
    network = {"cniVersion": "1.0.0", "name": "lan", "device": "macvlan"}
    conf = parse_netconf(json.dumps({**network, "ipam": {"ranges": [RANGE]}, **keys}).encode())
    try:
        wanted.refuse_offline(conf, NODE)
    except InvalidConfig as error:
        return error.message
    return ""


@pytest.mark.parametrize("device", ["macvlan", "ipvlan"])
def test_a_network_with_a_range_is_right(device: str) -> None:
    assert refusal(device=device) == ""


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"ipMasq": True}, "ipMasq"),
        ({"ipam": {}}, "needs `ipam.ranges`"),
        ({"ipam": {"ranges": ["10.244.1.0/24"]}}, "not on the LAN"),
        ({"ipam": {"ranges": [RANGE | {"gateway": "x"}]}}, "ipam.ranges"),
        ({"ipam": {"ranges": [RANGE], "exclude": [1]}}, "ipam.exclude"),
        ({"mode": "l2"}, "no such mode"),
        ({"device": "ipvlan", "mode": "l3s"}, "no such mode"),
        ({"device": "ipvlan", "ipam": {"type": "dhcp"}}, "DHCP"),
    ],
)
def test_what_no_add_would_take_is_refused(keys: dict[str, Any], word: str) -> None:
    assert word in refusal(**keys)


def test_dhcp_is_for_pods_with_a_mac_of_their_own() -> None:
    assert refusal(ipam={"type": "dhcp"}) == ""
