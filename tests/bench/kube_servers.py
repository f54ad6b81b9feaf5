# SPDX-License-Identifier: Apache-2.0
"""Stores in which thousands of nodes register: the fake Kubernetes API server of the unit tests, in
a process of its own, a real one with its etcd, an etcd alone, and a file."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address, ip_network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from cluster.recipe import KUBERNETES
from kube.control import DEPLOY, Control
from kube.people import People
from pycni.cluster import Cluster
from pycni.stores import NodeRecord
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import to_base64
from pycni.stores.etcd.keyspace import NODES
from pycni.stores.etcd.location import Location
from pycni.stores.kube import bucket, objects
from pycni.stores.kube.objects import CLUSTER_NETWORKS, NODE_NETWORKS
from pycni.stores.kube.pages import pages
from pycni.stores.records import write
from pycni.stores.sqlite import connection, schema
from pycni.stores.sqlite.rows import write_row
from unit.stores import etcds, kube_api
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
VTEPS = IPv4Network("172.16.0.0/15")
FAKE_PAUSE = 0.005
"""Seconds between two registrations: as a real server takes them."""
WRITERS = 4
TOKEN_SECONDS = 24 * 3600
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

    def url(self, port: int) -> str:
        """The store of an agent that reaches the server at a port of loopback."""
        ...

    def counts(self) -> Counts: ...

    def register(self, numbers: range) -> None:
        """As the setups of those nodes do: those that are there already write what is there."""
        ...


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

    def url(self, port: int) -> str:
        """As of Server."""
        api = kube_api.Api(port=port)
        return f"kube:{kube_api.kubeconfig(self.directory, api)}"

    def counts(self) -> Counts:
        """As of Server."""
        self.pipe.send(range(0))
        return Counts(*self.pipe.recv())

    def register(self, numbers: range) -> None:
        """As of Server."""
        self.pipe.send(numbers)
        self.pipe.recv()


@contextmanager
def fake(name: str) -> Iterator[Fake]:
    """A fake server with the Node of that name."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, name), daemon=True)
    process.start()
    try:
        with tempfile.TemporaryDirectory() as directory:
            yield Fake(ours, ("127.0.0.1", ours.recv()), Path(directory))
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, name: str) -> None:
    with kube_api.serving(gzips=True) as api:
        api.objects.put(CLUSTER_NETWORKS, "default", objects.cluster_network(CLUSTER))
        Nodes(api).put(name, *OWN_CIDRS)
        pipe.send(api.port)
        while True:
            for number in pipe.recv():
                made = document(number)
                api.objects.apply(NODE_NETWORKS, made["metadata"]["name"], made)
                time.sleep(FAKE_PAUSE)
            writes = sum(verb in WRITES for verb, _, _ in api.requests)
            events = sum(one.path == NODE_NETWORKS for one in api.objects.history)
            pipe.send((len(api.requests), writes, events))


@dataclass
class Real:
    """A real one, and who may ask it."""

    control: Control
    token: str
    events: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> tuple[str, int]:
        return "127.0.0.1", self.control.api_port

    def url(self, port: int) -> str:
        """As of Server."""
        file = self.control.kubeconfig("agent", token=self.token)
        whole = json.loads(file.read_text())
        whole["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        file.write_text(json.dumps(whole))
        return f"kube:{file}"

    def counts(self) -> Counts:
        """As of Server: requests by the audit log, events by the versions of the objects, so of
        several events of one object since the last call it counts one."""
        lines = (self.control.directory / "audit.log").read_text().splitlines()
        verbs = [json.loads(line)["verb"] for line in lines]
        versions = {
            objects.name_of(one): objects.version_of(one)
            for page in pages(self.control.admin, NODE_NETWORKS)
            for one in page.items
        }
        self.events += len(versions.items() - self.versions.items())
        self.versions = versions
        return Counts(len(verbs), sum(verb in WRITES for verb in verbs), self.events)

    def register(self, numbers: range) -> None:
        """As of Server."""
        admin = self.control.admin
        bucket.bucket_of(self.control.access().servers)._tokens = 1e9
        admin._bucket.take = lambda: 0.0  # type: ignore[method-assign]

        def apply(number: int) -> bool:
            made = document(number)
            return admin.apply(f"{NODE_NETWORKS}/{made['metadata']['name']}", made)

        with ThreadPoolExecutor(WRITERS) as pool:
            assert all(pool.map(apply, numbers))


@contextmanager
def real(name: str) -> Iterator[Real]:
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
            control.admin.create(CLUSTER_NETWORKS, objects.cluster_network(CLUSTER))
            people = People(control)
            people.node(name)
            yield Real(control, people.token(people.pod(name), seconds=TOKEN_SECONDS))
        finally:
            control.end()


@dataclass
class Etcd:
    """An etcd alone. What it says of requests is its number of changes."""

    etcd: etcds.Etcd
    prefix: str = "bench"

    @property
    def where(self) -> tuple[str, int]:
        return "127.0.0.1", self.etcd.client_port

    def url(self, port: int) -> str:
        """As of Server."""
        return f"etcd://127.0.0.1:{port}/{self.prefix}"

    def counts(self) -> Counts:
        """As of Server. What renews leases is no change."""
        answer = self._gateway.call("kv/range", {"key": to_base64("any")})
        changes = int(answer["header"]["revision"])
        return Counts(changes, changes, changes)

    def register(self, numbers: range) -> None:
        """As of Server."""
        for number in numbers:
            one = record(number)
            text = json.dumps(write(one, "a" * 32))
            key = to_base64(f"{self.prefix}/{NODES}{one.name}")
            self._gateway.call("kv/put", {"key": key, "value": to_base64(text)})

    @property
    def _gateway(self) -> Gateway:
        return Gateway(Location.parse(self.url(self.etcd.client_port)))


@contextmanager
def etcd(_: str) -> Iterator[Etcd]:
    """An etcd that answers."""
    with tempfile.TemporaryDirectory() as directory, etcds.running(Path(directory)) as one:
        one.wait()
        yield Etcd(one)


@dataclass
class File:
    """An embedded store, which the first setup makes. Nothing of it passes a network."""

    path: Path
    where: tuple[str, int] = ("127.0.0.1", 9)

    def url(self, _: int) -> str:
        """As of Server."""
        return f"sqlite:{self.path}"

    def counts(self) -> Counts:
        """As of Server."""
        return Counts(0, 0, 0)

    def register(self, numbers: range) -> None:
        """As of Server."""
        with connection.connect(self.path, CLUSTER) as db, schema.transaction(db):
            for number in numbers:
                write_row(db, record(number), identity="a" * 32, heartbeat=time.time())


@contextmanager
def file(_: str) -> Iterator[File]:
    """A directory for one."""
    with tempfile.TemporaryDirectory() as directory:
        yield File(Path(directory) / "store" / "cluster.db")
