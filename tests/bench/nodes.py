# SPDX-License-Identifier: Apache-2.0
"""The lab for measurements: a network namespace per plugin, all alike, all on one underlay.

`pycni` and `crowded` are nodes with a warm agent each; `ptp` and `bridge` have none. Nothing of the
machine's own network is touched, and nothing is left behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.calls import Command, Conf, cni_command
from pycni.files import make_private_directory
from pycni.lab import cluster, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, draw

DEBIAN_PLUGINS = Path("/usr/lib/cni")
CNI_VERSION = "1.0.0"
"""The highest that Debian 12's plugins speak."""

BASE = Path("/run")
SUBNETS = {"ptp": ("10.1.0.0/16", "fd00:1::/64"), "bridge": ("10.2.0.0/16", "fd00:2::/64")}
EVERYWHERE = ("0.0.0.0/0", "::/0")
CLUSTER4 = "10.244.0.0/16"


@dataclass(frozen=True)
class Contender:
    """A plugin with its configuration, on a node of its own, with pods' empty namespaces."""

    name: str
    node: LabNode
    plugin: Path
    conf: Conf
    pods: tuple[str, ...]

    def add(self, pod: int, container: str) -> Command:
        return self._call("ADD", pod, container)

    def delete(self, pod: int, container: str) -> Command:
        return self._call("DEL", pod, container)

    def version(self) -> Command:
        return cni_command("VERSION", plugin=self.plugin, conf={"cniVersion": CNI_VERSION})

    def _call(self, verb: str, pod: int, container: str) -> Command:
        return cni_command(
            verb, plugin=self.plugin, conf=self.conf, container=container, netns=self.pods[pod]
        )


@dataclass(frozen=True)
class Field:
    """All contenders; `crowded` is pycni again, on a node that has many pods."""

    pycni: Contender
    ptp: Contender
    bridge: Contender
    crowded: Contender
    agents: dict[str, int]
    """Process ids of the agents, by contender."""

    @property
    def rivals(self) -> tuple[Contender, ...]:
        return (self.pycni, self.ptp, self.bridge)


@contextmanager
def made(*, dual: bool, pods: int, crowd: int) -> Iterator[Field]:
    """The contenders with `pods` namespaces each, and `crowd` on the crowded node.

    `dual`: pods have addresses of both IP versions, else of IPv4 only.
    """
    name = f"bench{os.getpid()}"
    lab = Lab(draw(name, nodes=4, pods=0, base=BASE / name))
    first, crowded, *others = lab.layout.nodes
    with ExitStack() as undo:
        make_private_directory(lab.layout.directory.parent)
        make_private_directory(lab.layout.directory)
        undo.callback(cluster.down, lab)
        lab.save()
        topology.make_underlay(lab.layout)
        for node in (first, crowded):
            cluster.prepare_node(lab, node)
            if not dual:
                with node.settings_path.open("a") as settings:
                    settings.write(f'cluster_cidrs = ["{CLUSTER4}"]\n')
            lab.start_agent(node)
            cluster.wait_for_agent(lab, node)  # one after the other: the first one compiles
        for node in others:
            topology.make_node(lab.layout, node)

        def namespaces(node: LabNode, count: int) -> tuple[str, ...]:
            names = tuple(f"{node.netns}-pod{number}" for number in range(count))
            for one in names:
                topology.make_netns(one)
                undo.callback(topology.remove_netns, one)
            return names

        def debian(kind: str, node: LabNode) -> Contender:
            data = lab.layout.directory / kind
            conf = _debian_conf(kind, data=data, dual=dual)
            plugin = DEBIAN_PLUGINS / kind
            return Contender(kind, node, plugin, conf, namespaces(node, pods))

        def ours(label: str, node: LabNode, count: int) -> Contender:
            plugin = node.bin_dir / "pycni"
            return Contender(label, node, plugin, _our_conf(node), namespaces(node, count))

        yield Field(
            pycni=ours("pycni", first, pods),
            ptp=debian("ptp", others[0]),
            bridge=debian("bridge", others[1]),
            crowded=ours("crowded", crowded, crowd),
            agents={"pycni": lab.agents[first.name].pid, "crowded": lab.agents[crowded.name].pid},
        )


def _our_conf(node: LabNode) -> Conf:
    """What `pycni install` wrote for the node, without masquerading: the others have none."""
    (path,) = node.conf_dir.glob("*.conflist")
    conflist = json.loads(path.read_bytes())
    (own,) = conflist["plugins"]
    return {**own, "name": conflist["name"], "cniVersion": CNI_VERSION, "ipMasq": False}


def _debian_conf(kind: str, *, data: Path, dual: bool) -> Conf:
    versions = 2 if dual else 1
    ranges = [[{"subnet": subnet}] for subnet in SUBNETS[kind][:versions]]
    conf: Conf = {
        "cniVersion": CNI_VERSION,
        "name": kind,
        "type": kind,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": str(data),
            "ranges": ranges,
            "routes": [{"dst": one} for one in EVERYWHERE[:versions]],
        },
    }
    if kind == "bridge":
        conf |= {"bridge": "cni0", "isGateway": True}
    return conf
