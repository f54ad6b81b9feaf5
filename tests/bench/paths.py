# SPDX-License-Identifier: Apache-2.0
"""The paths that packets are measured on: a client's namespace, a server's, and what lies between.

Between nodes, each path has two nodes of its own, joined by one veth pair; on a node, one node of
its own. All are made alike: nothing but what the path needs, kernel defaults for the rest. What
`laid` makes goes with the end of its `with`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface
from itertools import count, islice
from pathlib import Path as FilePath

from bench import limit, routed
from bench.wires import add_veth, join_nodes, open_iproute, set_address, set_up
from loader.compile import compile_programs
from pycni import stores
from pycni.dataplane import maps
from pycni.errors import PycniError
from pycni.files import make_private_directory
from pycni.lab import cluster, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import NODE_UPLINK, LabNode, draw
from pycni.node import direct, ipip, next_hops
from pycni.settings import Settings, load
from pycni.stores import open_store

BETWEEN_NODES, ON_A_NODE = "between nodes", "on a node"

NODE_TO_NODE, ROUTED, METADATA, OWN = "node-to-node", "routed vxlan", "metadata vxlan", "own encap"
CROWDED = "own encap, many nodes"
OWN_IPIP = "own ipip"
DIRECT = "direct"
VETH, BRIDGE, OWN_LOCAL = "veth pair", "bridge", "pycni"
LIMIT, LIMIT_LOCAL = "redirect only", "redirect only, on a node"

WAYS = {direct.ALL: stores.DIRECT, ipip.ENCAP: stores.IPIP}
"""By `encap`, where packets are not in VXLAN."""
CLUSTER = ["10.128.0.0/9", "fd00:10::/48"]
"""Room for more than 5,000 nodes."""
BASE = FilePath(f"/run/bench{os.getpid()}")
CACHE = BASE / "cache"
POD_ONE, POD_TWO = IPv4Interface("10.99.0.2/24"), IPv4Interface("10.99.0.3/24")
NODE_ONE, NODE_TWO = IPv4Interface("198.18.0.1/24"), IPv4Interface("198.18.0.2/24")
STRANGERS = IPv4Interface("198.19.0.0/16").network
"""Where the nodes that only fill maps have their VTEPs."""


@dataclass(frozen=True)
class Path:
    """`client` and `server` are names of namespaces; `address` is the server's IPv4 address."""

    name: str
    where: str
    client: str
    server: str
    address: str
    links: tuple[tuple[str, str], ...] = ()
    """(namespace, interface) of the nodes' uplinks, or of the veths between pods."""
    sending: FilePath | None = None
    """Pinned programs of the client's node, where pycni is on the path."""
    receiving: FilePath | None = None
    """The same of the server's node."""


@contextmanager
def laid(*, nodes: int, between: Callable[[], None]) -> Iterator[tuple[Path, ...]]:
    """All paths; `nodes` is how many the crowded pair's maps know.

    `between` is called before each of them, and may raise.
    """
    made = []
    with ExitStack() as undo:
        make_private_directory(BASE)
        undo.callback(shutil.rmtree, BASE, ignore_errors=True)  # the last lab's end removes it, too
        for path in (
            _node_to_node(),
            _routed(),
            _between_own_nodes(METADATA, encap="kernel"),
            _between_own_nodes(OWN, encap="ebpf"),
            _between_own_nodes(CROWDED, encap="ebpf", nodes=nodes),
            _between_own_nodes(OWN_IPIP, encap=ipip.ENCAP),
            _between_own_nodes(DIRECT, encap=direct.ALL),
            _redirect_only(),
            _veth_pair(),
            _bridge(),
            _on_own_node(),
            _redirect_only_on_a_node(),
        ):
            between()
            made.append(undo.enter_context(path))
        yield tuple(made)


def namespace(name: str, undo: ExitStack) -> str:
    """A namespace whose name tells it from other benches'."""
    full = f"bench{os.getpid()}-{name}"
    topology.make_netns(full)
    undo.callback(topology.remove_netns, full)
    return full


@contextmanager
def _node_to_node() -> Iterator[Path]:
    with ExitStack() as undo:
        one, two = namespace("bare1", undo), namespace("bare2", undo)
        links = join_nodes((one, NODE_ONE), (two, NODE_TWO))
        yield Path(NODE_TO_NODE, BETWEEN_NODES, one, two, str(NODE_TWO.ip), links)


@contextmanager
def _routed() -> Iterator[Path]:
    with ExitStack() as undo:
        hosts = namespace("routed1", undo), namespace("routed2", undo)
        pods = namespace("routed1-pod", undo), namespace("routed2-pod", undo)
        links = join_nodes((hosts[0], NODE_ONE), (hosts[1], NODE_TWO))
        nodes = (
            routed.Node(hosts[0], pods[0], number=1, underlay=NODE_ONE.ip),
            routed.Node(hosts[1], pods[1], number=2, underlay=NODE_TWO.ip),
        )
        routed.build(nodes)
        yield Path(ROUTED, BETWEEN_NODES, *pods, str(nodes[1].pod.ip), links)


@contextmanager
def _between_own_nodes(name: str, *, encap: str, nodes: int = 2) -> Iterator[Path]:
    with _own_lab(name, nodes=2, pods=1, encap=encap, known=nodes) as lab:
        one, two = lab.layout.nodes
        settings = load(one.settings_path), load(two.settings_path)
        yield Path(
            name,
            BETWEEN_NODES,
            lab.layout.pods[0].netns,
            lab.layout.pods[1].netns,
            lab.addresses(lab.layout.pods[1])[0],
            tuple((node.netns, NODE_UPLINK) for node in (one, two)),
            *(_programs(each) for each in settings),
        )


@contextmanager
def _veth_pair() -> Iterator[Path]:
    with ExitStack() as undo:
        one, two = namespace("veth1", undo), namespace("veth2", undo)
        links = join_nodes((one, POD_ONE), (two, POD_TWO))
        yield Path(VETH, ON_A_NODE, one, two, str(POD_TWO.ip), links)


@contextmanager
def _bridge() -> Iterator[Path]:
    with ExitStack() as undo:
        host = namespace("bridge", undo)
        with open_iproute(host) as ipr:
            ipr.link("add", ifname="br0", kind="bridge")
            (bridge,) = ipr.link_lookup(ifname="br0")
            set_up(ipr, bridge)
        pods = []
        for number, address in enumerate((POD_ONE, POD_TWO)):
            pods.append(namespace(f"bridge-pod{number}", undo))
            add_veth(host, f"pod{number}", pods[-1], bridge=bridge)
            set_address(pods[-1], address)
        yield Path(
            BRIDGE,
            ON_A_NODE,
            pods[0],
            pods[1],
            str(POD_TWO.ip),
            tuple((pod, "eth0") for pod in pods),
        )


@contextmanager
def _redirect_only() -> Iterator[Path]:
    with ExitStack() as undo:
        hosts = namespace("limit1", undo), namespace("limit2", undo)
        pods = namespace("limit1-pod", undo), namespace("limit2-pod", undo)
        links = join_nodes((hosts[0], NODE_ONE), (hosts[1], NODE_TWO))
        one = limit.Pod((pods[0], POD_ONE), hosts[0], "pod")
        two = limit.Pod((pods[1], POD_TWO), hosts[1], "pod")
        limit.join_pods(one, two, undo)
        yield Path(LIMIT, BETWEEN_NODES, *pods, str(POD_TWO.ip), links)


@contextmanager
def _redirect_only_on_a_node() -> Iterator[Path]:
    with ExitStack() as undo:
        host = namespace("limit", undo)
        pods = namespace("limit-pod1", undo), namespace("limit-pod2", undo)
        one = limit.Pod((pods[0], POD_ONE), host, "pod1")
        two = limit.Pod((pods[1], POD_TWO), host, "pod2")
        limit.join_pods(one, two, undo)
        links = tuple((pod, "eth0") for pod in pods)
        yield Path(LIMIT_LOCAL, ON_A_NODE, *pods, str(POD_TWO.ip), links)


@contextmanager
def _on_own_node() -> Iterator[Path]:
    with _own_lab(OWN_LOCAL, nodes=1, pods=2, encap="kernel") as lab:
        (node,) = lab.layout.nodes
        programs = _programs(load(node.settings_path))
        one, two = lab.layout.pods
        yield Path(
            OWN_LOCAL, ON_A_NODE, one.netns, two.netns, lab.addresses(two)[0],
            tuple((pod.netns, "eth0") for pod in (one, two)), programs, programs,
        )  # fmt: skip


@contextmanager
def _own_lab(name: str, *, nodes: int, pods: int, encap: str, known: int = 0) -> Iterator[Lab]:
    """Nodes of pycni, joined by one veth pair if there are two; no bridge is between them.

    `known` is how many nodes the store has, these included.
    """
    label = f"bench{os.getpid()}-" + "".join(c for c in name if c.isalnum())
    lab = Lab(draw(label, nodes=nodes, pods=pods, base=BASE))
    with ExitStack() as undo:
        make_private_directory(lab.layout.directory)
        undo.callback(cluster.down, lab)
        lab.save()
        topology.make_underlay(lab.layout)
        for node in lab.layout.nodes:
            cluster.prepare_node(lab, node)
            _add_settings(node, encap)
        if known > nodes:
            _crowd(lab, known - nodes)
        if nodes == 2:
            one, two = lab.layout.nodes
            join_nodes((one.netns, NODE_ONE), (two.netns, NODE_TWO), default_routes=True)
        compile_programs(CACHE)
        for node in lab.layout.nodes:
            lab.start_agent(node)
        for node in lab.layout.nodes:
            cluster.wait_for_agent(lab, node)
        for node in lab.layout.nodes:
            _wait_until_known(load(node.settings_path), max(known, nodes))
            if encap in WAYS:
                _wait_until_sent(load(node.settings_path), WAYS[encap])
        for pod in lab.layout.pods:
            topology.make_netns(pod.netns)
            lab.attach(pod)
        yield lab


def _add_settings(node: LabNode, encap: str) -> None:
    settings = node.settings_path.read_text().replace(
        str(node.directory.parent / "cache"), str(CACHE)
    )
    settings += f'cluster_cidrs = {json.dumps(CLUSTER)}\nencap = "{encap}"\n'
    node.settings_path.write_text(settings)


def _programs(settings: Settings) -> FilePath:
    return settings.pin_root / "programs"


def _crowd(lab: Lab, nodes: int) -> None:
    """Put nodes that do not exist into the store, before those that do join.

    Past `Store.register`, which looks at all nodes to give one its CIDRs.
    """
    settings = load(lab.layout.nodes[0].settings_path)
    open_store(settings.store_url, settings.cluster)
    cidr4, cidr6 = (
        islice(cidr.subnets(new_prefix=settings.cluster.node_prefix(cidr.version)), nodes)
        for cidr in settings.cluster_cidrs
    )
    rows = [
        (f"stranger{number}", number, str(vtep), str(pods4), str(pods6), "", 0.0)
        for number, vtep, pods4, pods6 in zip(count(1), STRANGERS.hosts(), cidr4, cidr6)
    ]
    with closing(sqlite3.connect(settings.store_url.removeprefix("sqlite:"))) as db, db:
        db.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _wait_until_known(settings: Settings, nodes: int) -> None:
    """Raises PycniError if a node does not know all others within a minute."""

    def known() -> bool:
        with maps.open_vteps(settings.pin_root) as vteps:
            return len(list(vteps.items())) == nodes - 1

    _wait(known, f"{settings.node_name} does not know all {nodes} nodes")


def _wait_until_sent(settings: Settings, way: str) -> None:
    """Raises PycniError if a node does not send to all others that way within a minute."""

    def is_so() -> bool:
        return set(next_hops.modes(settings).values()) == {way}

    _wait(is_so, f"{settings.node_name} does not send {way}")


def _wait(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + cluster.AGENT_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise PycniError(problem)
        time.sleep(0.1)
