# SPDX-License-Identifier: Apache-2.0
"""Nodes that find each other through etcd: what they do while it is away, empty, or back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pycni.agent import last_list
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.lab.processes import Kept
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import put_key, to_base64
from pycni.stores.etcd.location import Location
from support.flood import Flood, unanswered
from support.labs import (
    prepared_lab,
    pycni,
    reboot,
    rows,
    teardown,
    wait_for_rows,
    within,
    write_settings,
)
from support.waiting import wait_until

FLOOD = 2000


@dataclass
class Server:
    """etcd on a node, at its underlay address."""

    lab: Lab
    node: LabNode
    process: Kept | None = None

    @property
    def url(self) -> str:
        return f"etcd://{self.node.underlay[0].ip}:2379"

    @property
    def data(self) -> Path:
        return self.lab.layout.directory / "etcd"

    def start(self) -> None:
        address = self.node.underlay[0].ip
        client, peer = f"http://{address}:2379", f"http://{address}:2380"
        self.process = processes.start(
            self.node.netns,
            [
                *("etcd", "--name=lab", f"--data-dir={self.data}"),
                *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
                *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
                *(f"--initial-cluster=lab={peer}", "--logger=zap"),
            ],
            log=self.lab.layout.directory / "etcd.log",
        )

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            processes.stop(self.process, kill=kill)
            self.process = None


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with prepared_lab(nodes=3, pods=1) as lab:
        yield lab


@pytest.fixture
def server(etcd: Server) -> Server:
    """It runs, whatever a test before has left."""
    if etcd.process is None:
        etcd.start()
        wait_until(
            lambda: b"does not answer" not in nodes(etcd.lab.layout.nodes[0]), "etcd answers"
        )
    return etcd


@pytest.fixture(scope="module")
def etcd(lab: Lab) -> Iterator[Server]:
    """etcd on the third host; the first two are nodes with a pod each."""
    server = Server(lab, lab.layout.nodes[2])
    try:
        server.start()
        for node in lab.layout.nodes:
            write_settings(node, store=server.url)
        wait_until(lambda: b"there is no cluster" in nodes(lab.layout.nodes[0]), "etcd answers")
        for node in lab.layout.nodes[:2]:
            lab.start_agent(node)
            cluster.wait_for_agent(lab, node)
        for node in lab.layout.nodes[:2]:
            wait_for_rows(lab, node, "vteps", 1)
            lab.attach(node.pods[0])
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.stop(kill=True)


def nodes(node: LabNode) -> bytes:
    """What `pycni nodes` says, or complains of."""
    done = pycni(node, "nodes", "-o", "json")
    return done.stdout or done.stderr


def tables(lab: Lab, node: LabNode) -> tuple[list[Any], list[Any]]:
    return rows(lab, node, "remotes"), rows(lab, node, "vteps")


def wait_for_complaint(node: LabNode, text: str) -> None:
    wait_until(lambda: text in node.log_path.read_text(), f"the agent says {text!r}")


def test_packets_flow_while_etcd_is_away_and_nodes_join_when_it_is_back(
    lab: Lab, server: Server
) -> None:
    first, second, third = lab.layout.nodes
    pods = [node.pods[0] for node in (first, second)]
    before = [tables(lab, node) for node in (first, second)]

    with Flood(pods[0], lab.addresses(pods[1]), count=FLOOD) as flood:
        server.stop(kill=True)
        for node in (first, second):
            wait_for_complaint(node, "does not answer")
        refused = pycni(third, "setup")
        added = pycni(first, "status")
        found = [tables(lab, node) for node in (first, second)]
        lost = flood.lost()

    assert found == before
    assert set(lost.values()) == {0}
    assert refused.returncode == 1
    assert b"does not answer" in refused.stderr
    assert b"check that etcd runs" in refused.stderr
    assert b"does not answer" in added.stdout + added.stderr

    server.start()
    wait_until(lambda: second.name.encode() in nodes(first), "etcd is back")
    setup = pycni(third, "setup")
    assert setup.returncode == 0, setup.stderr
    for node in (first, second):
        wait_for_rows(lab, node, "remotes", 4)
    teardown(third)
    for node in (first, second):
        wait_for_rows(lab, node, "remotes", 2)


def test_a_node_that_boots_while_etcd_is_away_is_what_it_was(lab: Lab, server: Server) -> None:
    first, second, third = lab.layout.nodes
    before = tables(lab, first)
    listed = first.directory / "state" / "nodes.jsonl"

    def is_listed() -> bool:
        text = listed.read_text() if listed.exists() else ""
        return second.name in text and third.name not in text  # it has left

    wait_until(is_listed, "the list on disk is that of now", seconds=2 * last_list.PERIOD)

    server.stop(kill=True)
    of_before = listed.read_text()
    older = of_before.replace(str(first.underlay[0].ip), "192.0.2.77")
    reboot(lab, first)
    listed.write_text(older)
    assert older != of_before, "what it says of the node itself does not count"
    lab.start_agent(first)
    cluster.wait_for_agent(lab, first)
    topology.make_netns(first.pods[0].netns)
    lab.attach(first.pods[0])

    assert tables(lab, first) == before
    assert "set up without the store, by the last list nodes=1" in first.log_path.read_text()
    assert unanswered(lab, first.pods[0].netns, lab.addresses(second.pods[0])) == []

    server.start()
    wait_for_complaint(first, "registered, the store answers again")
    status = pycni(first, "status", "--wait", "60")
    assert status.returncode == 0, status.stdout
    assert "another machine has this node's name" not in first.log_path.read_text()
    assert tables(lab, first) == before


MAPPED = json.dumps(
    {
        "node_id": 9,
        "vtep": "198.18.0.99",
        "pod_cidrs": ["::ffff:10.244.1.0/120"],
        "extra": [],
        "identity": "",
    }
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "it is not a JSON object"), (MAPPED, "is IPv4 written as IPv6 (v4-mapped)")],
)
def test_a_bad_record_is_named_and_changes_nothing_for_others(
    lab: Lab, server: Server, text: str, reason: str
) -> None:
    first, second, third = lab.layout.nodes
    before = tables(lab, first)
    offset = len(first.log_path.read_text())

    write_record(server, "evil", text)
    wait_until(
        lambda: "record set aside node=evil" in first.log_path.read_text()[offset:], "a log line"
    )
    assert tables(lab, first) == before
    evil = next(row for row in json.loads(nodes(first)) if row["name"] == "evil")
    assert reason in evil["rejected"]
    assert reason in records_row(first)["cause"]
    assert records_row(first)["state"] == "degraded"

    made = pycni(third, "setup")  # a node joins beside it, and leaves
    assert made.returncode == 0, made.stderr
    wait_until(lambda: len(rows(lab, first, "remotes")) == 4, "the third is seen")
    teardown(third)
    wait_until(lambda: tables(lab, first) == before, "the third is gone")

    forgotten = pycni(first, "forget", "evil")
    assert forgotten.returncode == 0, forgotten.stderr
    wait_until(
        lambda: "record no longer set aside node=evil" in first.log_path.read_text()[offset:],
        "another log line",
    )
    assert tables(lab, first) == before
    assert records_row(first)["state"] == "ok"
    assert unanswered(lab, second.pods[0].netns, lab.addresses(first.pods[0])) == []


def write_record(server: Server, name: str, text: str) -> None:
    """What somebody else might write, past all rules."""
    gateway = Gateway(Location.parse(server.url))
    put = put_key(to_base64(f"{gateway.location.prefix}nodes/{name}"), text)
    within(server.node.netns, lambda: gateway.call("kv/txn", {"success": [put]}))


def records_row(node: LabNode) -> dict[str, Any]:
    found = json.loads(pycni(node, "status", "-o", "json").stdout)
    return next(row for row in found if row["name"] == "records")


def test_an_etcd_that_comes_back_empty_takes_nothing_away(lab: Lab, server: Server) -> None:
    first, second, third = lab.layout.nodes
    before = [tables(lab, node) for node in (first, second)]

    server.stop(kill=True)
    server.data.rename(server.data.with_name("lost"))
    server.start()
    for node in (first, second):
        wait_for_complaint(node, "there is no cluster")
    assert [tables(lab, node) for node in (first, second)] == before

    made = pycni(third, "setup")  # a new node makes the cluster anew, and has the first CIDR
    assert made.returncode == 0, made.stderr
    for node in (first, second):
        wait_for_complaint(node, "does not know this node")

    assert [row["name"] for row in json.loads(nodes(first))] == [third.name]
    assert [tables(lab, node) for node in (first, second)] == before
    assert unanswered(lab, second.pods[0].netns, lab.addresses(first.pods[0])) == []


def complains(node: LabNode) -> bool:
    return "cluster failed" in node.log_path.read_text()
