# SPDX-License-Identifier: Apache-2.0
"""etcd, the API server, the controller manager and the scheduler."""

from __future__ import annotations

from pathlib import Path

from cluster import commands
from cluster.kubectl import Kubectl
from cluster.layout import Cluster
from cluster.machine import Machine
from cluster.waiting import until

API_SECONDS = 120.0
DAEMONS = ("etcd", "api-server", "controller-manager", "scheduler")


def start(cluster: Cluster, programs: Path) -> None:
    """Start them; returns when the API server is ready. Raises PycniError."""
    machine = Machine(cluster.control)
    machine.start_daemon("etcd", commands.etcd(programs))
    machine.start_daemon("api-server", commands.api_server(cluster, programs))
    kubectl = Kubectl(cluster, programs)

    def is_ready() -> bool:
        machine.require("etcd", "api-server")
        return kubectl.run("get", "--raw=/readyz").returncode == 0

    until(is_ready, f"the API server is ready; its log: {machine.log_path('api-server')}",
          API_SECONDS)  # fmt: skip
    machine.start_daemon("controller-manager", commands.controller_manager(cluster, programs))
    machine.start_daemon("scheduler", commands.scheduler(cluster, programs))
