"""The command line on a node: every noun in both forms, with the agent alive and dead."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest

from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import POD_IFNAME
from support.flows import send_frames
from support.labs import drops, made_lab, made_pod, prepared_lab, pycni, rows, setup
from support.plugin import execute
from support.waiting import wait_until

NOUNS = {
    ("status",): {"check", "ok", "state"},
    ("endpoints",): {"address", "container", "host_interface", "mac", "masquerade"},
    ("ports",): {"port", "protocol", "address", "pod", "pod_port", "container"},
    ("nodes",): {"name", "id", "vtep", "pod_cidrs", "agent"},
    ("maps", "list"): {"name", "type", "entries", "max_entries", "pin"},
    ("maps", "dump", "endpoints"): {"address", "ifindex", "mac", "masquerade"},
    ("maps", "dump", "remotes"): {"prefix", "vtep"},
    ("maps", "dump", "vteps"): {"vtep", "node"},
    ("maps", "dump", "drops"): {"reason", "program", "packets", "bytes"},
    ("maps", "dump", "forwarded"): {"program", "path", "packets", "bytes"},
    ("drops",): {"reason", "program", "packets", "bytes"},
}
HOST_PORT = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
SPOOFED = bytes.fromhex("02707963 6e690200 00000099 0800".replace(" ", "")) + bytes.fromhex(
    "45000014 00000000 40010000 c0000207 0af40002".replace(" ", "")
)
"""IPv4 from 192.0.2.7, which no pod has."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=2) as made:
        pod = made.layout.pods[0]
        send_frames(pod.netns, POD_IFNAME, [SPOOFED])
        yield made


@contextmanager
def agent_dead(lab: Lab) -> Iterator[None]:
    node = lab.layout.nodes[0]
    lab.stop_agent(node, kill=True)
    try:
        yield
    finally:
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)


@contextmanager
def host_port_open(lab: Lab) -> Iterator[None]:
    with made_pod(lab, lab.layout.nodes[0]) as pod:
        assert execute(lab, pod, "ADD", runtimeConfig=HOST_PORT).status == 0
        yield
        assert execute(lab, pod, "DEL").status == 0


def test_every_noun_speaks_json_and_tables_with_the_agent_alive_and_dead(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    def both_forms(noun: tuple[str, ...]) -> tuple[tuple[str, ...], int, set[str], str]:
        table, document = pycni(node, *noun), pycni(node, *noun, "-o", "json")
        assert (table.stderr, document.stderr) == (b"", b"")
        assert table.returncode == document.returncode
        found = json.loads(document.stdout)
        assert found != [], noun
        return noun, table.returncode, found[0].keys(), table.stdout.decode()

    with ThreadPoolExecutor(4) as pool, host_port_open(lab):
        alive = list(pool.map(both_forms, NOUNS))
        with agent_dead(lab):
            dead = list(pool.map(both_forms, NOUNS))

    for noun, status, keys, table in [*alive, *dead]:
        assert status == 0, noun
        assert keys >= NOUNS[noun]
        assert all(key.replace("_", " ").upper() in table for key in NOUNS[noun]), table


def test_remotes_are_one_entry_per_remote_node_and_family(lab: Lab) -> None:
    node, other = lab.layout.nodes

    remotes = rows(lab, node, "remotes")

    assert sorted(ip_network(row["prefix"]).version for row in remotes) == [4, 6]
    assert {ip_address(row["vtep"]) for row in remotes} == {other.underlay[0].ip}


def test_endpoints_are_one_entry_per_local_pod_and_family(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    found = {(row["container"], row["address"]) for row in lab.pycni(node, "endpoints")}

    assert found == {(pod.name, address) for pod in node.pods for address in lab.addresses(pod)}


def test_nodes_are_the_stores(lab: Lab) -> None:
    found = lab.pycni(lab.layout.nodes[0], "nodes")

    assert [(row["name"], row["agent"]) for row in found] == [
        ("node1", "alive"),
        ("node2", "alive"),
    ]


def test_drops_name_their_reasons(lab: Lab) -> None:
    counted = drops(lab, lab.layout.nodes[0])

    assert counted[("spoofed source", "from_container")] == 1


def test_drops_are_followed_as_they_happen(lab: Lab) -> None:
    pod = lab.layout.pods[1]
    node = lab.layout.node(pod.node)
    command = processes.inside(node.netns, pycni_command(node, "drops", "--follow", "-o", "json"))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        output = follower.stdout
        try:
            # One of 16 drops is an event: whenever the follower begins to look, one comes.
            os.set_blocking(follower.stdout.fileno(), False)
            events: list[bytes] = []

            def heard() -> bool:
                send_frames(pod.netns, POD_IFNAME, [SPOOFED] * 16)
                events.extend((output.read() or b"").splitlines())
                return any(b"spoofed source" in event for event in events)

            wait_until(heard, "an event")
        finally:
            follower.terminate()
    event = json.loads(next(event for event in events if b"spoofed source" in event))

    assert event["program"] == "from_container"
    assert bytes.fromhex(event["head"]) == SPOOFED


def test_exit_statuses_tell_wrong_usage_from_failure(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    assert pycni(node, "frobnicate").returncode == 2
    assert pycni(node, "maps", "dump", "nothing").returncode == 2
    assert pycni(node, "status", "-o", "xml").returncode == 2
    assert pycni(node, "forget", "nobody").returncode == 1
    assert pycni(node, "--help").returncode == 0


@pytest.mark.parametrize("noun", [noun for noun in NOUNS if noun not in (("status",), ("nodes",))])
def test_nouns_say_that_a_host_is_no_node(bare: Lab, noun: tuple[str, ...]) -> None:
    failed = pycni(bare.layout.nodes[0], *noun)

    assert failed.returncode == 1
    assert failed.stdout == b""
    assert b"pycni setup" in failed.stderr
    assert b"Traceback" not in failed.stderr


def test_status_of_a_host_that_is_no_node_says_what_it_lacks(bare: Lab) -> None:
    failed = pycni(bare.layout.nodes[0], "status")

    assert failed.returncode == 1
    assert b"not set up" in failed.stdout
    assert b"Traceback" not in failed.stderr


def test_nodes_without_a_store_is_an_error(bare: Lab) -> None:
    failed = pycni(bare.layout.nodes[0], "nodes")

    assert failed.returncode == 1
    assert b"cluster.db" in failed.stderr


def test_teardown_asks_first() -> None:
    with prepared_lab(nodes=1) as lab:
        (node,) = lab.layout.nodes
        setup(node)

        unanswered = pycni(node, "teardown")

        assert unanswered.returncode == 1
        assert pycni(node, "status").returncode == 0


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    with prepared_lab(nodes=1) as lab:
        yield lab
