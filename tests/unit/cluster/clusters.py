# SPDX-License-Identifier: Apache-2.0
"""A cluster that is only drawn."""

from __future__ import annotations

from pathlib import Path

from cluster.layout import Cluster

PROGRAMS = Path("/programs")
BASE = Path("/clusters")


def drawn(
    *, name: str = "k8s", nodes: int = 2, kube_proxy: str = "nftables", containerd: str = ""
) -> Cluster:
    return Cluster(name, nodes, kube_proxy, "1.37.2", BASE, containerd)
