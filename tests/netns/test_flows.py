# SPDX-License-Identifier: Apache-2.0
"""`pycni flows` on a node whose pods talk through a Service."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from loader.bpf import Map
from pycni.dataplane import maps
from pycni.dataplane.abi import FlowFlag
from pycni.dataplane.flows import SECOND, Flows
from pycni.dataplane.service_maps import FLOWS, FlowKey
from pycni.lab import cluster, processes
from pycni.lab.cluster import pycni_command
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from support.lab_services import (
    FAMILY,
    PORT,
    TARGET,
    VIPS,
    File,
    address_of,
    ends_of,
    port,
    service,
    slices,
)
from support.labs import prepared_lab, pycni, within, write_settings
from support.waiting import wait_until
from unit.dataplane.flow_entries import entry

pytestmark = pytest.mark.root

PORTS = [port("TCP"), port("UDP")]
TARGETS = [port("TCP", TARGET), port("UDP", TARGET)]
MANY = 12_000
"""Connections; the smallest map has room for more."""
BATCH_ROOM = 4 << 20
"""Bytes that a look at all of them may take."""

in_both_families = pytest.mark.parametrize("version", FAMILY.keys(), ids=FAMILY.values())


@pytest.fixture(scope="module")
def file() -> Iterator[File]:
    """One node with two pods, the client and the endpoint of the Service `web`."""
    with prepared_lab(nodes=1, pods=2) as lab:
        made = File(lab, lab.layout.directory / "services.yaml")
        made.put()
        (node,) = lab.layout.nodes
        write_settings(node, services="pods", services_file=str(made.path))
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)
        for pod in lab.layout.pods:
            lab.attach(pod)
        yield made


@pytest.fixture
def node(file: File) -> LabNode:
    """With the Service, and no connection yet."""
    (node,) = file.lab.layout.nodes
    file.write(service(ports=PORTS), *slices("web", ends_of(file.lab, end_of(node)), ports=TARGETS))
    with maps.open_map(load(node.settings_path).pin_root, "flows") as flows:
        for key in flows.entries():
            flows.delete(key)
    return node


def client_of(node: LabNode) -> Pod:
    return node.pods[0]


def end_of(node: LabNode) -> Pod:
    return node.pods[1]


def flows_of(file: File, node: LabNode, *filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = file.lab.pycni(node, "flows", *filters)
    return found


@contextmanager
def connected(file: File, node: LabNode, version: int) -> Iterator[tuple[socket.socket, ...]]:
    """A client's end and a server's."""
    address, family = address_of(file.lab, end_of(node), version), socket.AF_INET6
    if version == 4:
        family = socket.AF_INET
    server = within(end_of(node).netns, lambda: socket.create_server((address, TARGET),
                                                                      family=family))  # fmt: skip
    with server:
        client = within(
            client_of(node).netns,
            lambda: socket.create_connection((VIPS[version], PORT), timeout=5),
        )
        with client, server.accept()[0] as accepted:
            yield client, accepted


@in_both_families
def test_a_connection_is_named_from_its_beginning_to_its_end(
    file: File, node: LabNode, version: int
) -> None:
    with connected(file, node, version) as (client, accepted):
        (row,) = flows_of(file, node, "--service", "web", "--pod", client_of(node).name)
        source = client.getsockname()
        client.shutdown(socket.SHUT_WR)
        accepted.recv(1)
        (half,) = flows_of(file, node, "--protocol", "TCP")
    wait_until(lambda: flows_of(file, node)[0]["state"] == "closed", "both ends have closed")

    assert row | {"idle_seconds": 0, "expires_seconds": 8000} == {
        "protocol": "TCP",
        "pod_name": client_of(node).name,
        "pod": source[0],
        "pod_port": source[1],
        "service": "default/web:tcp",
        "address": VIPS[version],
        "port": PORT,
        "endpoint_name": end_of(node).name,
        "endpoint": address_of(file.lab, end_of(node), version),
        "endpoint_port": TARGET,
        "source": source[0],
        "source_port": source[1],
        "state": "open",
        "idle_seconds": 0,
        "expires_seconds": 8000,
    }
    assert row["idle_seconds"] < 10
    assert half["state"] == "closing"


def test_a_connection_that_is_cut_short_is_reset(file: File, node: LabNode) -> None:
    with connected(file, node, 4) as (client, _):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()

        assert [row["state"] for row in flows_of(file, node)] == ["reset"]


def test_a_datagram_without_an_answer_and_one_whose_endpoint_goes(
    file: File, node: LabNode
) -> None:
    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"hello", (VIPS[4], PORT))

    within(client_of(node).netns, ask)
    (before,) = flows_of(file, node, "--protocol", "udp")
    file.write(service(ports=PORTS))
    (after,) = flows_of(file, node, "--protocol", "udp")

    assert (before["state"], after["state"]) == ("unanswered", "stale")


def test_connections_are_followed_as_they_begin(file: File, node: LabNode) -> None:
    command = processes.inside(node.netns, pycni_command(node, "flows", "--follow", "-o", "json"))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        lines: list[bytes] = []
        output = process.stdout

        def heard() -> bool:
            with connected(file, node, 4):
                lines.extend((output.read() or b"").splitlines())
            return bool(lines)

        try:
            wait_until(heard, "a connection is told")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()

    assert json.loads(lines[0])["service"] == "default/web:tcp"


def test_very_many_are_printed_as_they_come(file: File, node: LabNode) -> None:
    root = load(node.settings_path).pin_root
    with maps.open_map(root, "flows") as table:
        fill(table, address_of(file.lab, client_of(node), 4))

    some = pycni(node, "flows", "--limit", "10")
    everything = pycni(node, "flows", "--limit", "0")
    tracemalloc.start()
    with Flows(root) as flows:
        count = sum(1 for _ in flows.connections(time.monotonic_ns()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(some.stdout.splitlines()) == 1 + 10
    assert b"more than 10" in some.stderr
    assert len(everything.stdout.splitlines()) == 1 + MANY == 1 + count
    assert everything.stderr == b""
    assert peak < BATCH_ROOM


def fill(table: Map, client: str) -> None:
    """The clients' halves of MANY connections."""
    expires = time.monotonic_ns() + 1000 * SECOND
    pod, vip, end = (ip_address(one) for one in (client, VIPS[4], "10.244.9.9"))
    for number in range(MANY):
        packet = FlowKey(pod, number + 1024, vip, PORT, 6)
        to = FlowKey(pod, number + 1024, end, TARGET, 6)
        flags = FlowFlag.REQUEST | FlowFlag.ANSWERED
        raw = entry(to, flags, expires=expires, backend=0, generation=0)
        table.update(FLOWS.key.pack(packet), raw)
