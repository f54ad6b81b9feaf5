# SPDX-License-Identifier: Apache-2.0
"""What pycni's agents say in their pods: status and log."""

from __future__ import annotations

import json

from cluster.kubectl import Json, Kubectl
from cluster.network import DAEMONSET, NAMESPACE
from pycni.errors import PycniError
from pycni.lab.layout import LabNode

WHERE = f"--namespace={NAMESPACE}"
CONTAINER = "--container=agent"
HINT = f"see: python -m cluster kubectl -n {NAMESPACE} describe pods"


def status(kubectl: Kubectl, node: LabNode) -> list[Json]:
    """The rows of `pycni status` on a node, whether all is well or not. Raises PycniError."""
    command = ("pycni", "status", "--output", "json")
    done = kubectl.run("exec", WHERE, pod(kubectl, node), CONTAINER, "--", *command)
    if not done.stdout:
        words = done.stderr.decode(errors="replace").strip()[-1000:]
        raise PycniError(f"pycni tells no status of {node.name}", details=words, hint=HINT)
    rows: list[Json] = json.loads(done.stdout)
    return rows


def row(kubectl: Kubectl, node: LabNode, name: str) -> Json:
    """One of them. Raises PycniError."""
    return next(one for one in status(kubectl, node) if one["name"] == name)


def log(kubectl: Kubectl, node: LabNode) -> str:
    """What the agent of a node has logged since its container began. Raises PycniError."""
    return kubectl("logs", WHERE, pod(kubectl, node), CONTAINER)


def pod(kubectl: Kubectl, node: LabNode) -> str:
    """The name of the agent's pod. Raises PycniError."""
    chosen = (f"--selector=app.kubernetes.io/name={DAEMONSET}",
              f"--field-selector=spec.nodeName={node.name}")  # fmt: skip
    for found in kubectl.get("pods", WHERE, *chosen)["items"]:
        name: str = found["metadata"]["name"]
        return name
    raise PycniError(f"no agent of pycni runs on {node.name}", hint=HINT)
