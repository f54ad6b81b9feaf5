# SPDX-License-Identifier: Apache-2.0
"""Addresses of Services that nodes announce to a router with BIRD, and clients behind it that use
them. What kube-proxy does on the nodes is done by a table of its name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pycni.bgp import service_addresses
from pycni.bgp.bird import Bird
from pycni.errors import NotAvailable
from pycni.kernel import nft
from pycni.lab import cluster, processes
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from support import fabric, flows, labs
from support.fabric import Fabric
from support.lab_services import PORT, TARGET, port, service, slices
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not fabric.is_there() and os.environ.get("CI") != "true",
    reason="no BIRD on this machine: apt-get install bird2",
)

NETWORKS = ["10.96.0.0/16", "203.0.113.0/24"]
CLUSTER_IP, LOCAL_IP, SHARED, BALANCER = "10.96.0.10", "10.96.0.20", "203.0.113.7", "203.0.113.8"
ELSEWHERE = ("192.0.2.53", "8.8.8.8")
"""Outside of NETWORKS."""
EVERYWHERE, BY_ONE = {CLUSTER_IP, SHARED}, {LOCAL_IP, BALANCER}
"""By all nodes; by those with an endpoint."""
LOCAL = "Local"
KUBE_PROXY = """
table ip kube-proxy {{
    chain services {{
        type nat hook prerouting priority dstnat
        ip daddr {address} tcp dport {port} dnat to {end}:{target}
    }}
}}
"""


@dataclass
class Cluster:
    """The lab, and what its API would say."""

    fabric: Fabric
    file: Path
    ends: list[Pod] = field(default_factory=list)
    ready: bool = True

    @property
    def nodes(self) -> list[LabNode]:
        return list(self.fabric.nodes)

    def tell(self, *, without: str = "") -> None:
        """Write the Services, but one of them."""
        ports = [port("TCP")]
        specs: dict[str, dict[str, Any]] = {
            "shared": {"vips": [CLUSTER_IP], "externalIPs": [SHARED, ELSEWHERE[0]]},
            "local": {"vips": [LOCAL_IP], "internalTrafficPolicy": LOCAL, "type": "LoadBalancer",
                      "externalTrafficPolicy": LOCAL},
        }  # fmt: skip
        made: list[dict[str, Any]] = []
        for name, spec in specs.items():
            if name == without:
                continue
            one = service(name, ports=ports, **spec)
            if spec.get("type"):
                ingress = [{"ip": BALANCER}, {"ip": ELSEWHERE[1]}]
                one["status"] = {"loadBalancer": {"ingress": ingress}}
            ends = [(self.fabric.lab.addresses(pod)[0], pod.node) for pod in self.ends]
            target = [port("TCP", TARGET)]
            made += [one, *slices(name, ends, ports=target, ready=self.ready)]
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"kind": "List", "items": made}))
        new.rename(self.file)

    def announced(self, node: LabNode) -> set[str]:
        """Addresses of Services that a node tells the router."""
        with suppress(NotAvailable):
            found = self.fabric.lab.pycni(node, "bgp", "routes")
            networks = [row["network"] for row in found if row["direction"] == "announced"]
            return {one.removesuffix("/32") for one in networks if one.endswith("/32")}
        return set()

    def is_announced(self, **wanted: set[str]) -> bool:
        return all(self.announced(node) == wanted[node.name] for node in self.nodes)

    def forward(self, node: LabNode) -> None:
        """What kube-proxy would do for the load balancer's address."""
        end = self.fabric.lab.addresses(self.ends[0])[0]
        rules = KUBE_PROXY.format(address=BALANCER, port=PORT, end=end, target=TARGET)
        labs.within(node.netns, lambda: nft.run(rules, what="a test's kube-proxy"))

    def forward_nothing(self, node: LabNode) -> None:
        deletion = "delete table ip kube-proxy"
        labs.within(node.netns, lambda: nft.run(deletion, what="a test's kube-proxy"))

    @property
    def routed(self) -> set[str]:
        """Addresses of Services to which the router's kernel has a route."""
        done = processes.run(self.router, ["ip", "-j", "route", "show", "proto", "bird"])
        return {one["dst"] for one in json.loads(done.stdout) if "/" not in one["dst"]}

    @property
    def router(self) -> str:
        return self.fabric.lab.layout.underlay_netns


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, of which the second one also forwards by pycni what pods send."""
    file = tmp_path_factory.mktemp("services") / "services.json"
    file.write_text('{"kind": "List", "items": []}')
    table = {
        "announce": ["pods", "cluster-ips", "external-ips", "load-balancers"],
        "service_networks": NETWORKS,
    }
    settings = {"services_file": str(file)}
    with fabric.fabric(shared=True, table=table, settings=settings) as lab:
        made = Cluster(lab, file)
        cluster.wait_for_members(lab.lab)
        two = made.nodes[1]
        lab.lab.stop_agent(two)
        labs.write_settings(two, services="pods")
        lab.lab.start_agent(two)
        cluster.wait_for_agent(lab.lab, two)
        lab.start_router(again=False)
        for node in made.nodes:
            lab.start_bird(node)
        wait_until(lambda: all(map(lab.is_up, lab.nodes)), "all sessions are up")
        yield made


@pytest.fixture
def told(made: Cluster) -> Iterator[Cluster]:
    """With an endpoint on node one, and somebody on each node who forwards."""
    made.ends, made.ready = [made.fabric.lab.layout.pods[0]], True
    for node in made.nodes:
        made.forward(node)
    made.tell()
    wait_until(lambda: made.is_announced(node1=EVERYWHERE | BY_ONE, node2=EVERYWHERE,
                                         node3=EVERYWHERE), "all is announced")  # fmt: skip
    wait_until(lambda: made.routed == EVERYWHERE | BY_ONE, "the router has routes")
    yield made
    for node in made.nodes:
        with suppress(Exception):
            made.forward_nothing(node)


def test_a_client_behind_the_router_reaches_the_endpoint(told: Cluster) -> None:
    (pod,) = told.ends
    address = told.fabric.lab.addresses(pod)[0]

    with flows.answering(pod.netns, address, TARGET, protocol="tcp") as (_, heard):
        answer = flows.ask(told.router, BALANCER, PORT, protocol="tcp")

        assert answer
        assert heard()


def test_no_address_outside_of_the_named_networks_is_announced(told: Cluster) -> None:
    for node in told.nodes:
        assert not told.announced(node) & set(ELSEWHERE)
        (row,) = told.fabric.status(node, "bgp")
        assert row["state"] == "ok", row
        assert f"Services' addresses announced: {len(told.announced(node))}" in row["cause"]


def test_an_endpoint_that_ends_is_left_before_it_is_gone(told: Cluster) -> None:
    told.ready = False
    told.tell()

    wait_until(lambda: told.routed == EVERYWHERE, "what needs an endpoint is withdrawn")
    assert told.is_announced(node1=EVERYWHERE, node2=EVERYWHERE, node3=EVERYWHERE)


def test_an_endpoint_elsewhere_is_announced_there(told: Cluster) -> None:
    told.ends = [told.fabric.lab.layout.pods[2]]
    told.tell()

    wanted = {"node1": EVERYWHERE, "node2": EVERYWHERE, "node3": EVERYWHERE | BY_ONE}
    wait_until(lambda: told.is_announced(**wanted), "node three has it")


def test_a_service_that_goes_is_withdrawn(told: Cluster) -> None:
    told.tell(without="shared")

    wait_until(lambda: told.routed == BY_ONE, "the router has no route to it")


def test_nothing_is_announced_where_nobody_forwards(told: Cluster) -> None:
    one = told.nodes[0]
    told.forward_nothing(one)
    wait_until(lambda: told.announced(one) == set(), "node one announces none")
    assert told.announced(told.nodes[1]) == EVERYWHERE
    (row,) = told.fabric.status(one, "bgp")

    assert row["state"] == "degraded"
    assert "each IPv4 address of a Service is not announced: kube-proxy" in row["cause"]
    assert "run kube-proxy" in row["to_do"]

    told.forward(one)
    wait_until(lambda: told.announced(one) == EVERYWHERE | BY_ONE, "it announces again")
    assert told.fabric.status(one, "bgp")[0]["state"] == "ok"


def test_a_new_agent_changes_no_route(told: Cluster) -> None:
    one, lab = told.nodes[0], told.fabric.lab
    path = service_addresses.path(load(one.settings_path))
    kept = [line for line in routes_of_router(told) if BALANCER in line or LOCAL_IP in line]

    lab.stop_agent(one, kill=True)
    lab.start_agent(one)
    cluster.wait_for_agent(lab, one)
    told.tell(without="shared")  # it takes that after it has listed all
    wait_until(lambda: path.exists() and SHARED not in path.read_text(), "it has listed them")
    wait_until(lambda: told.announced(one) == BY_ONE, "all that is left is announced")

    assert len(kept) == len(BY_ONE)
    assert set(kept) <= set(routes_of_router(told))


def test_a_node_that_leaves_announces_none_and_leaves_nothing(told: Cluster) -> None:
    """Last: node three is none afterwards."""
    three = told.nodes[2]
    path = service_addresses.path(load(three.settings_path))
    assert path.exists()

    labs.teardown(three)
    told.tell(without="shared")
    wait_until(lambda: told.announced(told.nodes[0]) == BY_ONE, "the others have heard of it")

    assert told.fabric.sessions(three) == []
    assert not path.exists()


def routes_of_router(made: Cluster) -> list[str]:
    """Each with its session and the time since which it is there."""
    with Bird(made.fabric.lab.layout.directory / "router.ctl") as bird:
        return [line.text for line in bird.ask("show route")]
