# SPDX-License-Identifier: Apache-2.0
"""pycni in a cluster: what it needs of machines, and its agents. release.py installs it.

The control plane is a node, too, with a taint: so it reaches the pods of the others.
"""

from __future__ import annotations

import json
import shutil
from functools import partial

from cluster import proc
from cluster.commands import CNI_BIN
from cluster.kubectl import Kubectl
from cluster.machine import Machine
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab import processes
from pycni.lab.layout import LabNode
from pycni.lab.processes import Kept
from pycni.upkeep.report import State

LOOPBACK = "/usr/lib/cni/loopback"
"""containerd wants this plugin beside ours; of Debian's containernetworking-plugins."""
DAEMONSET = "pycni"
AGENT_OPTION = "--install-list"
"""Of the agent's command line, and of no other's."""
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
    """Until an agent serves on every node. Raises PycniError with what its containers say: who is
    told often has no cluster any more to ask."""
    try:
        until(partial(_is_rolled_out, kubectl), "pycni serves on every node", READY_SECONDS)
    except PycniError as error:
        raise PycniError(
            error.message, details="\n".join(last_words(kubectl)), hint=error.hint
        ) from error


def last_words(kubectl: Kubectl) -> list[str]:
    """What the containers of pycni's pods said as they ended or wait for, a line each. Raises
    PycniError."""
    pods = kubectl.get("pods", f"--namespace={NAMESPACE}",
                       f"--selector=app.kubernetes.io/name={DAEMONSET}")["items"]  # fmt: skip
    return [
        f"{pod['metadata']['name']} {one['name']}: {json.dumps(state)}"
        for pod in pods
        for field in ("initContainerStatuses", "containerStatuses")
        for one in pod["status"].get(field, ())
        for state in (one.get("state", {}), one.get("lastState", {}))
        if state.get("terminated", {}).get("exitCode") or state.get("waiting")
    ]


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


def faults(kubectl: Kubectl, node: LabNode) -> list[str]:
    """What `pycni status` of a node calls degraded or broken, a line each. Raises PycniError."""
    done = kubectl.run(*command(kubectl, node, "status", "--output", "json"))
    try:
        rows = json.loads(done.stdout)
    except ValueError as error:
        words = done.stderr.decode(errors="replace").strip()[-1000:]
        raise PycniError(
            f"pycni status of {node.name} says nothing", details=words,
            hint=f"see the agent: kubectl -n {NAMESPACE} logs daemonset/{DAEMONSET}",
        ) from error  # fmt: skip
    ill = (str(State.DEGRADED), str(State.BROKEN))
    return [f"{row['name']}: {row['cause']}" for row in rows if row["state"] in ill]


def agent(node: LabNode) -> Kept | None:
    """The agent's process on a node, the first one of its container; None if none runs."""
    for one in processes.inhabitants(node.netns):
        if proc.is_first(one.pid) and AGENT_OPTION in proc.words(one.pid):
            return one
    return None


def _is_rolled_out(kubectl: Kubectl) -> bool:
    status = kubectl.get("daemonset", DAEMONSET, f"--namespace={NAMESPACE}")["status"]
    wanted: int = status["desiredNumberScheduled"]
    return wanted > 0 and status.get("numberReady", 0) == wanted
