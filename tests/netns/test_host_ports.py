# SPDX-License-Identifier: Apache-2.0
"""hostPort on real packets: who reaches a pod by a port of its node, and who is seen there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from pycni.kernel import namespaces, nft
from pycni.lab import topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import (
    BRIDGE,
    NODE_UPLINK,
    UNDERLAY4,
    UNDERLAY6,
    LabNode,
    Pod,
)
from pycni.names import GATEWAY_MAC
from pycni.pods import port_table
from support import flows
from support.flows import FAMILIES, answering, send_frames
from support.kernel import open_iproute
from support.labs import made_pod, setup
from support.plugin import Reply, execute
from support.snapshot import differences, take
from support.waiting import wait_until

HOST_PORT, OTHER_PORT, POD_PORT = 18080, 18081, 8000
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ROUTER = {4: str(UNDERLAY4.ip), 6: str(UNDERLAY6.ip)}
"""The world's address towards the nodes."""
INVALID, TAKEN = 7, 103
SERVICE = "10.96.0.10"
PROTOCOLS = ("tcp", "udp", "sctp")

both_families = pytest.mark.parametrize("family", FAMILIES)
both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])


def mapping(protocol: str = "tcp", port: int = HOST_PORT, **changes: Any) -> dict[str, Any]:
    return {"hostPort": port, "containerPort": POD_PORT, "protocol": protocol} | changes


def add(lab: Lab, pod: Pod, *mappings: dict[str, Any], **options: Any) -> Reply:
    return execute(lab, pod, "ADD", runtimeConfig={"portMappings": list(mappings)}, **options)


def of_family(family: int, addresses: list[str]) -> str:
    return next(one for one in addresses if ip_address(one).version == family)


def underlay(node: LabNode, family: int) -> str:
    return of_family(family, [str(interface.ip) for interface in node.underlay])


def gateway(reply: Reply, family: int) -> str:
    gateways = [ip["gateway"] for ip in reply.document["ips"]]
    return of_family(family, gateways)


@contextmanager
def serving(pod: Pod, addresses: list[str], *protocols: str) -> Iterator[None]:
    with ExitStack() as stack:
        for address in addresses:
            for protocol in protocols or ("tcp",):
                stack.enter_context(answering(pod.netns, address, POD_PORT, protocol=protocol))
        yield


def ask(netns: str, address: str, *, protocol: str = "tcp", port: int = HOST_PORT) -> str | None:
    """By which address the pod sees us, None if it does not answer."""
    return flows.ask(netns, address, port, protocol=protocol)


@pytest.fixture
def open_pod(lab: Lab, spare: Pod) -> Iterator[Reply]:
    """The spare pod of the first node with a host port for each protocol, and servers there."""
    reply = add(lab, spare, *(mapping(protocol) for protocol in PROTOCOLS))
    assert reply.status == 0, reply.text
    with serving(spare, reply.addresses, *PROTOCOLS):
        yield reply


@pytest.mark.usefixtures("open_pod")
@both_families
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_world_reaches_the_pod_and_is_seen_as_it_is(
    lab: Lab, protocol: str, family: int
) -> None:
    target = underlay(lab.layout.nodes[0], family)

    seen = ask(lab.layout.underlay_netns, target, protocol=protocol)

    assert seen == ROUTER[family]


@both_families
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_node_itself_reaches_the_pod_by_each_of_its_addresses(
    lab: Lab, open_pod: Reply, protocol: str, family: int
) -> None:
    node = lab.layout.nodes[0]
    own = [underlay(node, family), gateway(open_pod, family)]
    if family == 4:
        own.append(LOOPBACK[family])

    seen = {target: ask(node.netns, target, protocol=protocol) for target in own}

    assert None not in seen.values(), seen


@pytest.mark.usefixtures("open_pod")
def test_ipv6_has_no_way_out_of_the_loopback_address(lab: Lab) -> None:
    """No route_localnet there: the kernel sends nothing from ::1 to another device."""
    assert ask(lab.layout.nodes[0].netns, LOOPBACK[6]) is None


@both_families
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_reaches_itself_by_its_host_port(
    lab: Lab, spare: Pod, open_pod: Reply, protocol: str, family: int
) -> None:
    seen = ask(spare.netns, underlay(lab.layout.nodes[0], family), protocol=protocol)

    assert seen == gateway(open_pod, family)


@both_families
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("client", [0, -1], ids=["same node", "other node"])
def test_other_pods_reach_the_pod_by_its_nodes_addresses(
    lab: Lab, open_pod: Reply, client: int, protocol: str, family: int
) -> None:
    netns = lab.layout.pods[client].netns
    targets = (underlay(lab.layout.nodes[0], family), gateway(open_pod, family))

    seen = {target: ask(netns, target, protocol=protocol) for target in targets}

    assert None not in seen.values(), seen


@pytest.mark.usefixtures("open_pod")
@both_families
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_node_reaches_the_pod(lab: Lab, protocol: str, family: int) -> None:
    target = underlay(lab.layout.nodes[0], family)

    assert ask(lab.layout.nodes[1].netns, target, protocol=protocol) is not None


@pytest.mark.parametrize("client", [0, -1], ids=["same node", "other node"])
def test_a_service_of_kube_proxy_answers_pods(lab: Lab, spare: Pod, client: int) -> None:
    """Its rewriting, on the client's node, is undone there: the answer comes back to it."""
    source = lab.layout.pods[client]
    netns = lab.layout.node(source.node).netns
    reply = add(lab, spare)
    backend = f"{of_family(4, reply.addresses)}:{POD_PORT}"
    rule = f"ip daddr {SERVICE} tcp dport {HOST_PORT} dnat to {backend}"
    chain = f"chain prerouting {{ type nat hook prerouting priority -100; {rule}; }}"

    in_netns(netns, lambda: nft.run(f"table ip service {{ {chain}; }}", what="a Service"))
    try:
        with serving(spare, reply.addresses):
            seen = ask(source.netns, SERVICE)
    finally:
        in_netns(netns, lambda: nft.run("delete table ip service", what="a Service"))

    assert seen is not None


def in_netns(name: str, work: Callable[[], object]) -> None:
    descriptor = os.open(topology.NETNS_DIR / name, os.O_RDONLY)
    try:
        namespaces.inside(descriptor, work)
    finally:
        os.close(descriptor)


def test_a_host_ip_is_the_only_address_that_leads_to_the_pod(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    mine = underlay(node, 4)
    reply = add(lab, spare, mapping(hostIP=mine), mapping(port=OTHER_PORT, hostIP="127.0.0.1"))

    with serving(spare, reply.addresses):
        assert ask(lab.layout.underlay_netns, mine) is not None
        assert ask(node.netns, gateway(reply, 4)) is None
        assert ask(node.netns, LOOPBACK[4]) is None
        assert ask(node.netns, LOOPBACK[4], port=OTHER_PORT) is not None
        assert ask(node.netns, mine, port=OTHER_PORT) is None


def test_an_unspecified_host_ip_means_all_addresses_of_its_family(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    reply = add(lab, spare, mapping(hostIP="::"))

    with serving(spare, reply.addresses):
        assert ask(lab.layout.underlay_netns, underlay(node, 6)) is not None
        assert ask(lab.layout.underlay_netns, underlay(node, 4)) is None


def test_loopback_addresses_stay_closed_from_outside(lab: Lab, spare: Pod) -> None:
    """A neighbour sends to 127.0.0.1, with the node's MAC; then the node, which is heard first."""
    node = lab.layout.nodes[0]
    reply = add(lab, spare, mapping("udp", hostIP="127.0.0.1"))
    packet = IP(src=ROUTER[4], dst=LOOPBACK[4]) / UDP(dport=HOST_PORT) / b"let me in"
    with open_iproute(node.netns) as ipr:
        (link,) = ipr.get_links(ipr.link_lookup(ifname=NODE_UPLINK)[0])

    with answering(spare.netns, of_family(4, reply.addresses), POD_PORT) as (_, heard):
        frame = Ether(dst=link.get("address")) / packet
        send_frames(lab.layout.underlay_netns, BRIDGE, [bytes(frame)])
        assert ask(node.netns, LOOPBACK[4], protocol="udp") is not None

        assert heard()["source"] == gateway(reply, 4)


def test_a_pod_does_not_reach_what_the_node_has_on_loopback(lab: Lab, spare: Pod) -> None:
    """Though the overlay device routes loopback addresses, and the pod sends what it likes."""
    node = lab.layout.nodes[0]
    reply = add(lab, spare)
    packet = IP(src=of_family(4, reply.addresses), dst=LOOPBACK[4]) / UDP(dport=OTHER_PORT)
    mac = reply.document["interfaces"][1]["mac"]

    with answering(node.netns, LOOPBACK[4], OTHER_PORT) as (_, heard):
        send_frames(spare.netns, "eth0", [bytes(Ether(src=mac, dst=GATEWAY_MAC) / packet)])
        assert ask(node.netns, LOOPBACK[4], protocol="udp", port=OTHER_PORT) == LOOPBACK[4]

        assert heard()["source"] == LOOPBACK[4]


@both_families
def test_a_udp_client_that_goes_on_sending_follows_the_port(
    lab: Lab, spare: Pod, family: int
) -> None:
    """From nobody to the first pod, and to the second when the first is gone."""
    node = lab.layout.nodes[0]
    target = underlay(node, family)
    with (
        flows.running(lab.layout.underlay_netns, "keep", target, HOST_PORT) as client,
        made_pod(lab, node) as first,
    ):
        assert client.heard() == "ready"
        answers = [say_again(client)]
        reply = add(lab, first, mapping("udp"))
        with serving(first, reply.addresses, "udp"):
            answers.append(say_again(client))
        assert execute(lab, first, "DEL").status == 0
        answers.append(say_again(client))
        reply = add(lab, spare, mapping("udp"))
        with serving(spare, reply.addresses, "udp"):
            answers.append(say_again(client))

    assert answers == [None, ROUTER[family], None, ROUTER[family]]


@both_ways
def test_del_closes_the_ports_without_being_told_which(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    reply = add(lab, spare, *(mapping(protocol) for protocol in PROTOCOLS), alone=alone)
    assert reply.status == 0, reply.text
    opened = [line for line in differences(before, take(node)) if line.startswith("+ nft")]

    deleted = execute(lab, spare, "DEL", alone=alone)

    assert deleted.status == 0
    assert opened != []
    assert [line for line in differences(before, take(node)) if "nft" in line] == []


def test_check_finds_a_port_that_is_closed(lab: Lab, spare: Pod) -> None:
    reply = add(lab, spare, mapping("tcp"), mapping("udp"))
    wanted = {"portMappings": [mapping("tcp"), mapping("udp")]}

    well = execute(lab, spare, "CHECK", prevResult=reply.document, runtimeConfig=wanted)
    in_netns(lab.layout.nodes[0].netns, close_udp)
    ill = execute(lab, spare, "CHECK", prevResult=reply.document, runtimeConfig=wanted)

    assert (well.status, ill.status) == (0, 1)
    assert f"host port {HOST_PORT}/udp does not lead to port {POD_PORT} of" in ill.text
    assert f"host port {HOST_PORT}/tcp" not in ill.text


def close_udp() -> None:
    port_table.change(delete=[one for one in port_table.forwards() if one.protocol == "udp"])


def test_a_pod_that_ends_without_del_gives_its_ports_back(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    with made_pod(lab, node) as pod:
        assert add(lab, pod, mapping()).status == 0

    wait_until(lambda: add(lab, spare, mapping()).status == 0, "the agent sweeps the ports")

    execute(lab, pod, "DEL")


@both_ways
@pytest.mark.parametrize(
    ("first", "second"),
    [("", ""), ("", "198.18.0.1"), ("0.0.0.0", "198.18.0.1"), ("198.18.0.1", "")],
)
def test_a_taken_port_is_refused_and_its_pod_keeps_it(
    lab: Lab, spare: Pod, alone: bool, first: str, second: str
) -> None:
    node = lab.layout.nodes[0]
    with made_pod(lab, node) as owner:
        reply = add(lab, owner, mapping(hostIP=first))
        before = take(node)

        refused = add(lab, spare, mapping(hostIP=second), alone=alone)

        assert refused.document["code"] == TAKEN
        assert owner.name in refused.text
        assert differences(before, take(node)) == []
        with serving(owner, reply.addresses):
            assert ask(lab.layout.underlay_netns, underlay(node, 4)) is not None
        assert execute(lab, owner, "DEL").status == 0
        assert add(lab, spare, mapping(hostIP=second), alone=alone).status == 0


def test_the_same_port_of_another_protocol_or_address_is_free(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    with made_pod(lab, node) as owner:
        assert add(lab, owner, mapping("tcp", hostIP=underlay(node, 4))).status == 0

        reply = add(lab, spare, mapping("udp"), mapping("tcp", hostIP="127.0.0.1"))

        assert reply.status == 0, reply.text
        assert execute(lab, owner, "DEL").status == 0


def test_a_wrong_mapping_is_refused_before_anything_is_made(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    refused = add(lab, spare, mapping(), mapping(port=0))

    assert refused.document["code"] == INVALID
    assert differences(before, take(node)) == []


def test_pods_keep_their_ports_when_the_node_is_set_up_again(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    reply = add(lab, spare, mapping())

    setup(node)

    with serving(spare, reply.addresses):
        assert ask(lab.layout.underlay_netns, underlay(node, 4)) is not None


def say_again(client: flows.Running) -> str | None:
    """What a kept UDP client is told now."""
    client.tell()
    answer: str | None = client.heard()
    return answer
