# SPDX-License-Identifier: Apache-2.0
"""Two nodes on one link, and a third one behind a router, all with agents and pods."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from pycni.dataplane import dumps
from pycni.kernel.routes import Route
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import NODE_UPLINK, LabNode, Pod
from pycni.lab.topology import open_rtnl
from pycni.node import next_hops, report
from pycni.settings import load
from pycni.stores import DIRECT
from support.flood import unanswered
from support.labs import drops, prepared_lab, start, within, write_settings
from support.underlay import FORWARDING, ROUTERS, write_parameters
from support.waiting import wait_until

SEND_DIRECTLY = ("direct", "auto-direct")
"""Values of `encap`."""
UNDERLAYS = (4, 6) if os.environ.get("PYCNI_MATRIX") == "whole" else (4,)


@dataclass(frozen=True)
class Nodes:
    """Three nodes: one has two pods, the others one each at least."""

    lab: Lab
    underlay: int

    @property
    def one(self) -> LabNode:
        return self.lab.layout.nodes[0]

    @property
    def two(self) -> LabNode:
        return self.lab.layout.nodes[1]

    @property
    def routed(self) -> LabNode:
        return self.lab.layout.nodes[2]

    def vtep(self, node: LabNode) -> str:
        return self.own(node, self.underlay)

    def pod(self, pod: Pod, family: int) -> str:
        return next(one for one in self.lab.addresses(pod) if ip_address(one).version == family)

    def modes(self, node: LabNode) -> dict[str, str]:
        """How packets leave to the other nodes, by VTEP."""
        found = next_hops.modes(load(node.settings_path))
        return {str(vtep): mode for vtep, mode in found.items()}

    def wait_for_modes(self, mode: str, *, routed: str = "") -> None:
        """Until the two nodes on one link send to each other so; and node one, and the node behind
        the router, as `routed` says, if that is not empty."""
        one, two, three = (self.vtep(node) for node in self.lab.layout.nodes)
        want = [(self.one, two, mode), (self.two, one, mode)]
        if routed:
            want += [(self.one, three, routed), (self.routed, one, routed)]

        def ready() -> bool:
            unanswered(self.lab, self.one.netns, (two, three), count=1)
            return all(self.modes(node).get(vtep) == found for node, vtep, found in want)

        wait_until(ready, f"packets on the link leave {mode}, by the router {routed or mode}")

    def wait_for_answers(self) -> None:
        """Until the other nodes have answered node one, through the overlay."""

        def answered() -> bool:
            told = report.read_table(load(self.one.settings_path), report.PEERS)
            return [row["forwards"] for row in told.values()] == [True, True]

        wait_until(answered, "both other nodes answered through the overlay")

    def forwarded(self, node: LabNode) -> Counter[str]:
        """Packets so far, by program and path."""
        counts = Counter[str]()
        for row in dumps.dump(load(node.settings_path).pin_root, "forwarded")[0]:
            counts[f"{row['program']} {dumps.spelled(row['path'])}"] += row["packets"]
        return counts

    def left_directly(self, node: LabNode) -> int:
        """Packets that left without VXLAN so far."""
        found = self.forwarded(node)
        return found["from_container DIRECT"] + found["to_overlay DIRECT"]

    def own(self, node: LabNode, family: int) -> str:
        """The node's own address on the link."""
        return next(str(one.ip) for one in node.underlay if one.version == family)

    def dropped_by(self, *programs: str) -> Counter[str]:
        """What programs of node one, and its guard (nft), dropped so far, by reason."""
        counts = Counter[str]()
        for (reason, program), packets in drops(self.lab, self.one).items():
            if program in programs:
                counts[reason] += packets
        return counts

    @contextmanager
    def without_agents(self, *nodes: LabNode) -> Iterator[None]:
        """Entered when nobody vouches for the next hops of node one any more."""
        for node in nodes:
            self.lab.stop_agent(node)
        try:
            settings = load(self.one.settings_path)
            wait_until(lambda: not next_hops.is_fresh(settings), "nobody vouches for next hops")
            yield
        finally:
            for node in nodes:
                self.lab.start_agent(node)
                cluster.wait_for_agent(self.lab, node)


@contextmanager
def nodes_on_link(underlay: int, *, encap: str = "direct", **settings: Any) -> Iterator[Nodes]:
    """Nodes on the link send each other what `encap` lets them by the time this is entered."""
    with prepared_lab(nodes=3, pods=2, encap=encap, **settings) as lab:
        made = Nodes(lab, underlay)
        within(lab.layout.underlay_netns, lambda: write_parameters(FORWARDING))
        for node in lab.layout.nodes:
            write_settings(node, vtep=made.vtep(node))
        for node in (made.one, made.two):
            for here, there in ((node, made.routed), (made.routed, node)):
                route_by_router(made, here, there)
        start(lab)
        if encap in SEND_DIRECTLY:
            made.wait_for_modes(DIRECT)
        yield made


def route_by_router(nodes: Nodes, here: LabNode, there: LabNode) -> None:
    with open_rtnl(here.netns) as ipr:
        to, router = ip_network(nodes.vtep(there)), ROUTERS[nodes.underlay]
        ipr.add_route(Route(to, ipr.ifindex(NODE_UPLINK), router))
