# SPDX-License-Identifier: Apache-2.0
"""ClusterIPs of a lab: real sockets of processes of a node, in the node's own network namespace."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from loader import probe
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from support import setup_without as without
from support.host_clients import (
    MAPPED,
    PROTOCOLS,
    SERVICE_PORTS,
    TARGET_PORTS,
    TIMEOUT,
    a_socket,
    ask,
    family,
    host_lab,
    served,
    spelled,
    vip,
    web,
)
from support.lab_services import (
    FAMILY,
    PORT,
    TARGET,
    File,
    address_of,
    answering,
    service,
    slices,
)
from support.labs import agent_hung, setup, within
from support.waiting import wait_until

pytestmark = pytest.mark.root

in_both_families = pytest.mark.parametrize("version", FAMILY.keys(), ids=FAMILY.values())
in_all_ways = pytest.mark.parametrize("way", [4, 6, MAPPED], ids=["IPv4", "IPv6", "mapped"])
with_both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def services() -> Iterator[File]:
    with host_lab() as made:
        yield made


@pytest.fixture
def lab(services: File) -> Lab:
    return services.lab


@pytest.fixture
def node(lab: Lab) -> LabNode:
    """Whose processes are the clients. It has pods one and two."""
    return lab.layout.nodes[0]


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod, Pod, Pod]:
    """One and two are on node one, three and four on node two."""
    one, two, three, four = lab.layout.pods
    return one, two, three, four


@in_all_ways
@with_both_protocols
@pytest.mark.parametrize("end", [0, 2], ids=["here", "on another node"])
def test_a_process_of_the_node_reaches_an_endpoint_and_knows_the_service(
    services: File, node: LabNode, pods: tuple[Pod, ...], way: int, protocol: str, end: int
) -> None:
    """S-069, S-113"""
    services.write(*web(services.lab, pods[end]))

    def talk() -> tuple[str, Any]:
        with a_socket(way, protocol) as client:
            client.connect((vip(way), PORT))
            if protocol == "UDP":
                client.send(b"hello")
            return client.recv(100).decode(), client.getpeername()[:2]

    with served(services.lab, pods[end]):
        answered, peer = within(node.netns, talk)

    assert answered == address_of(services.lab, pods[end], family(way))
    assert peer == (vip(way), PORT)


@in_both_families
def test_an_endpoint_on_a_node_answers(services: File, node: LabNode, version: int) -> None:
    """S-069: on this node, as the API server is on a control plane's, and on another one."""
    for other in services.lab.layout.nodes:
        address = next(str(one.ip) for one in other.underlay if one.version == version)
        services.write(
            service(ports=SERVICE_PORTS), *slices("web", [(address, "")], ports=TARGET_PORTS)
        )
        with answering(other.netns, [address], own=True):
            assert ask(node.netns, version, "TCP") == address
            assert ask(node.netns, version, "UDP") == address


@in_all_ways
def test_datagrams_of_a_socket_that_is_not_connected_stay_with_one_endpoint(
    services: File, node: LabNode, pods: tuple[Pod, ...], way: int
) -> None:
    """S-113: and their answers come from the Service, until the endpoint is gone (S-076)."""
    services.write(*web(services.lab, *pods))
    asking = within(node.netns, lambda: a_socket(way, "UDP"))

    def answers() -> set[tuple[str, Any]]:
        found = set()
        for _ in range(20):
            asking.sendto(b"hello", (vip(way), PORT))
            data, source = asking.recvfrom(100)
            found.add((data.decode(), source[:2]))
        return found

    with asking, served(services.lab, *pods):
        ((first, source),) = answers()
        assert source == (vip(way), PORT)
        left = [one for one in pods if first not in services.lab.addresses(one)]
        services.write(*web(services.lab, *left))
        ((second, source),) = answers()

    assert second != first
    assert source == (vip(way), PORT)


@with_both_protocols
def test_every_endpoint_is_chosen_by_chance(
    services: File, node: LabNode, pods: tuple[Pod, ...], protocol: str
) -> None:
    """S-039"""
    services.write(*web(services.lab, *pods))

    with served(services.lab, *pods):
        found = {ask(node.netns, 4, protocol) for _ in range(60)}

    assert found == {address_of(services.lab, one, 4) for one in pods}


@in_both_families
def test_with_affinity_one_endpoint_is_chosen_for_all_sockets(
    services: File, node: LabNode, pods: tuple[Pod, ...], version: int
) -> None:
    """S-054: of the node, whatever the protocol port; the other node has its own choice."""
    services.write(*web(services.lab, *pods, sessionAffinity="ClientIP"))

    with served(services.lab, *pods):
        found = {ask(node.netns, version, "TCP") for _ in range(20)}

    assert len(found) == 1


def test_the_policy_local_chooses_endpoints_on_this_node(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """S-041; without one, the call ends with an error at once."""
    services.write(*web(services.lab, *pods, internalTrafficPolicy="Local"))
    with served(services.lab, *pods):
        found = {ask(node.netns, 4, "TCP") for _ in range(20)}
    services.write(*web(services.lab, *pods[2:], internalTrafficPolicy="Local"))

    assert found == {address_of(services.lab, one, 4) for one in pods[:2]}
    assert ask(node.netns, 4, "TCP") == errno.EHOSTUNREACH


@in_all_ways
@with_both_protocols
def test_without_endpoints_and_on_other_ports_a_call_is_refused(
    services: File, node: LabNode, pods: tuple[Pod, ...], way: int, protocol: str
) -> None:
    """S-055, S-057, S-062; S-060: and it succeeds as soon as there is one."""
    services.write(*web(services.lab))
    assert ask(node.netns, way, protocol) == errno.ECONNREFUSED

    services.write(*web(services.lab, pods[0]))
    with served(services.lab, pods[0]):
        assert ask(node.netns, way, protocol, PORT + 1) == errno.ECONNREFUSED
        assert ask(node.netns, way, protocol) in services.lab.addresses(pods[0])


def test_before_linux_6_1_a_call_without_endpoints_is_not_permitted(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """S-062: a program cannot name the error, and the rest is as ever."""
    lacking = str(probe.HELPER_SET_RETVAL)
    command = [sys.executable, str(without.__file__), str(node.settings_path), lacking]
    services.write(*web(services.lab, pods[0]))
    try:
        with agent_hung(services.lab, node):
            done = processes.run(node.netns, command)
            assert done.returncode == 0, done.stderr.decode()
            refused = ask(node.netns, 4, "TCP", PORT + 1)
            with served(services.lab, pods[0]):
                answered = ask(node.netns, 4, "TCP")
    finally:
        setup(node)

    assert (refused, answered) == (errno.EPERM, address_of(services.lab, pods[0], 4))
    assert ask(node.netns, 4, "TCP", PORT + 1) == errno.ECONNREFUSED


def test_a_datagram_without_an_endpoint_is_refused_and_the_next_one_arrives(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """S-077: of one socket."""
    services.write(*web(services.lab))

    with within(node.netns, lambda: a_socket(4, "UDP")) as asking:
        with pytest.raises(ConnectionRefusedError):
            asking.sendto(b"hello", (vip(4), PORT))
        services.write(*web(services.lab, pods[2]))
        with served(services.lab, pods[2]):
            asking.sendto(b"hello", (vip(4), PORT))
            assert asking.recv(100).decode() == address_of(services.lab, pods[2], 4)


def test_a_socket_may_be_bound_and_connected_again_and_send_elsewhere(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """S-115"""
    services.write(*web(services.lab, pods[2]))
    end = address_of(services.lab, pods[2], 4)

    def talk() -> list[Any]:
        with a_socket(4, "UDP") as client:
            client.bind(("0.0.0.0", 0))
            client.connect((vip(4), PORT))
            peers = [client.getpeername()]
            client.sendto(b"hello", (vip(4), PORT))
            assert client.recvfrom(100)[1] == (vip(4), PORT)
            client.connect((end, TARGET))
            peers.append(client.getpeername())
            client.connect((vip(4), PORT))
            return [*peers, client.getpeername()]

    with served(services.lab, pods[2]):
        assert within(node.netns, talk) == [(vip(4), PORT), (end, TARGET), (vip(4), PORT)]


def test_what_is_no_services_is_left_alone(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    services.write(*web(services.lab, pods[2]))
    end = address_of(services.lab, pods[2], 4)

    def talk() -> tuple[Any, bytes]:
        with socket.create_connection((end, TARGET), timeout=TIMEOUT) as client:
            return client.getpeername(), client.recv(100)

    with served(services.lab, pods[2]):
        assert within(node.netns, talk) == ((end, TARGET), end.encode())


@in_all_ways
def test_a_connected_socket_whose_endpoint_is_gone_is_destroyed(
    services: File, node: LabNode, pods: tuple[Pod, ...], way: int
) -> None:
    """S-114: its process learns of it at once. Sockets to the endpoint itself, sockets that are not
    connected, and those of endpoints that stay are not touched."""
    lab, gone, stays = services.lab, pods[2], pods[3]
    services.write(*web(lab, gone))

    def open_all() -> list[socket.socket]:
        made = [a_socket(way, "UDP") for _ in range(4)]
        made[0].connect((vip(way), PORT))
        made[1].connect((spelled(way, address_of(lab, gone, family(way))), TARGET))
        made[2].sendto(b"hello", (vip(way), PORT))
        services.write(*web(lab, gone, stays))
        while True:
            made[3].connect((vip(way), PORT))
            made[3].send(b"hello")
            if made[3].recv(100).decode() == address_of(lab, stays, family(way)):
                return made

    with served(lab, gone, stays), ExitStack() as stack:
        by_service, direct, unconnected, other = within(node.netns, open_all)
        for one in (by_service, direct, unconnected, other):
            stack.enter_context(one)
        services.write(*web(lab, stays))

        wait_until(lambda: error_of(by_service) == errno.ECONNABORTED, "the socket is destroyed")
        assert [error_of(one) for one in (direct, unconnected, other)] == [0, 0, 0]
        for one in (direct, other):
            one.send(b"hello")
            assert one.recv(100)


def error_of(one: socket.socket) -> int:
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
