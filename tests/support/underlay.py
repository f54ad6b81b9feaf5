# SPDX-License-Identifier: Apache-2.0
"""The underlay of a lab as an attacker or another host uses it: frames by hand, further links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from pycni.cluster import IPAddress
from pycni.kernel import sysctl
from pycni.lab import processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK, UNDERLAY4, UNDERLAY6, LabNode
from pycni.names import GATEWAY_MAC, OVERLAY_MAC
from support.flows import send_frames
from support.kernel import open_iproute
from support.labs import within

VNI, PORT = 7, 4789
STRANGER_MAC = "02:00:00:00:00:66"
ROUTERS: dict[int, IPAddress] = {4: UNDERLAY4.ip, 6: UNDERLAY6.ip}
FORWARDING = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    f"net/ipv4/conf/{BRIDGE}/send_redirects": "0",
}
"""Of the underlay's namespace, if it is to be a router between nodes."""


def ip(netns: str, *words: object) -> None:
    """ip(8) in a namespace of a lab."""
    done = processes.run(netns, ["ip", *map(str, words)])
    assert done.returncode == 0, done.stderr.decode()


def write_sysctl(netns: str, name: str, value: object) -> None:
    """A kernel parameter in a namespace of a lab, which must be there; `name` with slashes."""

    def written() -> str | None:
        sysctl.write(name, str(value))
        return sysctl.read(name)

    assert within(netns, written) == str(value), name


def write_parameters(parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        sysctl.write(name, value)


def mac(netns: str, ifname: str) -> str:
    """The MAC of an interface."""
    with open_iproute(netns) as ipr:
        (link,) = ipr.get_links(ifname=ifname)
        return str(link.get("IFLA_ADDRESS"))


def vxlan(packet: Packet, *, vni: int = VNI) -> Packet:
    """UDP and what the overlay puts around a pod's packet."""
    inner = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / packet
    return UDP(sport=50000, dport=PORT, chksum=0) / VXLAN(vni=vni, flags="Instance") / inner


def send_by_stranger(lab: Lab, node: LabNode, packets: list[Packet], *, ifname: str = "") -> None:
    """IP packets to the uplink of a node, or to another interface of it that has a link to the
    underlay's namespace, from a host that is no node."""
    target = mac(node.netns, ifname or NODE_UPLINK)
    frames = [bytes(Ether(src=STRANGER_MAC, dst=target) / packet) for packet in packets]
    send_frames(lab.layout.underlay_netns, far_end(ifname) if ifname else BRIDGE, frames)


def send_by_node(source: LabNode, target: LabNode, packets: list[Packet]) -> None:
    """IP packets from the uplink of a node past that node's own stack."""
    head = Ether(src=mac(source.netns, NODE_UPLINK), dst=mac(target.netns, NODE_UPLINK))
    send_frames(source.netns, NODE_UPLINK, [bytes(head / packet) for packet in packets])


@contextmanager
def second_link(lab: Lab, node: LabNode, ifname: str, *, bridge: bool = False) -> Iterator[None]:
    """One more interface of a node, with a link to the underlay's namespace; as the port of a
    bridge of the name `ifname`, if it is to be one."""
    far = far_end(ifname)
    near = f"{ifname}p" if bridge else ifname
    ip(lab.layout.underlay_netns, "link", "add", far, "type", "veth", "peer", "name", near,
       "netns", topology.NETNS_DIR / node.netns)  # fmt: skip
    try:
        ip(lab.layout.underlay_netns, "link", "set", far, "up")
        if bridge:
            ip(node.netns, "link", "add", ifname, "type", "bridge")
            ip(node.netns, "link", "set", near, "master", ifname)
            ip(node.netns, "link", "set", ifname, "up")
        ip(node.netns, "link", "set", near, "up")
        yield
    finally:
        ip(lab.layout.underlay_netns, "link", "del", far)
        if bridge:
            ip(node.netns, "link", "del", ifname)


def far_end(ifname: str) -> str:
    """The other end of a link that `second_link` made."""
    return f"{ifname}f"
