# SPDX-License-Identifier: Apache-2.0
"""Two nodes and a router between them whose link to them can be narrower than theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pycni.kernel import nft
from pycni.kernel.routes import Route
from pycni.lab import checks
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK, LabNode, Pod
from pycni.lab.topology import open_rtnl
from pycni.node.path_mtus import PathMtus, look
from pycni.settings import load
from support.flows import answering, ask, pumping
from support.kernel import open_iproute
from support.labs import rows, within
from support.matrix import OVERHEAD, Surroundings, surrounded
from support.underlay import FORWARDING, ROUTERS, write_parameters
from support.waiting import wait_until

WIDE, NARROW = 1500, 1400
"""MTU of the nodes' links, and of the router's to them."""
FORGETTING = {"net/ipv4/route/mtu_expires": "3", "net/ipv6/route/mtu_expires": "3"}
"""Seconds for which pods remember a path's MTU: each test begins with pods that know nothing."""
PRIORITY = 7
"""Of the nodes' routes to each other. Routes that differ in nothing but the destination share what
the kernel learns of their paths, and the default route leads to the same router."""
LINK_SCOPE = 253
"""RT_SCOPE_LINK, linux/rtnetlink.h."""


@dataclass(frozen=True)
class Routed:
    """Two nodes, each with a pod, that reach each other by a router only."""

    lab: Lab
    underlay: int
    """IP version of the VTEPs."""
    overhead: int
    """Bytes of the headers between nodes."""

    @property
    def source(self) -> Pod:
        return self.lab.layout.pods[0]

    @property
    def target(self) -> Pod:
        return self.lab.layout.pods[1]

    @property
    def near(self) -> LabNode:
        return self.lab.layout.nodes[0]

    @property
    def far(self) -> LabNode:
        return self.lab.layout.nodes[1]

    @property
    def fitting(self) -> int:
        """Bytes of a pod's packet that fit the narrow path."""
        return NARROW - self.overhead

    def vtep(self, node: LabNode) -> str:
        return str(next(one.ip for one in node.underlay if one.version == self.underlay))

    def pod_address(self, family: int) -> str:
        """The second pod's."""
        found = self.lab.addresses(self.target)
        return next(one for one in found if ip_address(one).version == family)

    def set_path(self, mtu: int) -> None:
        """Between the nodes. They know nothing of it yet."""
        with open_rtnl(self.lab.layout.underlay_netns) as ipr:
            bridge = ipr.ifindex(BRIDGE)
            for node in (self.near, self.far):
                to = ip_network(self.vtep(node))
                ipr.replace_route(Route(to, bridge, scope=LINK_SCOPE, mtu=mtu, mtu_locked=True))
        for node, other in ((self.near, self.far), (self.far, self.near)):
            with open_rtnl(node.netns) as ipr:
                to = ip_network(self.vtep(other))
                route = Route(
                    to, ipr.ifindex(NODE_UPLINK), ROUTERS[self.underlay], priority=PRIORITY
                )
                if any(one.dst == to for one in ipr.routes()):
                    ipr.delete_route(route)  # and with it what the kernel learnt of the path
                ipr.add_route(route)
        wait_until(lambda: not self.narrow(self.near), "all paths of the one node are wide")
        wait_until(lambda: not self.narrow(self.far), "all paths of the other node are wide")
        known = [*self.lab.addresses(self.target), self.vtep(self.far)]
        wait_until(lambda: not any(learnt_mtu(self.source, to) for to in known), "the pod forgot")

    def narrow(self, node: LabNode) -> dict[str, int]:
        """The node's map `path_mtus`."""
        return {row["vtep"]: row["mtu"] for row in rows(self.lab, node, "path_mtus")}

    def looked(self) -> PathMtus:
        """What map and routes of the first node hold."""
        settings = load(self.near.settings_path)
        return within(self.near.netns, lambda: look(settings))

    def bulk(self, source: str, target: str, to: str) -> None:
        """Between two namespaces; fails unless much of it arrives."""
        with pumping(source, target, to) as send:
            assert send() is not None

    def fill(self) -> None:
        """So that the first node knows what the path carries."""
        self.bulk(self.source.netns, self.target.netns, self.pod_address(4))

    def told(self, family: int) -> int:
        """What the first pod has learnt of the path to the second one, when it has sent more than
        fits."""
        to, size = self.pod_address(family), pods_mtu(self.underlay) - checks.ICMP_HEADERS[family]

        def ping() -> None:
            words = ("--size", str(size), "--dont-fragment", "--count", "1", "--grace", "0.1")
            self.lab.peer(self.source.netns, "echo", to, *words)

        ping()  # the router answers this one, and the node takes it in
        known = {self.vtep(self.far): self.fitting}
        wait_until(lambda: self.narrow(self.near) == known, "the path is known")
        ping()
        return learnt_mtu(self.source, to)

    def check_cut_datagrams(self, netns: str, to: str) -> None:
        """The pod's arrive whole: one that nobody has cut yet, and a pod's fragments."""
        with answering(netns, to) as (port, heard):
            for size in (NARROW - 28, 5000):
                ask(self.source.netns, to, port, size=size)

                assert heard()["size"] == size


@contextmanager
def routed_by(underlay: int, overhead: int) -> Iterator[Routed]:
    """Such nodes, on a path as wide as their links. Pods forget soon what they learn."""
    with surrounded(Surroundings(underlay, WIDE)) as lab:
        within(lab.layout.underlay_netns, lambda: write_parameters(FORWARDING))
        for pod in lab.layout.pods:
            within(pod.netns, lambda: write_parameters(FORGETTING))
        made = Routed(lab, underlay, overhead)
        made.set_path(WIDE)
        yield made


@contextmanager
def strict_firewall(node: LabNode) -> Iterator[None]:
    """Drops what connection tracking calls invalid, as ufw does, before it accepts routers'
    errors."""
    rules = "type filter hook input priority 0; ct state related accept; ct state invalid drop;"
    table = f"table inet others {{ chain incoming {{ {rules} }}; }}"
    within(node.netns, lambda: nft.run(table, what="a firewall"))
    try:
        yield
    finally:
        within(node.netns, lambda: nft.delete_table("others", what="a firewall"))


def pods_mtu(underlay: int) -> int:
    """Of pods that were made while nodes sent VXLAN."""
    return WIDE - OVERHEAD[underlay]


def learnt_mtu(pod: Pod, address: str) -> int:
    """The path MTU that a pod's kernel knows for an address; 0 if none."""
    with open_iproute(pod.netns) as ipr:
        (route,) = ipr.route("get", dst=address)
        metrics = route.get("RTA_METRICS")
        return int(metrics.get("RTAX_MTU") or 0) if metrics is not None else 0
