# SPDX-License-Identifier: Apache-2.0
"""pycni/attachments/on_lan/wanted.py: what is refused without a kernel and an interface."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pycni import locks
from pycni.attachments.on_lan import wanted
from pycni.cni.netconf import parse_netconf
from pycni.errors import InvalidConfig
from pycni.kernel.children import IPVLAN_MODE_L2, IPVLAN_MODE_L3
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.lan import leases
from pycni.lan.devices import DEVICES
from pycni.lan.leases import LanLease
from pycni.names import AttachmentKey
from pycni.node.record import Node
from pycni.settings import Settings

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


PARENT = Link(3, ifname="eth0", kind="veth")
HELD = LanLease("net", "c1", "eth0", "ipvlan", "l2", "eth0", netnsid=0, ifindex=2)


class Kernel:
    """Answers for the link of one pod, and with the node's links."""

    def __init__(self, *links: Link, alive: bool = True) -> None:
        self._links, self._alive = links, alive

    def link_at(self, _: int, *, netnsid: int) -> Link | None:
        return Link(2, alias=HELD.alias) if self._alive and netnsid == 0 else None

    def link(self, ifname: str) -> Link | None:
        return next((link for link in self._links if link.ifname == ifname), None)

    def links(self) -> list[Link]:
        return list(self._links)


def mixed(kernel: Kernel, device: str, mode: str, run_dir: Path) -> str:
    """The words of the refusal; "": there is none."""
    key = AttachmentKey("net", "c2", "eth0")
    call: Any = SimpleNamespace(settings=Settings(run_dir=run_dir), key=key)
    try:
        wanted.refuse_mixed(cast(Rtnl, kernel), call, PARENT, device=DEVICES[device], mode=mode)
    except InvalidConfig as error:
        return error.message
    return ""


def test_pods_of_one_name_on_two_nodes_have_two_macs() -> None:
    macs = {wanted.own_mac(HELD.key, node) for node in ("node1", "node2")}

    assert len(macs) == 2
    assert all(mac.startswith("02:") for mac in macs)


def test_an_interface_has_pods_of_one_kind_and_mode(tmp_path: Path) -> None:
    leases.write(tmp_path, HELD)

    assert mixed(Kernel(), "ipvlan", "l2", tmp_path) == ""
    assert "on ipvlan in mode l2" in mixed(Kernel(), "ipvlan", "l3", tmp_path)
    assert "on ipvlan in mode l2" in mixed(Kernel(), "macvlan", "bridge", tmp_path)
    assert mixed(Kernel(alive=False), "macvlan", "bridge", tmp_path) == ""


def test_of_two_adds_at_work_the_second_sees_the_first(tmp_path: Path) -> None:
    pending = replace(HELD, ifindex=0)
    leases.write(tmp_path, pending)

    killed = mixed(Kernel(), "ipvlan", "l3", tmp_path)
    with locks.attachment_lock(tmp_path, pending.key.digest):
        at_work = mixed(Kernel(), "ipvlan", "l3", tmp_path)

    assert killed == ""
    assert "on ipvlan in mode l2" in at_work


@pytest.mark.parametrize(
    ("link", "word"),
    [
        (Link(9, ifname="ipvl0", peer_ifindex=3, ipvlan_mode=IPVLAN_MODE_L3), "another mode"),
        (Link(9, ifname="ipvl0", peer_ifindex=3, ipvlan_mode=IPVLAN_MODE_L2), ""),
        (Link(9, ifname="ipvl0", peer_ifindex=4, ipvlan_mode=IPVLAN_MODE_L3), ""),
        (Link(9, ifname="veth0", peer_ifindex=3), ""),
    ],
)
def test_ipvlan_links_of_others_have_the_same_mode(link: Link, word: str, tmp_path: Path) -> None:
    found = mixed(Kernel(link), "ipvlan", "l2", tmp_path)

    assert word in found
    assert bool(found) == bool(word)
