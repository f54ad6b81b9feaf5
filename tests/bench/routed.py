# SPDX-License-Identifier: Apache-2.0
"""Two nodes as flannel's vxlan backend makes them: pods on a bridge, and for the other node a
route, a neighbour entry and an FDB entry on a kernel vxlan device.

After the backend's own description (flannel, Documentation/backends.md, and pkg/backend/vxlan):
device `flannel.1`, VNI 1, UDP port 8472, no learning. flannel's and kube-proxy's netfilter rules
are left out: they would only make it slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from bench.wires import add_veth, find, open_iproute, set_address, set_up
from pycni.kernel import namespaces, sysctl
from pycni.lab.layout import NODE_UPLINK
from pycni.lab.topology import NETNS_DIR

DEVICE, BRIDGE = "flannel.1", "cni0"
VNI, PORT = 1, 8472
MTU = 1450
NUD_PERMANENT = 0x80


@dataclass(frozen=True)
class Node:
    """`netns` and `pod_netns` are names of namespaces."""

    netns: str
    pod_netns: str
    number: int
    underlay: IPv4Address

    @property
    def pod_cidr(self) -> str:
        return f"10.42.{self.number}.0/24"

    @property
    def vtep(self) -> IPv4Address:
        """The address of the vxlan device, next hop of the other node's route."""
        return IPv4Address(f"10.42.{self.number}.0")

    @property
    def gateway(self) -> IPv4Address:
        return self.vtep + 1

    @property
    def pod(self) -> IPv4Interface:
        return IPv4Interface(f"{self.vtep + 2}/24")


def build(nodes: tuple[Node, Node]) -> None:
    """All of both nodes; their namespaces have uplinks with their underlay addresses."""
    macs = [_add_device(node) for node in nodes]
    for node in nodes:
        _add_pod(node)
    for node, other, mac in ((nodes[0], nodes[1], macs[1]), (nodes[1], nodes[0], macs[0])):
        _add_route(node, other, mac)
        _enable_forwarding(node)


def _add_device(node: Node) -> str:
    """Returns its MAC."""
    with open_iproute(node.netns) as ipr:
        ipr.link(
            "add", ifname=DEVICE, kind="vxlan", vxlan_id=VNI, vxlan_port=PORT,
            vxlan_local=str(node.underlay), vxlan_link=find(ipr, NODE_UPLINK),
            vxlan_learning=False, mtu=MTU,
        )  # fmt: skip
        index = find(ipr, DEVICE)
        set_up(ipr, index)
        ipr.addr("add", index=index, address=str(node.vtep), prefixlen=32)
        (link,) = ipr.get_links(index)
        return str(link.get("address"))


def _add_pod(node: Node) -> None:
    with open_iproute(node.netns) as ipr:
        ipr.link("add", ifname=BRIDGE, kind="bridge", mtu=MTU)
        bridge = find(ipr, BRIDGE)
        set_up(ipr, bridge)
        ipr.addr("add", index=bridge, address=str(node.gateway), prefixlen=24)
    add_veth(node.netns, "pod", node.pod_netns, mtu=MTU, bridge=bridge)
    set_address(node.pod_netns, node.pod)
    with open_iproute(node.pod_netns) as ipr:
        ipr.route("add", dst="default", gateway=str(node.gateway))


def _add_route(node: Node, other: Node, mac: str) -> None:
    with open_iproute(node.netns) as ipr:
        index = find(ipr, DEVICE)
        ipr.neigh("add", dst=str(other.vtep), lladdr=mac, ifindex=index, state=NUD_PERMANENT)
        ipr.fdb("append", ifindex=index, lladdr=mac, dst=str(other.underlay))
        ipr.route("add", dst=other.pod_cidr, gateway=str(other.vtep), oif=index, flags=["onlink"])


def _enable_forwarding(node: Node) -> None:
    with (NETNS_DIR / node.netns).open() as namespace:
        namespaces.inside(namespace.fileno(), lambda: sysctl.write("net/ipv4/ip_forward", "1"))
