# SPDX-License-Identifier: Apache-2.0
"""A cluster as a whole: brought up, found again, taken down.

Its record is written before anything is made, so `down` finds all of it even if `up` was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from cluster import (
    build,
    cgroups,
    control_plane,
    images,
    keys,
    kubeconfig,
    layout,
    manifests,
    network,
    node,
    recipe,
    release,
    runtime,
)
from cluster.kubectl import Kubectl, is_ready
from cluster.layout import Cluster
from cluster.machine import Machine
from cluster.waiting import until
from image import build as image
from pycni.errors import NotAvailable, PycniError
from pycni.files import make_private_directory, replace_file
from pycni.lab import topology
from pycni.lab.layout import LabNode
from vm import cache

RECORD = "cluster.json"
FIELDS = ("name", "nodes", "kube_proxy", "kubernetes")
"""Of a Cluster, in its record."""
CHOSEN = ("containerd", "encap")
"""Others, which records of older versions lack."""
PROXY_PROGRAMS = {
    "nftables": {"nft": "nftables"},
    "iptables": {"iptables": "iptables"},
    "none": dict[str, str](),
}
"""Of the computer, that run in the machines: each with its Debian package."""
NODE_SECONDS = 120.0
DNS_SECONDS = 120.0
CGROUP_SECONDS = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Running:
    """A cluster that is up, and its programs."""

    cluster: Cluster
    programs: Path

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.cluster, self.programs)


def base() -> Path:
    """The directory of all clusters."""
    return cache.directory("clusters")


def load(name: str) -> Running:
    """The cluster of that name, up or half up. Raises NotAvailable if there is none, or PycniError
    if its record is damaged. What a newer version wrote besides is left aside."""
    record = base() / name / RECORD
    try:
        document = json.loads(record.read_bytes())
        fields = {field: document[field] for field in FIELDS}
        programs = Path(document["programs"])
    except (FileNotFoundError, NotADirectoryError):
        raise NotAvailable(
            f"there is no cluster {name}",
            hint=f"those that are up: {', '.join(names()) or 'none'}; start one: "
            f"python -m cluster up --name {name}",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise PycniError(
            f"the record {record} is damaged: {error!r}",
            hint=f"end what still runs of cluster {name}, then remove {record.parent}",
        ) from error
    chosen: dict[str, Any] = {field: str(document.get(field, "")) for field in CHOSEN}
    return Running(Cluster(**fields, base=base(), **chosen), programs)


def names() -> list[str]:
    """Of the clusters that are up or half up."""
    return sorted(path.parent.name for path in base().glob(f"*/{RECORD}"))


def up(cluster: Cluster, tell: Tell, *, bare: bool = False) -> Running:
    """Bring a cluster up; everything is taken down again if that fails or is interrupted.

    A `bare` one has no network plugin yet, and so no node that is Ready. Builds Kubernetes first,
    and containerd, if that was not done yet. Raises PycniError or ArchiveError.
    """
    layout.check(cluster)
    _require_room(cluster)
    _require_programs(cluster)
    programs = build.provide(recipe.Kubernetes(cluster.kubernetes), recipe.CLUSTER, tell=tell)
    runtime.provide(cluster.containerd, tell)
    archives = [*images.provide(programs, tell=tell), image.provide(tell=tell).archive]
    running = Running(cluster, programs)
    _record(running)
    try:
        timed = _timed(tell)
        _start_nodes(running, archives, timed)
        (_wait_for_nodes if bare else _install)(running, timed)
    except BaseException:
        down(cluster)
        raise
    return running


@contextmanager
def lifetime(cluster: Cluster, tell: Tell, *, bare: bool = False) -> Iterator[Running]:
    """A cluster that is up inside of the block, and taken down after it, however that ends."""
    running = up(cluster, tell, bare=bare)
    try:
        yield running
    finally:
        down(cluster)


def down(cluster: Cluster) -> None:
    """Take everything of a cluster down, whatever state it is in. Raises PycniError."""
    with _undisturbed():
        for machine in cluster.machines:
            Machine(machine).end()
        for one in cluster.machines:
            until(partial(_without_cgroups, cluster.cgroup(one)),
                  f"the control groups of {one.name} are empty", CGROUP_SECONDS)  # fmt: skip
        for netns in cluster.layout.namespaces:
            topology.remove_netns(netns)
        _remove_directory(cluster.directory)


def _remove_directory(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        raise PycniError(
            f"the directory {directory} cannot be removed",
            hint=f"see what is there, and whether something is mounted below: findmnt; "
            f"rm -r {directory}",
        )


def _start_nodes(running: Running, archives: Iterable[Path], tell: Tell) -> None:
    cluster, programs = running.cluster, running.programs
    keys.make_files(cluster)
    kubeconfig.write(cluster, keys.make_tokens(cluster))
    topology.make_underlay(cluster.layout)
    for one in cluster.layout.nodes:
        topology.make_node(cluster.layout, one)
    for one in cluster.machines:
        Machine(one).start(programs / "pause")
    tell("keys, network, machines")
    together(lambda work: work(), [
        partial(control_plane.start, cluster, programs),
        *(partial(node.start_runtime, cluster, one, images=list(archives))
          for one in cluster.machines),
    ])  # fmt: skip
    tell("the API server is ready, containerd runs with the images")
    for one in cluster.machines:
        node.start_kubelet(cluster, programs, one)
        node.start_proxy(cluster, programs, one)


def _wait_for_nodes(running: Running, tell: Tell) -> None:
    """Until every machine is a node, though none is Ready without a network plugin."""
    wanted = {one.name for one in running.cluster.machines}

    def are_there() -> bool:
        nodes = running.kubectl.get("nodes")["items"]
        return {item["metadata"]["name"] for item in nodes} == wanted

    until(are_there, "every machine is a node", NODE_SECONDS)
    tell("every machine is a node, without a network plugin")


def _install(running: Running, tell: Tell) -> None:
    """pycni, and what needs a network."""
    cluster = running.cluster
    release.apply(cluster, running.kubectl)
    network.wait_until_ready(running.kubectl)
    tell("pycni serves on every node")
    for one in cluster.machines:
        until(partial(_node_is_ready, running, one), f"{one.name} is Ready", NODE_SECONDS)
    tell("all nodes are Ready")
    if cluster.kube_proxy != "none":
        _start_dns(running)
        tell("the cluster's DNS answers")


def _start_dns(running: Running) -> None:
    running.kubectl.apply(manifests.dns())
    until(partial(_dns_is_ready, running), "the cluster's DNS is ready", DNS_SECONDS)


def _node_is_ready(running: Running, one: LabNode) -> bool:
    Machine(one).require("containerd", "kubelet")
    nodes = running.kubectl.get("nodes")["items"]
    return any(item["metadata"]["name"] == one.name and is_ready(item) for item in nodes)


def _dns_is_ready(running: Running) -> bool:
    for one in running.cluster.machines:
        Machine(one).require("kube-proxy")  # by which the DNS reaches the API server
    deployment = running.kubectl.get("deployment", "coredns", "--namespace=kube-system")
    ready: int = deployment["status"].get("readyReplicas", 0)
    wanted: int = deployment["spec"]["replicas"]
    return ready == wanted


def together(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Do something for each, side by side, and for the first one in this thread.

    Raises what the first one raises. If that, or Ctrl-C, comes while others are at work, they are
    not waited for: they end by themselves when the machines are taken down.
    """
    first, *others = items
    pool = ThreadPoolExecutor(max_workers=len(others) or 1)
    try:
        waiting = [pool.submit(work, item) for item in others]
        work(first)
        for done in waiting:
            done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What asks us to end has to wait. For the main thread; a mask would leave it to others."""
    waiting: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        waiting.append(number)

    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.signal(one, remember) for one in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for received in waiting[:1]:
            signal.raise_signal(received)


def _require_programs(cluster: Cluster) -> None:
    """Raises PycniError naming the packages of programs that are missing here."""
    wanted = {**runtime.of(cluster).wanted, **PROXY_PROGRAMS[cluster.kube_proxy]}
    missing = {package: name for name, package in wanted.items() if shutil.which(name) is None}
    if missing:
        raise PycniError(
            f"a cluster with kube-proxy {cluster.kube_proxy} needs {', '.join(missing.values())}",
            hint=f"apt-get install {' '.join(missing)}",
        )


def _require_room(cluster: Cluster) -> None:
    """Raises PycniError if the name is taken, or the caller is not root."""
    if os.geteuid() != 0:
        raise PycniError("a cluster needs root", hint="run it as root, or with sudo")
    if (cluster.directory / RECORD).exists():
        raise _taken(cluster)
    strangers = [netns for netns in cluster.layout.namespaces if topology.exists(netns)]
    if strangers:
        raise PycniError(
            f"there is a network namespace {strangers[0]} that is not of this cluster",
            hint="choose another --name",
        )


def _taken(cluster: Cluster) -> PycniError:
    return PycniError(
        f"the cluster {cluster.name} is up already",
        hint=f"give another --name, or first: python -m cluster down --name {cluster.name}",
    )


def _record(running: Running) -> None:
    """Raises PycniError if the name is taken: by who was faster, since it was last looked."""
    cluster = running.cluster
    make_private_directory(cluster.directory)
    document = {field: getattr(cluster, field) for field in (*FIELDS, *CHOSEN)}
    document["programs"] = str(running.programs)
    aside = cluster.directory / f".{RECORD}.{os.getpid()}"
    replace_file(aside, json.dumps(document).encode())
    try:
        (cluster.directory / RECORD).hardlink_to(aside)
    except FileExistsError:
        raise _taken(cluster) from None
    finally:
        aside.unlink()


def _without_cgroups(name: str) -> bool:
    """Remove them; the kernel refuses while a process that was killed is in one."""
    try:
        cgroups.remove(name)
    except OSError:
        return False
    return True


def _timed(tell: Tell) -> Tell:
    """Lines with the seconds since the start."""
    begun = time.monotonic()
    return lambda words: tell(f"{time.monotonic() - begun:6.1f} s  {words}")
