# SPDX-License-Identifier: Apache-2.0
"""Kubernetes API servers with thousands of node records: the fake one of the unit tests, in a
process of its own, and a real one with its etcd."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from cluster.recipe import KUBERNETES
from kube.control import DEPLOY, Control
from kube.people import People
from pycni.cluster import Cluster
from pycni.stores import NodeRecord
from pycni.stores.kube import bucket, objects
from pycni.stores.kube.objects import CLUSTER_NETWORKS, NODE_NETWORKS
from unit.stores import kube_api
from unit.stores.kube_nodes import Nodes
from vm import cache

CLUSTER = Cluster(
    cidrs=(ip_network("10.0.0.0/8"), ip_network("fd00:10::/32")),
    node_prefix4=24,
    node_prefix6=64,
    vni=7,
    port=4789,
)
OWN_CIDRS = ("10.244.0.0/24", "fd00:10:244::/64")
FIRST_VTEP = ip_address("172.16.0.1")
WRITERS = 4
WRITES = ("create", "update", "patch", "delete", "POST", "PATCH", "DELETE", "PUT")


@dataclass(frozen=True)
class Counts:
    """Of what agents did so far, and of what whoever watches node records was told."""

    requests: int
    writes: int
    events: int


class Server(Protocol):
    """One that has the records."""

    @property
    def where(self) -> tuple[str, int]: ...

    def kubeconfig(self, port: int) -> Path:
        """A kubeconfig of the agent that reaches the server at a port of loopback."""
        ...

    def counts(self) -> Counts: ...


def record(number: int) -> NodeRecord:
    """Of one of the nodes, as agents write it."""
    vtep = FIRST_VTEP + number
    cidrs = (
        ip_network((int(ip_address("10.0.0.0")) + (number << 8), 24)),
        ip_network((int(ip_address("fd00:10::")) + (number << 64), 64)),
    )
    return NodeRecord(f"node-{number}.example", number + 1, vtep, cidrs, addresses=(vtep,))


def document(number: int) -> dict[str, Any]:
    """A NodeNetwork."""
    made = objects.node_network(record(number), identity="a" * 32, instance="b" * 16, uid="c" * 36)
    del made["metadata"]["ownerReferences"]  # type: ignore[attr-defined]
    return dict(made)


@dataclass
class Fake:
    """The agent's side of the pipe to the process of the fake server."""

    pipe: Connection
    where: tuple[str, int]
    directory: Path

    def kubeconfig(self, port: int) -> Path:
        """As of Server."""
        api = kube_api.Api(port=port)
        return kube_api.kubeconfig(self.directory, api)

    def counts(self) -> Counts:
        """As of Server."""
        self.pipe.send("count")
        return Counts(*self.pipe.recv())


@contextmanager
def fake(name: str, nodes: int) -> Iterator[Fake]:
    """A fake server with records of so many nodes, and the Node of that name."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, name, nodes), daemon=True)
    process.start()
    try:
        with tempfile.TemporaryDirectory() as directory:
            yield Fake(ours, ("127.0.0.1", ours.recv()), Path(directory))
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, name: str, nodes: int) -> None:
    with kube_api.serving(gzips=True) as api:
        api.objects.put(CLUSTER_NETWORKS, "default", objects.cluster_network(CLUSTER))
        Nodes(api).put(name, *OWN_CIDRS)
        for number in range(nodes):
            api.objects.put(NODE_NETWORKS, f"node-{number}.example", document(number))
        pipe.send(api.port)
        while pipe.recv():
            writes = sum(verb in WRITES for verb, _, _ in api.requests)
            events = sum(one.path == NODE_NETWORKS for one in api.objects.history)
            pipe.send((len(api.requests), writes, events))


@dataclass
class Real:
    """A real one, and who may ask it."""

    control: Control
    token: str

    @property
    def where(self) -> tuple[str, int]:
        return "127.0.0.1", self.control.api_port

    def kubeconfig(self, port: int) -> Path:
        """As of Server."""
        file = self.control.kubeconfig("agent", token=self.token)
        whole = json.loads(file.read_text())
        whole["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        file.write_text(json.dumps(whole))
        return file

    def counts(self) -> Counts:
        """As of Server: requests by the audit log, events by the version of the last object."""
        lines = (self.control.directory / "audit.log").read_text().splitlines()
        verbs = [json.loads(line)["verb"] for line in lines]
        found = self.control.kubectl("get", "nodenetworks", "-o",
                                     "jsonpath={.items[*].metadata.resourceVersion}")  # fmt: skip
        versions = {int(one) for one in found.stdout.split()}
        return Counts(len(verbs), sum(verb in WRITES for verb in verbs), max(versions, default=0))


@contextmanager
def real(name: str, nodes: int) -> Iterator[Real]:
    """A real server, as `fake`. Raises FileNotFoundError if it was not built."""
    programs = cache.directory("kubernetes") / KUBERNETES / "bin"
    with tempfile.TemporaryDirectory() as directory:
        control = Control(Path(directory), programs)
        try:
            control.start()
            for file in ("crds.yaml", "rbac.yaml", "admission.yaml"):
                done = control.kubectl("apply", "--server-side", "-f", DEPLOY / file)
                assert done.returncode == 0, done.stderr
            control.kubectl("wait", "--for=condition=Established", "-f", DEPLOY / "crds.yaml")
            _fill(control, nodes)
            people = People(control)
            people.node(name)
            yield Real(control, people.token(people.pod(name)))
        finally:
            control.end()


def _fill(control: Control, nodes: int) -> None:
    bucket.bucket_of(control.access().servers)._tokens = 1e9
    admin = control.admin
    admin._bucket.take = lambda: 0.0  # type: ignore[method-assign]
    admin.create(CLUSTER_NETWORKS, objects.cluster_network(CLUSTER))
    with ThreadPoolExecutor(WRITERS) as pool:
        made = pool.map(lambda number: admin.create(NODE_NETWORKS, document(number)), range(nodes))
        assert all(made)
