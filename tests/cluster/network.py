# SPDX-License-Identifier: Apache-2.0
"""pycni on a cluster's machines: its wheel, its agent, and the plugin, with etcd as the store.

The control plane is a node of pycni, too, without pods: so it reaches those of the others.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from cluster.commands import CNI_BIN, CNI_CONF, Command
from cluster.layout import Cluster
from cluster.machine import Machine
from pycni.errors import PycniError
from pycni.files import replace_file
from vm import payload

LOOPBACK = Path("/usr/lib/cni/loopback")
"""containerd wants this plugin beside ours; of Debian's containernetworking-plugins."""
SETTINGS = "/etc/pycni/pycni.toml"
AGENT = "pycni"
READY_SECONDS = 120


def prepare(cluster: Cluster) -> None:
    """Build this tree's wheel and install it into the cluster's environment."""
    with tempfile.TemporaryDirectory(dir=cluster.directory) as scratch:
        payload.make_environment(cluster.python, Path(scratch) / "wheel")


def start(cluster: Cluster, machine: Machine) -> None:
    """The agent with its settings; returns as soon as it runs."""
    replace_file(machine.path(SETTINGS), settings(cluster, machine.name).encode())
    machine.start_daemon(AGENT, command(cluster, "--verbose", "agent"))


def install(cluster: Cluster, machine: Machine) -> None:
    """Wait until the agent serves the machine, then make the plugin known to its runtime.

    Not before: with the network list a node is ready, and pods come.
    """
    if not LOOPBACK.exists():
        raise PycniError(f"the plugin {LOOPBACK} is missing", hint="install it: make test-packages")
    waiting = command(cluster, "status", "--wait", str(READY_SECONDS))
    done = machine.run(waiting, timeout=READY_SECONDS + 30, check=False)
    machine.require(AGENT)
    if done.returncode not in (0, 1):  # 1: it forwards, and something is to be mended
        raise PycniError(
            f"pycni does not forward on {machine.name}",
            details=(done.stdout + done.stderr).strip()[-1500:],
            hint=f"see its log: {machine.log_path(AGENT)}",
        )
    arguments = ("install", "--bin-dir", CNI_BIN, "--conf-dir", CNI_CONF)
    machine.run(command(cluster, *arguments))
    shutil.copy(LOOPBACK, machine.path(CNI_BIN) / LOOPBACK.name)


def settings(cluster: Cluster, name: str) -> str:
    """The settings of a node, /etc/pycni/pycni.toml."""
    values = {
        "node_name": name,
        "store": cluster.store,
        "cache_dir": str(cluster.directory / "cache"),
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def command(cluster: Cluster, *arguments: str) -> Command:
    """pycni's command line; in a machine it finds the machine's settings."""
    return [cluster.python / "bin" / "python", "-I", "-m", "pycni", *arguments]
