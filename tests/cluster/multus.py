# SPDX-License-Identifier: Apache-2.0
"""Multus, the thin plugin: built of its Go module, and given to the nodes, where it goes first.

Nodes call pycni by it, and for pods that ask for more networks the plugins of those.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from cluster import build, containerd, product, runtime
from cluster.commands import CNI_BIN, CNI_CONF
from cluster.kubectl import Json, Kubectl
from cluster.layout import Cluster
from cluster.machine import Machine
from cluster.product import Part, Product
from pycni.errors import PycniError
from pycni.files import stage
from pycni.lab.layout import NODE_UPLINK, LabNode
from pycni.setup.conflist import CONFLIST, PLUGIN

VERSION = "4.2.2"
PATTERN = re.compile(r"4\.\d{1,3}\.\d{1,3}")
PACKAGE = "gopkg.in/k8snetworkplumbingwg/multus-cni.v4"
PARTS = (Part("multus", f"{PACKAGE}/cmd/multus"),)

CONF = f"{CNI_CONF}/00-multus.conf"
KEPT = "/var/lib/cni/multus"
"""What it keeps of pods (its `cniDir`)."""
GROUP = "k8s.cni.cncf.io"
DEFINITIONS = f"network-attachment-definitions.{GROUP}"
WISHES, OUTCOME = (f"k8s.v1.cni.cncf.io/{name}" for name in ("networks", "network-status"))
"""Annotations of a pod: the networks that it asks for, and what it was given."""
SECOND = "second"
"""The name of the second network."""
OF_PYCNI = "again"
"""The name of one more, which is pycni's, too."""
REFERENCE = Path("/usr/lib/cni")
PLUGINS = ("macvlan", "static")
"""Of the second network; of Debian's containernetworking-plugins."""
KINDS_SECONDS = 30.0


@dataclass(frozen=True)
class Multus(Product):
    """The thin plugin only."""

    title = "Multus"
    module = PACKAGE
    cost = "8 minutes on a busy machine, once"
    version_variable = f"{PACKAGE}/pkg/multus.version"

    def __post_init__(self) -> None:
        """Raises PycniError if that cannot be a version."""
        hint = f"give all three numbers, such as --multus {VERSION}"
        product.check_version(self.version, PATTERN, "Multus 4", hint)


def configuration(cluster: Cluster) -> Json:
    """Of a node: pycni's list is the network of every pod. The version is one that has STATUS."""
    return {
        "cniVersion": "1.1.0",
        "name": "multus-cni-network",
        "type": "multus",
        "capabilities": {"portMappings": True, "bandwidth": True},
        "kubeconfig": str(cluster.keys / "admin.kubeconfig"),
        "binDir": CNI_BIN,
        "confDir": CNI_CONF,
        "cniDir": KEPT,
        "clusterNetwork": f"{CNI_CONF}/{CONFLIST}",
    }


def definitions() -> list[Json]:
    """The kind of the second networks, as its users have agreed on it."""
    names = {"plural": "network-attachment-definitions", "kind": "NetworkAttachmentDefinition",
             "singular": "network-attachment-definition"}  # fmt: skip
    config = {"type": "object", "properties": {"config": {"type": "string"}}}
    schema = {"type": "object", "properties": {"spec": config}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": DEFINITIONS},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
        }
    ]


def second_network() -> Json:
    """A macvlan of the nodes' uplinks, with the addresses that each pod asks for."""
    return _attachment_definition(SECOND, {
        "cniVersion": "1.0.0",
        "type": "macvlan",
        "master": NODE_UPLINK,
        "mode": "bridge",
        "capabilities": {"ips": True},
        "ipam": {"type": "static"},
    })  # fmt: skip


def network_of_pycni() -> Json:
    """pycni once more: another interface, with addresses of the node's own."""
    return _attachment_definition(OF_PYCNI, {"cniVersion": "1.1.0", "type": PLUGIN})


def _attachment_definition(name: str, config: Json) -> Json:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name},
        "spec": {"config": json.dumps(config)},
    }


def with_second(pod: Json, interface: str, addresses: list[str]) -> Json:
    """The same pod, which asks for the second network."""
    return _wishing(pod, {"name": SECOND, "interface": interface, "ips": addresses})


def with_pycni_twice(pod: Json, interface: str) -> Json:
    """The same pod, which asks for one more interface of pycni's."""
    return _wishing(pod, {"name": OF_PYCNI, "interface": interface})


def _wishing(pod: Json, wish: Json) -> Json:
    pod["metadata"].setdefault("annotations", {})[WISHES] = json.dumps([wish])
    return pod


def define(kubectl: Kubectl) -> None:
    """Give the API the kind; `undefine` takes it away. Raises PycniError."""
    kubectl.apply(definitions())
    kubectl("wait", "--for=condition=Established", f"crd/{DEFINITIONS}",
            f"--timeout={KINDS_SECONDS:g}s", timeout=KINDS_SECONDS + 10)  # fmt: skip


def undefine(kubectl: Kubectl) -> None:
    kubectl("delete", f"crd/{DEFINITIONS}", "--ignore-not-found", timeout=KINDS_SECONDS)


def provide(version: str, tell: build.Tell) -> Path:
    """Its program; built if it was not yet. Raises PycniError."""
    return build.provide(Multus(version), PARTS, tell=tell) / PARTS[0].name


def refuse_older_runtime(cluster: Cluster) -> None:
    """Raises PycniError where the runtime knows no CNI 1.1.0: Multus hands it the result of pycni's
    list as it is, in the newest version that both know."""
    if not runtime.of(cluster).is_built:
        raise PycniError(
            "Multus hands results of CNI 1.1.0 on, and Debian's containerd takes none",
            hint=f"choose another one: --containerd {containerd.EXAMPLE}",
        )


def put_first(cluster: Cluster, node: LabNode, program: Path) -> None:
    """Give a node Multus: the plugins, then the list. Raises PycniError if a plugin is missing."""
    machine = Machine(node)
    for plugin in (program, *(REFERENCE / name for name in PLUGINS)):
        try:
            shutil.copy(plugin, machine.path(CNI_BIN))
        except FileNotFoundError as error:
            raise PycniError(
                f"the plugin {plugin} is missing", hint="install it: make test-packages"
            ) from error
    text = json.dumps(configuration(cluster)).encode()
    path = machine.path(CONF)
    stage(path, text, mode=0o600).replace(path)  # of another way no runtime learns


def take_away(node: LabNode) -> None:
    """The list, then the plugins; no error if there are none."""
    machine = Machine(node)
    machine.path(CONF).unlink(missing_ok=True)
    for name in (PARTS[0].name, *PLUGINS):
        machine.path(f"{CNI_BIN}/{name}").unlink(missing_ok=True)


def kept(node: LabNode) -> set[str]:
    """What Multus has of pods on a node, a line each."""
    directory = Machine(node).path(KEPT)
    return {f"file of Multus {path.relative_to(directory)}"
            for path in directory.rglob("*") if path.is_file()}  # fmt: skip
