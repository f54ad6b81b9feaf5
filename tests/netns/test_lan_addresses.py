# SPDX-License-Identifier: Apache-2.0
"""Addresses of pods on the LAN: of ranges, asked for, given by others, and never a host's own."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from netns.test_dhcp import Dhcp, served
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, POD_IFNAME, UNDERLAY4, Pod
from pycni.lab.topology import open_rtnl
from support import labs
from support.flood import unanswered
from support.lan import (
    AMONG_NEIGHBOURS,
    EXHAUSTED,
    HOST_LOCAL,
    RANGES,
    ROUTERS,
    UNAVAILABLE,
    add,
    call,
    lease_files,
    node_of,
    own_addresses,
)
from support.plugin import Reply, execute
from support.waiting import wait_until


def test_a_pod_gets_the_address_that_it_asks_for_unless_another_has_it(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    asked = {"runtimeConfig": {"ips": ["198.18.0.70", "fd00:99::46"]}}

    added = add(lab, one, macvlan, **asked)
    second = call(lab, beside, "ADD", macvlan, **asked)

    assert added.addresses == ["198.18.0.70", "fd00:99::46"]
    assert (second.document["code"], one.name in second.text) == (UNAVAILABLE, True)


@pytest.fixture
def host_on_lan(lab: Lab) -> Iterator[dict[str, str]]:
    """A host of the LAN with the first addresses of the first node's ranges; its MAC by address."""
    ranges = RANGES[lab.layout.nodes[0].name]
    addresses = [ip_address(one["rangeStart"]) for one in ranges]
    with open_rtnl(lab.layout.underlay_netns) as ipr:
        bridge = ipr.link(BRIDGE)
        assert bridge is not None
        for address in addresses:
            ipr.add_address(bridge.ifindex, address)
        yield {str(address): bridge.mac for address in addresses}
        for address in addresses:
            ipr.delete_address(bridge.ifindex, address, prefixlen=address.max_prefixlen)


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_an_address_that_a_host_of_the_lan_has_is_left_to_it(
    lab: Lab, pods: list[Pod], way: dict[str, Any], host_on_lan: dict[str, str]
) -> None:
    one, beside, _ = pods
    first = {
        "ipam": {"ranges": [one_range | {"rangeEnd": one_range["rangeStart"]}
                            for one_range in RANGES[one.node]]}
    }  # fmt: skip

    added = [add(lab, pod, way) for pod in (one, beside)]
    with labs.made_pod(lab, node_of(lab, one)) as third:
        narrow = call(lab, third, "ADD", way, **first)
        wanted = call(lab, third, "ADD", way, runtimeConfig={"ips": list(host_on_lan)})

    given = {address for reply in added for address in reply.addresses}
    assert not given & set(host_on_lan)
    for reply in (narrow, wanted):
        assert reply.document["code"] == UNAVAILABLE, reply.text
        for address, mac in host_on_lan.items():
            assert f"{address} by {mac}" in reply.text


def test_another_nodes_pod_is_a_host_of_the_lan_too(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, _, far = pods
    added = add(lab, one, macvlan)

    other = call(
        lab,
        far,
        "ADD",
        macvlan,
        ipam={"ranges": RANGES[one.node]},
        runtimeConfig={"ips": added.addresses},
    )

    with open_rtnl(one.netns) as pod:
        link = pod.link(POD_IFNAME)
    assert link is not None
    assert (other.document["code"], link.mac in other.text) == (UNAVAILABLE, True), other.text


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_nodes_share_a_range_by_their_places(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, far = pods
    network = str(UNDERLAY4.network)
    shared = {"subnet": network, "rangeStart": "198.18.0.130", "rangeEnd": "198.18.0.133"}
    ipam = {"ranges": [shared], "perNode": 2}

    given = [add(lab, pod, way, ipam=ipam).addresses for pod in (one, beside, far)]
    with labs.made_pod(lab, node_of(lab, one)) as third:
        full = call(lab, third, "ADD", way, ipam=ipam)

    first, second = (
        {int(ip_address(a)) & 0xFF for (a,) in part} for part in (given[:2], given[2:])
    )
    parts = ({130, 131}, {132, 133})
    assert first in parts
    assert second <= (parts[0] | parts[1]) - first
    assert full.document["code"] == EXHAUSTED, full.text


def test_another_plugin_may_give_the_addresses(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    if not HOST_LOCAL.exists():
        pytest.skip(f"missing: {HOST_LOCAL} (apt install containernetworking-plugins)")
    one, beside, _ = pods
    node = node_of(lab, one)
    ipam = {
        "type": "host-local",
        "ranges": [[RANGES[one.node][0]]],
        "routes": [{"dst": "0.0.0.0/0", "gw": ROUTERS[0]}],
        "dataDir": str(node.directory / "host-local"),
    }
    env = {"CNI_PATH": str(HOST_LOCAL.parent)}

    def called(pod: Pod, command: str, **more: Any) -> Reply:
        config = macvlan | {"ipMasq": False, "ipam": ipam} | more
        return execute(lab, pod, command, env=env, **config)

    first, second = called(one, "ADD"), called(beside, "ADD")
    reached = unanswered(lab, one.netns, [*second.addresses, ROUTERS[0]])
    checked = called(one, "CHECK", prevResult=first.document)
    ended = [called(pod, "DEL") for pod in (one, beside)]

    assert (reached, checked.status) == ([], 0), checked.text
    assert [reply.status for reply in ended] == [0, 0]
    assert list((node.directory / "state" / "delegated").glob("*.json")) == []


@pytest.fixture
def dhcp(lab: Lab, tmp_path: Path) -> Iterator[Dhcp]:
    """A DHCP server of the LAN, on its router, and the daemon of the `dhcp` plugin on node 1."""
    node = lab.layout.nodes[0]
    ranged = "198.18.0.160", "198.18.0.170", str(UNDERLAY4.netmask)
    with served(node, tmp_path, at=lab.layout.underlay_netns, on=BRIDGE, ranged=ranged) as found:
        yield found


def test_a_pod_may_ask_the_lan_by_dhcp(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], dhcp: Dhcp
) -> None:
    one, *_ = pods
    node = node_of(lab, one)

    def called(command: str, **more: Any) -> Reply:
        config = macvlan | {"ipMasq": False, "ipam": dhcp.conf()} | more
        return execute(lab, one, command, env={"CNI_PATH": str(HOST_LOCAL.parent)}, **config)

    added = called("ADD")
    assert added.status == 0, added.text
    (address,) = added.addresses
    leased = dhcp.leased()
    reached = unanswered(lab, node.netns, [address])
    out = unanswered(lab, one.netns, [ROUTERS[0], own_addresses(node)[0]])
    checked = called("CHECK", prevResult=added.document)
    ended = called("DEL")

    assert list(leased.values()) == [address]
    assert (reached, out) == ([], [])
    assert (checked.status, ended.status) == (0, 0), checked.text
    assert lease_files(node) == []
    wait_until(lambda: dhcp.leased() == {}, "the server has the address again")
