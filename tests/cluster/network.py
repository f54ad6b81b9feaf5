# SPDX-License-Identifier: Apache-2.0
"""pycni in a cluster: its image on every machine, and its manifest, as anybody applies it.

The control plane is a node, too, with a taint: so it reaches the pods of the others.
"""

from __future__ import annotations

import shutil
from functools import partial

from cluster.commands import CNI_BIN
from cluster.kubectl import Kubectl
from cluster.layout import API_PORT, Cluster, address
from cluster.machine import Machine
from cluster.waiting import until
from image import manifests
from pycni.errors import PycniError
from pycni.lab.layout import LabNode

LOOPBACK = "/usr/lib/cni/loopback"
"""containerd wants this plugin beside ours; of Debian's containernetworking-plugins."""
DAEMONSET = "pycni"
NAMESPACE = "kube-system"
KINDS_SECONDS = 30.0
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


def apply(cluster: Cluster, kubectl: Kubectl) -> None:
    """pycni's kinds, then all else: the API must know kinds before their objects come."""
    kinds = list(manifests.pieces([manifests.CRDS]))
    kubectl.apply(kinds)
    for kind in kinds:
        name = f"customresourcedefinition/{kind['metadata']['name']}"
        kubectl("wait", "--for=condition=Established", name, f"--timeout={KINDS_SECONDS:g}s",
                timeout=KINDS_SECONDS + 10)  # fmt: skip
    (network,) = manifests.pieces([manifests.CLUSTER_NETWORK])
    server = (address(cluster.control), API_PORT)
    kubectl.apply(manifests.adapted(network["spec"], api_server=server))


def wait_until_ready(kubectl: Kubectl) -> None:
    """Until an agent serves on every node. Raises PycniError."""
    until(partial(_is_rolled_out, kubectl), "pycni serves on every node: see `python -m cluster "
          f"kubectl -n {NAMESPACE} describe pods`", READY_SECONDS)  # fmt: skip


def run(kubectl: Kubectl, node: LabNode, *arguments: str) -> str:
    """What pycni's command line says in the agent's pod of a node. Raises PycniError."""
    pods = kubectl.get("pods", f"--namespace={NAMESPACE}",
                       f"--selector=app.kubernetes.io/name={DAEMONSET}",
                       f"--field-selector=spec.nodeName={node.name}")["items"]  # fmt: skip
    if not pods:
        raise PycniError(
            f"no agent of pycni runs on {node.name}",
            hint=f"see: python -m cluster kubectl -n {NAMESPACE} describe daemonset {DAEMONSET}",
        )
    name = pods[0]["metadata"]["name"]
    words = ("exec", f"--namespace={NAMESPACE}", name, "--container=agent", "--", "pycni")
    return kubectl(*words, *arguments)


def _is_rolled_out(kubectl: Kubectl) -> bool:
    status = kubectl.get("daemonset", DAEMONSET, f"--namespace={NAMESPACE}")["status"]
    wanted: int = status["desiredNumberScheduled"]
    return wanted > 0 and status.get("numberReady", 0) == wanted
