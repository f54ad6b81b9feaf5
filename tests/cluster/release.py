# SPDX-License-Identifier: Apache-2.0
"""pycni by its manifests, as docs/kubernetes.md says: applied, changed to another release, removed.

The files are those of deploy/kubernetes, with the API server's address and the image's name filled
in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cluster.kubectl import Json, Kubectl
from cluster.layout import API_PORT, Cluster, address
from cluster.network import DAEMONSET, NAMESPACE, READY_SECONDS
from image import build, manifests

UNINSTALL = "pycni-uninstall"
GROUP = "pycni.dev"
"""Of our kinds."""
KINDS_SECONDS = 30.0
POD_FIELDS = ("initContainers", "containers")


def objects(cluster: Cluster, *, image: str = build.NAME) -> list[Json]:
    """All of them, for this cluster."""
    (network,) = manifests.pieces([manifests.CLUSTER_NETWORK])
    server = (address(cluster.control), API_PORT)
    settings = {"encap": cluster.encap} if cluster.encap else {}
    made = manifests.adapted(network["spec"], api_server=server, settings=settings)
    return with_image(made, image)


def kinds() -> list[Json]:
    return list(manifests.pieces([manifests.CRDS]))


def with_image(made: list[Json], image: str) -> list[Json]:
    """The same, with another image in each container."""
    for one in made:
        if one["kind"] == "DaemonSet":
            pod = one["spec"]["template"]["spec"]
            for container in (container for field in POD_FIELDS for container in pod[field]):
                container["image"] = image
    return made


def write(cluster: Cluster, name: str, made: Sequence[Json]) -> Path:
    """Objects as a file for `kubectl apply -f`."""
    path = cluster.directory / f"{name}.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(made)}))
    return path


def apply(cluster: Cluster, kubectl: Kubectl, *, image: str = build.NAME) -> None:
    """Install a release, or change to it; returns when all is in the API."""
    apply_kinds(cluster, kubectl)
    path = write(cluster, "pycni", objects(cluster, image=image))
    kubectl("apply", "--server-side", f"--filename={path}")


def apply_kinds(cluster: Cluster, kubectl: Kubectl) -> None:
    """The API must know kinds before their objects come."""
    path = write(cluster, "crds", kinds())
    kubectl("apply", "--server-side", f"--filename={path}")
    kubectl("wait", "--for=condition=Established", f"--filename={path}",
            f"--timeout={KINDS_SECONDS:g}s", timeout=KINDS_SECONDS + 10)  # fmt: skip


def daemonset(kubectl: Kubectl, name: str = DAEMONSET) -> Json:
    return kubectl.get("daemonset", name, f"--namespace={NAMESPACE}")


def is_rolled_out(found: Json) -> bool:
    """Whether every node has a ready pod of the DaemonSet as it is now."""
    status = found["status"]
    wanted: int = status["desiredNumberScheduled"]
    return (
        wanted > 0
        and status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedNumberScheduled", 0) == wanted
        and status.get("numberReady", 0) == wanted
    )


def uninstall(cluster: Cluster, kubectl: Kubectl, *, image: str = build.NAME) -> None:
    """As docs/kubernetes.md says, step by step."""
    take_nodes_back(cluster, kubectl, image=image)
    everything = write(cluster, "pycni", objects(cluster))
    kubectl("delete", f"--filename={everything}", "--ignore-not-found", timeout=READY_SECONDS)


def take_nodes_back(cluster: Cluster, kubectl: Kubectl, *, image: str) -> None:
    """All steps but the last one, which is of the way by which pycni was installed."""
    place = f"--namespace={NAMESPACE}"
    made = with_image(
        manifests.documents((manifests.KUBERNETES / "uninstall.yaml").read_text()), image
    )
    path = write(cluster, "uninstall", made)
    seconds = READY_SECONDS
    kubectl("delete", "daemonset", DAEMONSET, place, "--cascade=foreground", timeout=seconds)
    kubectl("apply", f"--filename={path}")
    kubectl("rollout", "status", "daemonset", UNINSTALL, place, f"--timeout={seconds:g}s",
            timeout=seconds + 10)  # fmt: skip
    kubectl("delete", f"--filename={path}", "--cascade=foreground", timeout=seconds)


def remaining(cluster: Cluster, kubectl: Kubectl) -> list[str]:
    """What the API still has of what `apply` made, by its names."""
    found = kubectl("api-resources", f"--api-group={GROUP}", "--output=name", "--cached=false")
    ours = {one["spec"]["names"]["kind"] for one in kinds()}
    others = [one for one in objects(cluster) if one["kind"] not in ours]
    path = write(cluster, "remaining", others)
    found += kubectl("get", f"--filename={path}", "--ignore-not-found", "--output=name")
    return found.split()
