# SPDX-License-Identifier: Apache-2.0
"""`encap = "ipip"` between the two nodes, and then with a plain tunnel device of the kernel's in
the place of one of them.

What is found wrong is raised as AssertionError or GuestError.
"""

from __future__ import annotations

import json
import time
from ipaddress import ip_address, ip_interface, ip_network

from vm.cluster import MTU, PING, Cluster, bring_up, cross_both
from vm.node import Node

UNDERLAYS = (
    ("192.0.2.1/24", "192.0.2.2/24"),
    ("2001:db8::1/64", "2001:db8::2/64"),
)
BYTES = {4: 20, 6: 40}
"""Of the outer header, by IP version of the underlay."""
DEVICES: dict[int, dict[str, tuple[int, ...]]] = {
    4: {"ipip": (4,), "sit": (6,)},
    6: {"ip6tnl mode any": (4, 6)},
}
"""By IP version of the underlay: kinds of devices, and the versions that each carries. The kernel
has one `ip6tnl` between two addresses, which writes the option of RFC 2473 4.1.1."""
MODULES = ("ipip", "sit", "ip6_tunnel")
POD_PREFIX = {4: 24, 6: 64}
LARGE = 1300
"""Bytes of an echo request."""
MODE_SECONDS = 600.0
"""Within which nodes must have heard of each other what they accept."""


def ipip(cluster: Cluster) -> None:
    """Over both underlays: pods' MTU, all kinds of packets; then one node is a plain device. In the
    end both are nodes again."""
    for underlay in UNDERLAYS:
        for node, at in zip(cluster.nodes, underlay, strict=True):
            node.underlay = ip_interface(at)
        bring_up(cluster, again=True, encap="ipip")
        deadline = time.monotonic() + MODE_SECONDS
        while (found := [_mode(node) for node in cluster.nodes]) != ["ipip", "ipip"]:
            assert time.monotonic() < deadline, f"packets leave {found}"
        mtu = cluster.a.mtu(next(iter(cluster.a.pods)))
        assert mtu == MTU - BYTES[cluster.a.underlay.version], f"pods have an MTU of {mtu}"
        cross_both(cluster)
        with_a_device(cluster)
    bring_up(cluster, again=True)


def with_a_device(cluster: Cluster) -> None:
    """The second node is none any more: its kernel's own devices speak with the first."""
    pod = next(iter(cluster.a.pods))
    there = list(next(iter(cluster.b.pods.values())))
    cluster.b.teardown()
    for module in MODULES:
        cluster.b.guest.check(["modprobe", module])
    kinds = DEVICES[cluster.b.underlay.version]
    for number, (kind, carried) in enumerate(kinds.items()):
        inside = [one for one in there if ip_address(one).version in carried]
        _add_device(cluster, f"plain{number}", kind, inside)
    try:
        small = cluster.a.echo(pod, there, **PING)
        large = cluster.a.echo(pod, there, **PING, size=LARGE)
        back = cluster.b.echo_from_host(cluster.a.pods[pod])
        assert small == large == back == {}, f"lost {small}, large {large}, back {back}"
    finally:
        for number in range(len(kinds)):
            cluster.b.guest.check(["ip", "link", "del", f"plain{number}"])


def _add_device(cluster: Cluster, name: str, kind: str, addresses: list[str]) -> None:
    """A tunnel from the node that is none to the other one, with addresses of a pod."""
    ends = f"local {cluster.b.underlay.ip} remote {cluster.a.underlay.ip}"
    lines = [f"link add {name} type {kind} {ends}", f"link set {name} up"]
    for address in map(ip_address, addresses):
        far = next(iter(cluster.a.pods.values()))
        own = next(one for one in far if ip_address(one).version == address.version)
        behind = ip_network((own, POD_PREFIX[address.version]), strict=False)
        nodad = "nodad" if address.version == 6 else ""
        lines += [
            f"addr add {address}/{address.max_prefixlen} dev {name} {nodad}",
            f"route add {behind} dev {name} src {address}",
        ]
    for line in lines:
        cluster.b.guest.check(["ip", *line.split()])


def _mode(node: Node) -> str:
    """How packets to the other node leave."""
    listed = json.loads(node.pycni("nodes", "-o", "json").stdout)
    return next(str(one["mode"]) for one in listed if one["name"] != node.name)
