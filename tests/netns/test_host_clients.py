# SPDX-License-Identifier: Apache-2.0
"""ClusterIPs of a lab: real sockets of processes of a node, in the node's own network namespace."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loader import libbpf, probe, sockets
from loader.places import SOCKETS as LINKS
from pycni.kernel import cgroups
from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from support import control_group
from support import setup_without as without
from support.lab_services import (
    AF,
    FAMILY,
    PORT,
    SOCKETS,
    TARGET,
    VIPS,
    File,
    address_of,
    answering,
    ends_of,
    entries,
    port,
    service,
    slices,
)
from support.labs import agent_hung, prepared_lab, setup, teardown, within, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.root

PROTOCOLS = ("TCP", "UDP")
SERVICE_PORTS = [port(protocol) for protocol in PROTOCOLS]
TARGET_PORTS = [port(protocol, TARGET) for protocol in PROTOCOLS]
TIMEOUT = 5.0
MAPPED = 46
"""A way to ask: IPv4 by a socket of IPv6."""

in_both_families = pytest.mark.parametrize("version", FAMILY.keys(), ids=FAMILY.values())
in_all_ways = pytest.mark.parametrize("way", [4, 6, MAPPED], ids=["IPv4", "IPv6", "mapped"])
with_both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def services() -> Iterator[File]:
    """Two nodes with two pods each, whose Services are in a file; both nodes' programs are at one
    control group."""
    with control_group.own(), prepared_lab(nodes=2, pods=2) as lab:
        file = File(lab, lab.layout.directory / "services.yaml")
        file.put()
        for node in lab.layout.nodes:
            write_settings(node, services="pods+host", services_file=str(file.path))
            lab.start_agent(node)
        for node in lab.layout.nodes:
            cluster.wait_for_agent(lab, node)
        cluster.wait_for_members(lab)
        for pod in lab.layout.pods:
            lab.attach(pod)
        yield file


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


def web(lab: Lab, *ends: Pod, **spec: Any) -> list[dict[str, Any]]:
    """The Service `web` with pods as endpoints."""
    made = slices("web", ends_of(lab, *ends), ports=TARGET_PORTS)
    return [service(ports=SERVICE_PORTS, **spec), *made]


@contextmanager
def served(lab: Lab, *ends: Pod) -> Iterator[None]:
    """Servers of both protocols and families in pods, that tell their own addresses."""
    with ExitStack() as stack:
        for pod in ends:
            stack.enter_context(answering(pod.netns, lab.addresses(pod), own=True))
        yield


def spelled(way: int, address: str) -> str:
    return f"::ffff:{address}" if way == MAPPED else address


def vip(way: int) -> str:
    return spelled(way, VIPS[4 if way == MAPPED else way])


def a_socket(way: int, protocol: str) -> socket.socket:
    made = socket.socket(AF[6 if way == MAPPED else way], SOCKETS[protocol])
    made.settimeout(TIMEOUT)
    return made


def ask(netns: str, way: int, protocol: str, number: int = PORT) -> str | int:
    """The endpoint that answers a process in a namespace, or the error that its socket has; 0:
    silence."""

    def talk() -> str | int:
        with a_socket(way, protocol) as client:
            try:
                client.connect((vip(way), number))
                if protocol == "UDP":
                    client.send(b"hello")
                return client.recv(100).decode()
            except TimeoutError:
                return 0
            except OSError as error:
                return error.errno or 0

    return within(netns, talk)


def family(way: int) -> int:
    return 4 if way == MAPPED else way


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


@with_both_protocols
def test_sockets_in_other_namespaces_are_left_alone(
    services: File, node: LabNode, pods: tuple[Pod, ...], protocol: str
) -> None:
    """S-112: a pod's packets are translated one by one, and a namespace of nobody has no route."""
    services.write(*web(services.lab, pods[2]))
    before = len(entries(node, "sockets"))

    with served(services.lab, pods[2]):
        assert ask(pods[0].netns, 4, protocol) in services.lab.addresses(pods[2])
        assert ask(services.lab.layout.underlay_netns, 4, protocol) == errno.ENETUNREACH

    assert len(entries(node, "sockets")) == before


def test_each_node_has_programs_and_tables_of_its_own(
    services: File, pods: tuple[Pod, ...]
) -> None:
    """S-112: though all are at one control group."""
    one, two = services.lab.layout.nodes
    services.write(*web(services.lab, pods[0]))
    before = [len(entries(node, "sockets")) for node in (one, two)]

    with served(services.lab, pods[0]):
        assert isinstance(ask(two.netns, 4, "TCP"), str)

    assert [len(entries(node, "sockets")) for node in (one, two)] == [before[0], before[1] + 1]


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


def test_a_killed_agent_changes_nothing(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    services.write(*web(services.lab, pods[0]))

    with served(services.lab, pods[0]):
        services.lab.stop_agent(node, kill=True)
        found = [ask(node.netns, 4, protocol) for protocol in PROTOCOLS]
        services.lab.start_agent(node)
        cluster.wait_for_agent(services.lab, node)

    assert set(found) == {address_of(services.lab, pods[0], 4)}


def test_an_upgrade_under_calls_fails_none(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """Programs are replaced in their links."""
    services.write(*web(services.lab, pods[0]))
    before, results = programs(node), Counter[str | int]()
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            results[ask(node.netns, 4, "TCP")] += 1

    with served(services.lab, pods[0]):
        calling = threading.Thread(target=call)
        calling.start()
        try:
            for mtu in (1400, 0):  # a constant of the programs
                write_settings(node, mtu=mtu)
                setup(node)
        finally:
            done.set()
            calling.join()

    assert results.keys() == {address_of(services.lab, pods[0], 4)}
    assert programs(node).keys() == before.keys()
    assert not set(programs(node).values()) & set(before.values())


def programs(node: LabNode) -> dict[str, int]:
    """The kernel's numbers of the programs in the pinned links."""
    found = {}
    for pin in (load(node.settings_path).pin_root / LINKS).iterdir():
        with sockets.Link.open_pinned(pin) as link:
            found[pin.name] = link.program
    return found


def attached(group: Path) -> list[int]:
    """How many programs are at each hook of a control group."""
    fd = os.open(group, os.O_RDONLY)
    try:
        return [len(libbpf.query(fd, kind)) for kind in sockets.HOOKS.values()]
    finally:
        os.close(fd)


def test_switched_to_pods_only_the_own_programs_go_and_come_back(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """The other node's stay at the same control group."""
    group = cgroups.root()
    assert group is not None
    services.write(*web(services.lab, pods[0]))
    with served(services.lab, pods[0]):
        both = attached(group.path)
        write_settings(node, services="pods")
        setup(node)
        one = attached(group.path)
        calls = [ask(at.netns, 4, "TCP") for at in services.lab.layout.nodes]
        pins = list(load(node.settings_path).pin_root.rglob("sockets"))
        write_settings(node, services="pods+host")
        setup(node)

        wait_until(
            lambda: isinstance(ask(node.netns, 4, "TCP"), str), "the node's processes are served"
        )

    count = len(sockets.HOOKS)
    assert (both, one, attached(group.path)) == ([2] * count, [1] * count, [2] * count)
    assert isinstance(calls[1], str)
    assert not isinstance(calls[0], str)
    assert pins == []


def test_a_hook_that_somebody_took_is_told_of_and_comes_back(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    lab, root = services.lab, load(node.settings_path).pin_root
    services.write(*web(lab, pods[0]))

    with agent_hung(lab, node):
        (root / LINKS / "connect4").unlink()
        rows = [one for one in lab.pycni(node, "status") if "connect4" in one["cause"]]

    assert [(one["name"], one["state"]) for one in rows] == [("sockets", "broken")]
    with served(lab, pods[0]):
        wait_until(
            lambda: ask(node.netns, 4, "TCP") == address_of(lab, pods[0], 4), "the hook is back"
        )


def test_a_teardown_leaves_nothing(services: File, node: LabNode) -> None:
    """Of the last test: the node is made again."""
    group = cgroups.root()
    assert group is not None
    services.lab.stop_agent(node)

    teardown(node)

    assert attached(group.path) == [1] * len(sockets.HOOKS)
    assert not load(node.settings_path).pin_root.exists()
