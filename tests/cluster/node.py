# SPDX-License-Identifier: Apache-2.0
"""A node of Kubernetes: containerd with the images, kubelet, kube-proxy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cluster import cgroups, commands, network, runtime
from cluster.layout import Cluster
from cluster.machine import Machine
from cluster.waiting import until
from pycni.files import replace_file
from pycni.lab.layout import UNDERLAY4, LabNode

CONTAINERD_SECONDS = 30.0
IMPORT_SECONDS = 180.0
RESOLVERS = f"nameserver {UNDERLAY4.ip}\n"
"""The router answers nothing: the cluster's DNS knows the cluster, and nothing outside is asked."""


def start_runtime(cluster: Cluster, node: LabNode, images: Iterable[Path]) -> None:
    """containerd, and all images in it."""
    machine, chosen = Machine(node), runtime.of(cluster)
    cgroups.make(cluster.cgroup(node))
    network.give_loopback(machine)
    config = machine.directory / "containerd.toml"
    replace_file(config, chosen.configuration(node).encode())
    machine.start_daemon("containerd", chosen.daemon(config))

    def answers() -> bool:
        machine.require("containerd")
        return machine.run(chosen.ctr("version"), check=False).returncode == 0

    until(answers, f"containerd of {node.name} answers", CONTAINERD_SECONDS)
    for archive in images:
        load_image(cluster, node, archive)


def load_image(cluster: Cluster, node: LabNode, archive: Path) -> None:
    """Give a node the images of an archive."""
    command = runtime.of(cluster).ctr("images", "import", archive)
    Machine(node).run(command, timeout=IMPORT_SECONDS)


def start_kubelet(
    cluster: Cluster, programs: Path, node: LabNode, *, graceful: bool = False
) -> None:
    """kubelet; a `graceful` one ends its pods when the machine's logind announces a shutdown."""
    machine = Machine(node)
    configuration = commands.kubelet_configuration(cluster, node)
    if graceful:
        configuration |= commands.SHUTDOWN_PERIODS
    replace_file(node.directory / "kubelet.json", json.dumps(configuration, indent=2).encode())
    replace_file(machine.path("/etc/resolv.conf"), RESOLVERS.encode())
    machine.start_daemon("kubelet", commands.kubelet(cluster, programs, node))


def start_proxy(cluster: Cluster, programs: Path, node: LabNode) -> None:
    """kube-proxy, unless the cluster has none."""
    if cluster.kube_proxy != "none":
        Machine(node).start_daemon("kube-proxy", commands.kube_proxy(cluster, programs, node))
