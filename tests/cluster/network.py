# SPDX-License-Identifier: Apache-2.0
"""pycni in a cluster: what it needs of machines, and its agents. release.py installs it.

The control plane is a node, too, with a taint: so it reaches the pods of the others.
"""

from __future__ import annotations

import shutil
from functools import partial

from cluster.commands import CNI_BIN
from cluster.kubectl import Kubectl
from cluster.machine import Machine
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab.layout import LabNode

LOOPBACK = "/usr/lib/cni/loopback"
"""containerd wants this plugin beside ours; of Debian's containernetworking-plugins."""
DAEMONSET = "pycni"
NAMESPACE = "kube-system"
READY_SECONDS = 120.0


def give_loopback(machine: Machine) -> None:
    """Raises PycniError if this computer has no such plugin."""
    directory = machine.path(CNI_BIN)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy(LOOPBACK, directory)
    except FileNotFoundError as error:
        raise PycniError(
            f"the plugin {LOOPBACK} is missing", hint="install it: make test-packages"
        ) from error


def wait_until_ready(kubectl: Kubectl) -> None:
    """Until an agent serves on every node. Raises PycniError."""
    until(partial(_is_rolled_out, kubectl), "pycni serves on every node: see `python -m cluster "
          f"kubectl -n {NAMESPACE} describe pods`", READY_SECONDS)  # fmt: skip


def agent_of(kubectl: Kubectl, node: LabNode) -> str:
    """The name of the agent's pod on a node. Raises PycniError."""
    pods = kubectl.get("pods", f"--namespace={NAMESPACE}",
                       f"--selector=app.kubernetes.io/name={DAEMONSET}",
                       f"--field-selector=spec.nodeName={node.name}")["items"]  # fmt: skip
    if not pods:
        raise PycniError(
            f"no agent of pycni runs on {node.name}",
            hint=f"see: python -m cluster kubectl -n {NAMESPACE} describe daemonset {DAEMONSET}",
        )
    return str(pods[0]["metadata"]["name"])


def run(kubectl: Kubectl, node: LabNode, *arguments: str) -> str:
    """What pycni's command line says in the agent's pod of a node. Raises PycniError."""
    return kubectl(*command(kubectl, node, *arguments))


def command(kubectl: Kubectl, node: LabNode, *arguments: str) -> tuple[str, ...]:
    """Arguments of kubectl for pycni's command line in the agent's pod of a node."""
    place = (f"--namespace={NAMESPACE}", agent_of(kubectl, node), "--container=agent")
    return ("exec", *place, "--", "pycni", *arguments)


def _is_rolled_out(kubectl: Kubectl) -> bool:
    status = kubectl.get("daemonset", DAEMONSET, f"--namespace={NAMESPACE}")["status"]
    wanted: int = status["desiredNumberScheduled"]
    return wanted > 0 and status.get("numberReady", 0) == wanted
