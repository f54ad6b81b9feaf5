# SPDX-License-Identifier: Apache-2.0
"""A node has more addresses than its VTEP: pods, nodes and the world reach it at each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

import loader
from pycni.kernel import nft, sysctl
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import NODE_UPLINK, WORLD, LabNode, Pod
from pycni.node import overlay
from pycni.pods import port_table
from pycni.settings import load
from pycni.setup import provision
from pycni.stores import Reach, machine_identity, machine_instance, open_store
from support.flood import unanswered
from support.flows import answering, ask
from support.labs import drops, made_lab, made_pod, rows, within
from support.plugin import execute
from support.waiting import wait_until
from support.ways_out import ROUTER, SECOND, ip, second_net

VIP = "198.18.0.77"
SECOND4, SECOND6 = "198.18.7.1", "fd00:7::1"
FIRST6 = "fd00:99::1"
EVERY = (VIP, SECOND4, SECOND6, FIRST6)
HOST_PORT, POD_PORT = 18080, 8000
PORTS = {"portMappings": [{"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "udp"}]}
SPOOFED = ("SPOOFED_INNER", "from_overlay")

every_address = pytest.mark.parametrize("address", EVERY)
masqueraded = pytest.mark.parametrize("masquerade", [True, False], ids=["ipMasq", "no ipMasq"])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes. The first has a virtual address, and a second interface to another network."""
    with made_lab(nodes=2, pods=1) as made:
        node, other = made.layout.nodes
        for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            within(made.layout.underlay_netns, partial(sysctl.write, name, "1"))
        with second_net(made.layout, node):
            ip(node.netns, f"addr add {VIP}/32 dev {NODE_UPLINK}")
            wait_until(lambda: set(EVERY) <= known(made, other), "node two knows the addresses")
            yield made


def known(lab: Lab, node: LabNode) -> set[str]:
    return {str(row["address"]) for row in rows(lab, node, "nodes")}


def version(address: str) -> int:
    return 6 if ":" in address else 4


@pytest.fixture
def other_pod(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """A pod of node two, whose packets to the world are masqueraded or not."""
    with made_pod(lab, lab.layout.nodes[1]) as pod:
        assert execute(lab, pod, "ADD", ipMasq=request.param).status == 0
        yield pod
        assert execute(lab, pod, "DEL").status == 0


@pytest.fixture
def open_pod(lab: Lab) -> Iterator[list[str]]:
    """A pod of node one with a host port, which answers with who it sees; its addresses."""
    with made_pod(lab, lab.layout.nodes[0]) as pod, ExitStack() as stack:
        added = execute(lab, pod, "ADD", runtimeConfig=PORTS)
        assert added.status == 0, added.text
        for address in added.addresses:
            stack.enter_context(answering(pod.netns, address, POD_PORT))
        yield added.addresses
        assert execute(lab, pod, "DEL", runtimeConfig=PORTS).status == 0


@pytest.mark.parametrize("other_pod", [True, False], indirect=True, ids=["ipMasq", "no ipMasq"])
@every_address
def test_a_pod_reaches_another_node_at_each_address(lab: Lab, other_pod: Pod, address: str) -> None:
    """By the overlay, so the node sees the pod, masqueraded or not."""
    node = lab.layout.nodes[0]
    with answering(node.netns, address) as (port, _):
        seen = ask(other_pod.netns, address, port)

    assert seen is not None
    assert seen.startswith(("10.244.", "fd00:10:244:"))


@every_address
def test_a_node_reaches_pods_of_others_from_each_address(lab: Lab, address: str) -> None:
    """A process may choose any address of its node; the pod answers there."""
    node, other = lab.layout.nodes
    target = lab.addresses(other.pods[0])[version(address) == 6]
    before = drops(lab, other).get(SPOOFED, 0)
    hop = overlay.NEXT_HOPS[version(address)]
    family = f"-{version(address)}"
    ip(node.netns, f"{family} route add {target} via {hop} dev pycni0 onlink src {address}")
    try:
        with answering(other.pods[0].netns, target) as (port, _):
            assert ask(node.netns, target, port) == address
    finally:
        ip(node.netns, f"{family} route del {target} dev pycni0")

    assert drops(lab, other).get(SPOOFED, 0) == before


@pytest.mark.usefixtures("open_pod")
@every_address
def test_a_host_port_is_at_each_address_for_everybody(lab: Lab, address: str) -> None:
    node, other = lab.layout.nodes
    clients = [other.netns, other.pods[0].netns, node.pods[0].netns, lab.layout.underlay_netns]

    seen = [ask(client, address, HOST_PORT) for client in clients]

    assert None not in seen, seen
    assert len(set(seen[:3])) == 1, "other nodes and pods are the gateway to the pod"
    assert seen[3] not in seen[:3], "the world is itself"


NODE_PORT, MARK = 30080, 0x4000
NODE_PORT_RULES = """
    table inet node_port {{
        chain prerouting {{
            type nat hook prerouting priority dstnat;
            fib daddr type local udp dport {port} jump to_pod
        }}
        chain to_pod {{
            {mark}
            meta nfproto ipv4 meta l4proto udp dnat ip to {pod4}:{pod_port}
            meta nfproto ipv6 meta l4proto udp dnat ip6 to [{pod6}]:{pod_port}
        }}
        chain postrouting {{
            type nat hook postrouting priority srcnat;
            meta mark & {bit} == {bit} meta mark set meta mark ^ {bit} masquerade
        }}
    }}
"""
"""A node port as kube-proxy forwards it (mode nftables)."""


@contextmanager
def node_port(node: LabNode, addresses: list[str], *, is_local: bool) -> Iterator[None]:
    """A node port that leads to a pod. `is_local`: by externalTrafficPolicy Local, so that the pod
    sees the client."""
    rules = NODE_PORT_RULES.format(
        port=NODE_PORT, pod4=addresses[0], pod6=addresses[1], pod_port=POD_PORT, bit=MARK,
        mark="" if is_local else f"meta mark set meta mark | {MARK}",
    )  # fmt: skip
    within(node.netns, partial(nft.run, rules, what="a node port"))
    try:
        yield
    finally:
        within(node.netns, partial(nft.run, "delete table inet node_port", what="a node port"))


@every_address
@pytest.mark.parametrize("is_local", [True, False], ids=["Local", "Cluster"])
def test_a_node_port_of_kube_proxy_is_at_each_address(
    lab: Lab, open_pod: list[str], address: str, is_local: bool
) -> None:
    """By which interface ever its packets come in; and for a pod of that node."""
    node, other = lab.layout.nodes
    world = lab.layout.underlay_netns
    with node_port(node, open_pod, is_local=is_local):
        seen = [ask(client, address, NODE_PORT) for client in (world, other.netns)]

    assert None not in seen, seen
    gateways = {one["gateway"] for one in lab.results[node.pods[0].name]["ips"]}
    assert (seen[0] not in gateways) is is_local, "the pod sees the client by Local alone"


@every_address
def test_a_node_port_of_kube_proxy_leads_to_pods_of_other_nodes(lab: Lab, address: str) -> None:
    """The first node has the interfaces; the pod is the second's."""
    node, other = lab.layout.nodes
    (pod,) = other.pods
    target = lab.addresses(pod)
    with ExitStack() as stack:
        for one in target:
            stack.enter_context(answering(pod.netns, one, POD_PORT))
        stack.enter_context(node_port(node, target, is_local=False))

        assert ask(lab.layout.underlay_netns, address, NODE_PORT) is not None


@pytest.mark.usefixtures("open_pod")
def test_a_node_that_calls_from_another_address_reaches_host_ports(lab: Lab) -> None:
    """Its packets come in by another interface than the uplink, and from another address."""
    node, other = lab.layout.nodes
    with second_net(lab.layout, other, 8):
        ip(node.netns, f"route add 198.18.8.0/24 via 198.18.7.254 dev {SECOND}")
        ip(other.netns, f"route add 198.18.7.0/24 via 198.18.8.254 dev {SECOND}")
        try:
            wait_until(lambda: "198.18.8.1" in known(lab, node), "node one knows the address")

            seen = ask(other.netns, SECOND4, HOST_PORT)
        finally:
            ip(node.netns, "route del 198.18.8.0/24")

    assert seen == gateway_of(lab, node)


def gateway_of(lab: Lab, node: LabNode) -> str:
    return str(lab.results[node.pods[0].name]["ips"][0]["gateway"])


def test_pods_reach_the_world_by_each_interface(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    pod = node.pods[0]
    world = lab.layout.underlay_netns
    with answering(world, "198.18.7.254") as (port, _):
        assert ask(pod.netns, "198.18.7.254", port) == SECOND4
    with answering(world, str(WORLD[0])) as (port, _):
        assert ask(pod.netns, str(WORLD[0]), port) == "198.18.0.1"
        ip(node.netns, f"route replace default via 198.18.7.254 dev {SECOND}")
        try:
            assert ask(pod.netns, str(WORLD[0]), port) == SECOND4
        finally:
            ip(node.netns, f"route replace default via {ROUTER} dev {NODE_UPLINK}")


def owner(lab: Lab, node: LabNode, address: str) -> str | None:
    """The VTEP of the node that has an address, as `node` knows it."""
    return {row["address"]: str(row["vtep"]) for row in rows(lab, node, "nodes")}.get(address)


def test_an_address_that_moves_is_the_other_nodes(lab: Lab) -> None:
    node, other = lab.layout.nodes
    moving = "198.18.0.78"
    ip(node.netns, f"addr add {moving}/32 dev {NODE_UPLINK}")
    wait_until(lambda: owner(lab, other, moving) == "198.18.0.1", "it is node one's")

    ip(node.netns, f"addr del {moving}/32 dev {NODE_UPLINK}")
    ip(other.netns, f"addr add {moving}/32 dev {NODE_UPLINK}")
    wait_until(lambda: owner(lab, node, moving) == "198.18.0.2", "it is node two's")

    pod = node.pods[0].netns
    wait_until(lambda: unanswered(lab, pod, [moving]) == [], "node two has heard of it, too")
    ip(other.netns, f"addr del {moving}/32 dev {NODE_UPLINK}")
    wait_until(lambda: owner(lab, node, moving) is None, "it is nobody's")


@pytest.mark.parametrize("number", [0, 1])
def test_an_address_that_both_have_is_each_ones_own(lab: Lab, number: int) -> None:
    """As that of Docker's bridge is."""
    shared = "172.17.0.1"
    node = lab.layout.nodes[number]
    for one in lab.layout.nodes:
        ip(one.netns, f"addr add {shared}/16 dev {NODE_UPLINK}")
    try:
        vtep = str(node.underlay[0].ip)
        wait_until(lambda: owner(lab, node, shared) == vtep, "it is its own")
        with answering(node.netns, shared) as (port, _):
            assert ask(node.pods[0].netns, shared, port) is not None
    finally:
        for one in lab.layout.nodes:
            ip(one.netns, f"addr del {shared}/16 dev {NODE_UPLINK}")


def test_the_agent_mends_the_sets_of_other_nodes_addresses(lab: Lab) -> None:
    node, other = lab.layout.nodes
    stranger = ip_address("192.0.2.200")

    within(other.netns, partial(port_table.write_nodes, [stranger]))

    wait_until(
        lambda: (
            {str(one) for one in within(other.netns, port_table.nodes)}
            == {
                str(row["address"])
                for row in rows(lab, other, "nodes")
                if row["vtep"] == str(node.underlay[0].ip)
            }
        ),
        "they are those of node one",
    )


def test_addresses_that_a_node_of_before_did_not_tell_are_told_when_it_takes_packets_to_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its programs drop what comes to them by the overlay, and an upgrade shall lose nothing."""
    node = lab.layout.nodes[0]
    settings = load(node.settings_path)
    store = open_store(settings.store_url, settings.cluster, create=False)
    (own,) = (one for one in store.nodes() if one.name == settings.node_name)
    at_load: list[set[str]] = []
    load_programs = loader.load

    def told() -> set[str]:
        (record,) = (one for one in store.nodes() if one.name == settings.node_name)
        return {str(one) for one in record.addresses}

    def noted_load(*arguments: Any, **options: Any) -> Any:
        at_load.append(told())
        return load_programs(*arguments, **options)

    monkeypatch.setattr(loader, "load", noted_load)
    lab.stop_agent(node)  # it would tell them, too
    try:
        store.register(
            own.name,
            own.vtep,
            identity=machine_identity(),
            instance=machine_instance(),
            reach=Reach((own.vtep,)),
        )
        within(node.netns, lambda: provision.setup(settings))
        told_by_setup = told()
    finally:
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)

    assert at_load == [{str(own.vtep)}]
    assert set(EVERY) <= told_by_setup
