# SPDX-License-Identifier: Apache-2.0
"""Other ways out of a node than one interface with one default route, made by ip(8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pycni.lab import processes
from pycni.lab.layout import NODE_UPLINK, UNDERLAY4, UNDERLAY6, LabNode, Layout
from pycni.lab.topology import NETNS_DIR
from support.kernel import open_iproute

ROUTER, ROUTER6 = str(UNDERLAY4.ip), str(UNDERLAY6.ip)
SECOND = "eth1"
"""A node's second interface."""


def ip(netns: str, words: str) -> str:
    """ip(8) in a namespace; returns what it prints."""
    done = processes.run(netns, ["ip", *words.split()])
    assert done.returncode == 0, (words, done.stderr.decode())
    return done.stdout.decode()


@contextmanager
def second_net(layout: Layout, node: LabNode, number: int = 7) -> Iterator[str]:
    """One more interface of a node, SECOND, in a network of its own with the underlay's router:
    198.18.N.1 and .254, fd00:N::1 and ::fe. Yields the router's interface."""
    far = f"second{number}"
    with open_iproute(layout.underlay_netns) as router, (NETNS_DIR / node.netns).open() as there:
        peer = {"ifname": SECOND, "net_ns_fd": there.fileno()}
        router.link("add", ifname=far, kind="veth", peer=peer)
    ends = ((layout.underlay_netns, far, "254", "fe"), (node.netns, SECOND, "1", "1"))
    for netns, ifname, host, host6 in ends:
        ip(netns, f"link set {ifname} up")
        ip(netns, f"addr add 198.18.{number}.{host}/24 dev {ifname}")
        ip(netns, f"addr add fd00:{number}::{host6}/64 dev {ifname} nodad")
    try:
        yield far
    finally:
        ip(layout.underlay_netns, f"link del {far}")


def forget_default_routes(node: LabNode) -> None:
    """Of both versions, and all nexthop objects, with which their routes go."""
    ip(node.netns, "nexthop flush")
    ip(node.netns, "route flush default")
    ip(node.netns, "-6 route flush default")


def restore_default_routes(node: LabNode) -> None:
    """As the lab makes them."""
    forget_default_routes(node)
    ip(node.netns, f"route add default via {ROUTER} dev {NODE_UPLINK}")
    ip(node.netns, f"-6 route add default via {ROUTER6} dev {NODE_UPLINK}")
