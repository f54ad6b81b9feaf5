# SPDX-License-Identifier: Apache-2.0
"""ClusterIPs of a lab: real sockets of pods, through Services, to endpoints here and there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.kernel.rtnl import Rtnl
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
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
    services_lab,
    slices,
)
from support.labs import setup, within, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.root

PROTOCOLS = ("TCP", "UDP")
SERVICE_PORTS = [port(protocol) for protocol in PROTOCOLS]
TARGET_PORTS = [port(protocol, TARGET) for protocol in PROTOCOLS]
TIMEOUT = 5.0
LOOPBACK = 1
"""The index of `lo` in every namespace."""

in_both_families = pytest.mark.parametrize("version", FAMILY.keys(), ids=FAMILY.values())
with_both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def services() -> Iterator[File]:
    with services_lab("pods") as made:
        yield made


@pytest.fixture
def lab(services: File) -> Lab:
    return services.lab


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod, Pod, Pod]:
    """One and two are on node one, three and four on node two."""
    one, two, three, four = lab.layout.pods
    return one, two, three, four


def web(lab: Lab, *ends: Pod, **conditions: bool) -> list[dict[str, Any]]:
    """The Service `web` with pods as endpoints."""
    return [
        service(ports=SERVICE_PORTS),
        *slices("web", ends_of(lab, *ends), ports=TARGET_PORTS, **conditions),
    ]


@contextmanager
def served(lab: Lab, *ends: Pod) -> Iterator[None]:
    """Servers of both protocols and families in pods."""
    with ExitStack() as stack:
        for pod in ends:
            stack.enter_context(answering(pod.netns, lab.addresses(pod)))
        yield


def ask(pod: Pod, version: int, protocol: str, number: int = PORT) -> str | int:
    """Who a server behind the Service says that a pod is, or the error of the pod's socket; 0:
    silence."""

    def talk() -> str | int:
        with socket.socket(AF[version], SOCKETS[protocol]) as client:
            client.settimeout(TIMEOUT)
            try:
                client.connect((VIPS[version], number))
                if protocol == "UDP":
                    client.send(b"hello")
                return client.recv(100).decode()
            except TimeoutError:
                return 0
            except OSError as error:
                return error.errno or 0

    return within(pod.netns, talk)


@in_both_families
@with_both_protocols
@pytest.mark.parametrize("here", [True, False], ids=["on the same node", "on another node"])
def test_a_pod_reaches_an_endpoint_and_is_seen_by_its_own_address(
    services: File, pods: tuple[Pod, ...], version: int, protocol: str, here: bool
) -> None:
    """S-063"""
    client, end = pods[0], pods[1] if here else pods[2]
    services.write(*web(services.lab, end))

    with served(services.lab, end):
        assert ask(client, version, protocol) == address_of(services.lab, client, version)


@in_both_families
@with_both_protocols
def test_a_pod_reaches_itself(
    services: File, pods: tuple[Pod, ...], version: int, protocol: str
) -> None:
    """S-065: and sees its node's gateway."""
    services.write(*web(services.lab, pods[0]))

    with served(services.lab, pods[0]):
        seen = ask(pods[0], version, protocol)

    assert isinstance(seen, str)
    assert seen not in services.lab.addresses(pods[0])


@in_both_families
@with_both_protocols
def test_a_port_that_is_not_there_refuses(
    services: File, pods: tuple[Pod, ...], version: int, protocol: str
) -> None:
    """S-057, S-059: at once, and from the address that was asked."""
    services.write(*web(services.lab, pods[2]))

    assert ask(pods[0], version, protocol, PORT + 1) == errno.ECONNREFUSED


@in_both_families
@with_both_protocols
@pytest.mark.parametrize("here", [True, False], ids=["on the same node", "on another node"])
def test_an_endpoint_that_listens_to_nothing_refuses(
    services: File, pods: tuple[Pod, ...], version: int, protocol: str, here: bool
) -> None:
    """S-089: its ICMP error comes back to the client's socket."""
    services.write(*web(services.lab, pods[1] if here else pods[2]))

    assert ask(pods[0], version, protocol) == errno.ECONNREFUSED


@in_both_families
@with_both_protocols
def test_without_endpoints_it_refuses(
    services: File, pods: tuple[Pod, ...], version: int, protocol: str
) -> None:
    """S-055, S-056: also if none is ready."""
    services.write(*web(services.lab, pods[2], ready=False, serving=False))

    assert ask(pods[0], version, protocol) == errno.ECONNREFUSED


@in_both_families
def test_an_endpoint_on_the_host_answers(
    services: File, pods: tuple[Pod, ...], version: int
) -> None:
    """S-070: on this node, as the API server is on a control plane's; S-071: on another one."""
    for node in services.lab.layout.nodes:
        address = next(str(one.ip) for one in node.underlay if one.version == version)
        made = slices("web", [(address, "")], ports=TARGET_PORTS)
        services.write(service(ports=SERVICE_PORTS), *made)
        with answering(node.netns, [address]):
            assert ask(pods[0], version, "TCP") == address_of(services.lab, pods[0], version)


@in_both_families
def test_a_node_that_gets_the_services_address_keeps_what_pods_send_there(
    services: File, pods: tuple[Pod, ...], version: int
) -> None:
    """S-073: as a DNS cache does; and it is the Service's again when the address goes."""
    client, end = pods[0], pods[2]
    node = services.lab.layout.node(client.node)
    services.write(*web(services.lab, end))
    own = address_of(services.lab, client, version)

    def port_that_answers(number: int) -> bool:
        return ask(client, version, "UDP", number) == own

    with served(services.lab, end):
        wait_until(partial(port_that_answers, PORT), "the Service answers")
        with has_address(node, VIPS[version]), answering(node.netns, [VIPS[version]], PORT + 1):
            wait_until(partial(port_that_answers, PORT + 1), "the node answers")
        wait_until(partial(port_that_answers, PORT), "the Service answers again")


@contextmanager
def has_address(node: LabNode, address: str) -> Iterator[None]:
    """An address on the loopback interface of a node."""
    one = ip_address(address)

    def add() -> None:
        with Rtnl() as ipr:
            ipr.add_address(LOOPBACK, one)

    def remove() -> None:
        with Rtnl() as ipr:
            ipr.delete_address(LOOPBACK, one, prefixlen=one.max_prefixlen)

    within(node.netns, add)
    try:
        yield
    finally:
        within(node.netns, remove)


@in_both_families
def test_a_socket_goes_on_when_its_endpoint_is_gone(
    services: File, pods: tuple[Pod, ...], version: int
) -> None:
    """S-076: the same UDP socket, under load, gets its answers from another endpoint."""
    client, first, second = pods[0], pods[2], pods[3]
    services.write(*web(services.lab, first))

    def talk() -> None:
        with socket.socket(AF[version], socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.2)
            asking.connect((VIPS[version], PORT))
            with served(services.lab, first):
                assert answers(asking)
                services.put(*web(services.lab, second))
            with served(services.lab, second):
                wait_until(lambda: answers(asking), "another endpoint answers")

    within(client.netns, talk)


def answers(asking: socket.socket) -> bool:
    """Whether a connected UDP socket gets an answer now."""
    try:
        asking.send(b"hello")
        return bool(asking.recv(100))
    except OSError:
        return False


@in_both_families
def test_a_connection_to_an_endpoint_that_is_gone_is_reset(
    services: File, pods: tuple[Pod, ...], version: int
) -> None:
    """S-080"""
    client, end = pods[0], pods[2]
    services.write(*web(services.lab, end))
    listener = within(end.netns, lambda: socket.create_server(
        (address_of(services.lab, end, version), TARGET), family=AF[version]))  # fmt: skip

    def talk() -> None:
        with socket.create_connection((VIPS[version], PORT), timeout=TIMEOUT) as connection:
            services.write(*web(services.lab, pods[3]))
            with pytest.raises(ConnectionResetError):
                wait_until(lambda: connection.send(b"hello") == 0, "the connection is reset")

    with listener:
        within(client.netns, talk)


@in_both_families
def test_a_killed_agent_changes_nothing(
    services: File, pods: tuple[Pod, ...], version: int
) -> None:
    """S-148, S-149: packets go on, and the next agent keeps all ids."""
    lab, node = services.lab, services.lab.layout.nodes[0]
    services.write(*web(lab, pods[1], pods[2]))
    before = tables(node)

    with served(lab, pods[1], pods[2]):
        lab.stop_agent(node, kill=True)
        assert isinstance(ask(pods[0], version, "TCP"), str)
        assert isinstance(ask(pods[0], version, "UDP"), str)
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)
        services.write(*web(lab, pods[1], pods[2]))
        assert isinstance(ask(pods[0], version, "TCP"), str)

    assert tables(node) == before


def tables(node: LabNode) -> list[dict[str, Any]]:
    return [entries(node, name) for name in ("services", "slots", "backends")]


def test_what_others_remove_comes_back(services: File, pods: tuple[Pod, ...]) -> None:
    lab, node = services.lab, services.lab.layout.nodes[0]
    services.write(*web(lab, pods[1]))
    lab.stop_agent(node, kill=True)
    services.put()
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)

    wait_until(lambda: not entries(node, "services"), "what went meanwhile is gone")


def test_a_file_that_is_wrong_changes_nothing(services: File, pods: tuple[Pod, ...]) -> None:
    lab, node = services.lab, services.lab.layout.nodes[0]
    services.write(*web(lab, pods[1]))
    before = tables(node)

    services.path.write_text("{[")
    wait_until(lambda: "services file not taken" in node.log_path.read_text(), "the log tells")

    assert tables(node) == before


def test_status_tells_what_is_forwarded(services: File, pods: tuple[Pod, ...]) -> None:
    lab, node = services.lab, services.lab.layout.nodes[0]
    services.write(*web(lab, pods[1]))

    def row() -> Any:
        found = {one["name"]: one for one in lab.pycni(node, "status")}
        return found["services"]

    wait_until(lambda: row()["cause"] == "pods: 4 addresses and ports forwarded", "status tells")


def test_switched_off_nothing_is_left_and_on_again_all_is_back(
    services: File, pods: tuple[Pod, ...]
) -> None:
    lab, node = services.lab, services.lab.layout.nodes[0]
    services.write(*web(lab, pods[1]))
    before = set(entries(node, "services"))

    write_settings(node, services="off")
    setup(node)
    off = entries(node, "services"), max_entries(lab, node)
    write_settings(node, services="pods")
    setup(node)

    assert off[0] == {}
    assert set(off[1].values()) == {1}
    wait_until(
        lambda: set(entries(node, "services")) == before,
        "the agent has filled the maps",
    )
    with served(lab, pods[1]):
        assert isinstance(ask(pods[0], 4, "TCP"), str)


def max_entries(lab: Lab, node: LabNode) -> dict[str, int]:
    """Of the maps of Services."""
    names = ("services", "slots", "backends", "flows", "affinity")
    found: list[dict[str, Any]] = lab.pycni(node, "maps", "list")
    return {one["name"]: one["max_entries"] for one in found if one["name"] in names}
