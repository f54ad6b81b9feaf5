# SPDX-License-Identifier: Apache-2.0
"""The step of uplinks that are made of other interfaces: a VLAN of a bond, WireGuard.

What is found wrong is raised as AssertionError or GuestError.
"""

from __future__ import annotations

from vm.cluster import MTU, Cluster, bring_up, cross_both
from vm.node import UPLINK
from vm.payload import INSIDE, PYTHON

PORT, BOND = "port0", "bond7"
"""The device of the link, while another has its name, and what it is a port of."""
TUNNEL, TUNNEL_MTU = "wg0", 1420
OUTSIDE = {"node-a": "203.0.113.1", "node-b": "203.0.113.2"}
"""Addresses of the uplinks, between which the tunnel is."""
OVERHEAD = {4: 50, 6: 70}
"""Bytes of the outer headers, by IP version of the underlay."""
KEYS = (PYTHON, f"{INSIDE}/guest/wireguard.py", TUNNEL)


def uplinks(cluster: Cluster) -> None:
    """Pods of two nodes reach each other by each, in packets of all sizes; no node is left."""
    _tear_down(cluster)
    _by_vlan_of_a_bond(cluster)
    _by_wireguard(cluster)


def _by_vlan_of_a_bond(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.ip(
            f"addr flush dev {UPLINK}",
            f"link set {UPLINK} down",
            f"link set {UPLINK} name {PORT}",
            f"link add {BOND} type bond mode active-backup miimon 100",
            f"link set {PORT} master {BOND}",
            f"link set {BOND} up",
            f"link add link {BOND} name {UPLINK} type vlan id 7",
        )
    _show(cluster, "a VLAN of a bond", mtu=MTU)
    _tear_down(cluster)
    for node in cluster.nodes:
        node.ip(f"link del {BOND}", f"link set {PORT} down", f"link set {PORT} name {UPLINK}")


def _by_wireguard(cluster: Cluster) -> None:
    """The tunnel has no Ethernet header: the kernel builds VXLAN, and reads it."""
    keys = {}
    for node in cluster.nodes:
        node.ip(
            f"link set {UPLINK} up",
            f"addr flush dev {UPLINK} scope global",
            f"addr add {OUTSIDE[node.name]}/24 dev {UPLINK}",
            f"link add {TUNNEL} type wireguard",
        )
        keys[node.name] = node.guest.check(KEYS).strip()
        node.uplink = TUNNEL
    for node, other in (cluster.nodes, cluster.nodes[::-1]):
        node.guest.check([*KEYS, keys[other.name], OUTSIDE[other.name]])
    _show(cluster, "WireGuard", mtu=TUNNEL_MTU)
    _tear_down(cluster)
    for node in cluster.nodes:
        node.ip(f"link del {TUNNEL}")
        node.uplink = UPLINK


def _show(cluster: Cluster, kind: str, *, mtu: int) -> None:
    bring_up(cluster, mtu=mtu)
    for node in cluster.nodes:
        hooks = node.facts()["hooks"]
        has_program = node.uplink != TUNNEL
        assert ("from_underlay" in hooks[node.uplink]) == has_program, f"{kind}: {hooks}"
        assert not any(hooks.get(below) for below in (PORT, BOND)), f"{kind}: {hooks}"
        forwards = f"net.ipv4.conf.{node.uplink}.forwarding"
        assert node.guest.check(["sysctl", "-n", forwards]).strip() == "1", f"{kind}: {forwards}"
        pod = next(iter(node.pods))
        wanted = mtu - OVERHEAD[node.underlay.version]
        assert node.mtu(pod) == wanted, f"{kind}: pods have an MTU of {node.mtu(pod)}"
    try:
        cross_both(cluster)
    except AssertionError as error:
        raise AssertionError(f"by {kind}: {error}") from error


def _tear_down(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.teardown()
