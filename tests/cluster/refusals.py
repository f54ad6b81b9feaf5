# SPDX-License-Identifier: Apache-2.0
"""Installations that cannot be: each says in its pod why, and leaves the host as it was.

Each is the manifest with one thing wrong, on one node of a cluster without a network plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from cluster import foreign, release
from cluster.bare import Rollout, bare_again
from cluster.kubectl import Json
from cluster.layout import Cluster
from cluster.machine import Machine
from cluster.network import DAEMONSET, NAMESPACE
from cluster.verdicts import Found, one
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode

SAID_SECONDS = 90.0
GONE_SECONDS = 180.0
LOCK = "/run/pycni/locks/network.lock"
"""The empty file of a lock stays until the teardown (pycni/locks.py)."""
NOBODY_LISTENS = "1"
"""A port."""
LONG_NAME = "n" * 64
"""A label of DNS has 63 characters."""
READ_ONLY = "/run/read-only"
"""A directory of the machine, on a file system that is mounted so."""
POOLS = {"ipv4": "10.244.0.0/24", "ipv6": "fd00:10:244::/64"}
"""Each has one block."""
HOLDER = "another-node"
IMAGE_REFUSED = "image might be filtered out"
"""containerd's words."""


@dataclass(frozen=True)
class Refusal:
    """A manifest with one thing wrong, and what the pod says of it."""

    what: str
    change: Callable[[Cluster, list[Json]], list[Json]]
    words: tuple[str, ...]
    with_kinds: bool = True


def _api_server_elsewhere(_: Cluster, made: list[Json]) -> list[Json]:
    _find(made, "ConfigMap", "pycni-api-server")["data"]["KUBERNETES_SERVICE_PORT"] = NOBODY_LISTENS
    return made


def _another_authority(cluster: Cluster, made: list[Json]) -> list[Json]:
    """The pod gets its token beside a certificate that signed nothing."""
    pod = pod_of(made)
    pod["automountServiceAccountToken"] = False
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "pycni-another-authority"}},
    ]
    pod["volumes"].append({"name": "credentials", "projected": {"sources": sources}})
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    for container in (*pod["initContainers"], *pod["containers"]):
        container["volumeMounts"].append(
            {"name": "credentials", "mountPath": place, "readOnly": True}
        )
    made.append({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "pycni-another-authority", "namespace": NAMESPACE},
        "data": {"ca.crt": (cluster.keys / "api.crt").read_text()},
    })  # fmt: skip
    return made


def _without_a_verb(_: Cluster, made: list[Json]) -> list[Json]:
    for rule in _find(made, "ClusterRole", "pycni")["rules"]:
        if rule["resources"] == ["nodenetworks"]:
            rule["verbs"].remove("patch")
    return made


def _without_kinds(_: Cluster, made: list[Json]) -> list[Json]:
    """What of the manifest can be applied where nobody applied the kinds before."""
    return [one for one in made if one["kind"] != "CustomResourceDefinition"
            and not one["apiVersion"].startswith(f"{release.GROUP}/")]  # fmt: skip


def _bpffs_of_its_own(_: Cluster, made: list[Json]) -> list[Json]:
    volume = _volume(made, "bpffs")
    del volume["hostPath"]
    volume["emptyDir"] = {}
    return made


def _name_too_long(_: Cluster, made: list[Json]) -> list[Json]:
    pod = pod_of(made)
    for container in (*pod["initContainers"], *pod["containers"]):
        (variable,) = (one for one in container["env"] if one["name"] == "PYCNI_NODE_NAME")
        variable.pop("valueFrom", None)  # all containers share one list
        variable["value"] = LONG_NAME
    return made


def _read_only(volume: str) -> Callable[[Cluster, list[Json]], list[Json]]:
    def change(_: Cluster, made: list[Json]) -> list[Json]:
        _volume(made, volume)["hostPath"]["path"] = READ_ONLY
        return made

    return change


def _full_pools(_: Cluster, made: list[Json]) -> list[Json]:
    """Another node has claimed the only block of each pool."""
    _find(made, "ClusterNetwork", "default")["spec"]["ipam"] = "pool"
    for family, cidr in POOLS.items():
        block = cidr.translate(str.maketrans(".:/", "---"))
        made.append(_of_ours("IPPool", family, {"cidr": cidr}))
        made.append(_of_ours("PodBlock", block, {"cidr": cidr, "node": HOLDER}))
    return made


def _programs_of_another_architecture(_: Cluster, made: list[Json]) -> list[Json]:
    return release.with_image(made, foreign.UNNAMED)


REFUSALS = (
    Refusal("no API server", _api_server_elsewhere,
            (f":{NOBODY_LISTENS}: Connection refused", "check that the API server runs")),
    Refusal("another authority", _another_authority,
            ("its certificate is not accepted", "ca.crt")),
    Refusal("RBAC that lacks a verb", _without_a_verb,
            ('cannot patch resource "nodenetworks"', "rbac.yaml")),
    Refusal("no kinds", _without_kinds, ("there is no ClusterNetwork default", "crds.yaml"),
            with_kinds=False),
    Refusal("a BPF file system of its own", _bpffs_of_its_own,
            ("the BPF file system at /sys/fs/bpf is not the host's", "by hostPath")),
    Refusal("a node name of 64 characters", _name_too_long,
            (f"PYCNI_NODE_NAME = '{LONG_NAME}'", "labels of 63")),
    Refusal("a read-only directory for plugins", _read_only("cni-bin"),
            ("the host's directory /opt/cni/bin is read-only", "hostPath")),
    Refusal("a read-only directory for network lists", _read_only("cni-conf"),
            ("the host's directory /etc/cni/net.d is read-only", "hostPath")),
    Refusal("full pools", _full_pools,
            ("no IPPool has a free IPv4 block for the node", f"full ({POOLS['ipv4']})")),
    Refusal("programs of another architecture", _programs_of_another_architecture,
            ("exec format error",)),
)  # fmt: skip


def refusals(rollout: Rollout) -> Iterator[Check]:
    """Each is refused in words, and the machines are as they were."""
    node = rollout.cluster.workers[0]
    yield one("an image for another architecture: the runtime's client refuses it",
              partial(_image_is_refused, rollout, node))  # fmt: skip
    foreign.give(rollout.cluster, node)
    with _read_only_directory(Machine(node)):
        for refusal in REFUSALS:
            yield one(f"{refusal.what}: the pod says so", partial(_is_said, rollout, refusal))
            yield one(f"{refusal.what}: is taken away", partial(_take_away, rollout, refusal))
    foreign.take(rollout.cluster, node)
    yield from bare_again(rollout, but=LOCK)


@contextmanager
def _read_only_directory(machine: Machine) -> Iterator[None]:
    """READ_ONLY, for the block."""
    machine.path(READ_ONLY).mkdir()
    machine.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", READ_ONLY])
    try:
        yield
    finally:
        machine.run(["umount", READ_ONLY])
        machine.path(READ_ONLY).rmdir()


def _image_is_refused(rollout: Rollout, node: LabNode) -> Found:
    said = foreign.image_says(rollout.cluster, node)
    return None if IMAGE_REFUSED in said else said or "it was imported"


def on_one_node(cluster: Cluster, made: list[Json]) -> list[Json]:
    """The same, for the first worker only."""
    pod_of(made)["nodeSelector"]["kubernetes.io/hostname"] = cluster.workers[0].name
    return made


def said(pods: list[Json]) -> list[str]:
    """The last words of each container that ended, and why others wait, or pods are nowhere."""
    found = []
    for pod in pods:
        status = pod["status"]
        found += [one.get("message", "") for one in status.get("conditions", ())]
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind, ()):
                for field in ("state", "lastState"):
                    found += [one.get("message", "") for one in container.get(field, {}).values()]
    return [text for text in found if text]


def _is_said(rollout: Rollout, refusal: Refusal) -> Found:
    cluster, kubectl = rollout.cluster, rollout.running.kubectl
    path = release.write(cluster, "refused", _made(rollout, refusal))
    if refusal.with_kinds:
        release.apply_kinds(cluster, kubectl)
    kubectl("apply", "--server-side", f"--filename={path}")
    return wait_for_words(rollout, DAEMONSET, refusal.words)


def wait_for_words(rollout: Rollout, daemonset: str, words: tuple[str, ...]) -> Found:
    """Until a pod of a DaemonSet says all these words at once."""
    heard: list[str] = []

    def hears() -> bool:
        selector = f"--selector=app.kubernetes.io/name={daemonset}"
        pods = rollout.running.kubectl.get("pods", f"--namespace={NAMESPACE}", selector)["items"]
        heard[:] = said(pods)
        return any(all(word in text for word in words) for text in heard)

    try:
        until(hears, "a pod says why it does not run", SAID_SECONDS)
    except PycniError:
        return f"it says {heard}"
    return None


def _take_away(rollout: Rollout, refusal: Refusal) -> Found:
    cluster, kubectl = rollout.cluster, rollout.running.kubectl
    kubectl("delete", "daemonset", DAEMONSET, f"--namespace={NAMESPACE}", "--cascade=foreground",
            timeout=GONE_SECONDS)  # fmt: skip
    path = release.write(cluster, "refused", _made(rollout, refusal))
    kubectl("delete", f"--filename={path}", "--ignore-not-found", timeout=GONE_SECONDS)
    return None


def _made(rollout: Rollout, refusal: Refusal) -> list[Json]:
    made = release.objects(rollout.cluster, image=rollout.releases[0])
    return on_one_node(rollout.cluster, refusal.change(rollout.cluster, made))


def _find(made: list[Json], kind: str, name: str) -> Json:
    (found,) = (one for one in made if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pod_of(made: list[Json]) -> Json:
    """What the DaemonSet's pods are made of."""
    found: Json = _find(made, "DaemonSet", DAEMONSET)["spec"]["template"]["spec"]
    return found


def _volume(made: list[Json], name: str) -> Json:
    found: Json = next(one for one in pod_of(made)["volumes"] if one["name"] == name)
    return found


def _of_ours(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": f"{release.GROUP}/v1alpha1", "kind": kind, "metadata": {"name": name},
            "spec": spec}  # fmt: skip
