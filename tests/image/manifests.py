# SPDX-License-Identifier: Apache-2.0
"""The manifests that are made of others. The one source is the files in deploy/kubernetes.

    deploy/kubernetes/pycni.yaml       all of them, for `kubectl apply`
    deploy/kubernetes/uninstall.yaml   a DaemonSet that takes nodes back
    deploy/helm/pycni                  a Helm chart, whose values are the KNOBS

Anchors of YAML are resolved in the last two, and comments are lost there.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

import pycni

PROJECT = Path(__file__).parents[2]
KUBERNETES = PROJECT / "deploy" / "kubernetes"
HELM = PROJECT / "deploy" / "helm" / "pycni"

CRDS, CLUSTER_NETWORK = "crds.yaml", "cluster-network.yaml"
PIECES = (CRDS, "rbac.yaml", "admission.yaml", "config.yaml", CLUSTER_NETWORK,
          "daemonset.yaml")  # fmt: skip
"""In the order in which they are to be applied."""

SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
MADE = "# Made by `make manifests` of the other files in deploy/kubernetes: change those.\n"
OLDEST = ">=1.31.0-0"
"""Kubernetes; 1.32 for the admission policy to tell nodes apart."""

Json = Any
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Knob:
    """A value of the chart: where it stands in the objects, and what it is for."""

    value: str
    kind: str
    name: str
    places: tuple[Place, ...]
    what: str


POD: Place = ("spec", "template", "spec")
CONTAINERS = tuple(
    (*POD, group, number)
    for group, count in (("initContainers", 3), ("containers", 1))
    for number in range(count)
)


def _of_pod(value: str, *place: str | int, what: str) -> Knob:
    return Knob(value, "DaemonSet", "pycni", ((*POD, *place),), what)


def _of_containers(value: str, key: str, *, what: str) -> Knob:
    return Knob(value, "DaemonSet", "pycni", tuple((*one, key) for one in CONTAINERS), what)


KNOBS = (
    _of_containers("image", "image", what="Name of the image."),
    _of_containers("imagePullPolicy", "imagePullPolicy", what="Always, IfNotPresent or Never."),
    _of_containers("resources", "resources", what="Of each container; give no limit of the CPU."),
    _of_pod("priorityClassName", "priorityClassName", what="Of the pods."),
    _of_pod("tolerations", "tolerations", what="The network is needed on every node."),
    _of_pod("nodeSelector", "nodeSelector", what="The image is for one architecture."),
    Knob("maxUnavailable", "DaemonSet", "pycni",
         (("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"),),
         "How many nodes are upgraded at once."),
    _of_pod("cniBinPath", "volumes", 5, "hostPath", "path",
            what="The host's directory of CNI plugins."),
    _of_pod("cniConfPath", "volumes", 6, "hostPath", "path",
            what="The host's directory of network lists."),
    Knob("settings", "ConfigMap", "pycni", (("data", "pycni.toml"),),
         "The settings of all nodes, TOML. What clusterNetwork says, too, must be the same there."),
    Knob("apiServer", "ConfigMap", "pycni-api-server", (("data",),),
         "KUBERNETES_SERVICE_HOST and _PORT, as texts: needed without kube-proxy."),
    Knob("clusterNetwork", "ClusterNetwork", "default", (("spec",),),
         "The networks of the cluster; they cannot be changed later."),
)  # fmt: skip


def rendered() -> dict[Path, str]:
    """Every file that is made, and its text."""
    return {
        KUBERNETES / "pycni.yaml": plain(),
        KUBERNETES / "uninstall.yaml": uninstall(),
        HELM / "Chart.yaml": chart(),
        HELM / "values.yaml": values(),
        HELM / "crds" / CRDS: (KUBERNETES / CRDS).read_text(encoding="utf-8"),
        HELM / "templates" / "pycni.yaml": template(),
    }


def documents(text: str) -> list[Json]:
    """The objects in a text of YAML."""
    return [one for one in yaml.safe_load_all(text) if one is not None]


def pieces(names: Sequence[str] = PIECES) -> Iterator[Json]:
    """The objects of the source."""
    for name in names:
        yield from documents((KUBERNETES / name).read_text(encoding="utf-8"))


def adapted(
    network: Json,
    *,
    api_server: tuple[str, int] | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> list[Json]:
    """The source for a cluster whose ClusterNetwork has the spec `network`.

    The settings are changed with it, and by `settings`. `api_server` is host and port, for a
    cluster whose Services do not work before pycni does.
    """
    objects = list(pieces())
    for one in objects:
        match one["kind"], one["metadata"]["name"]:
            case "ClusterNetwork", _:
                one["spec"] = network
            case "ConfigMap", "pycni":
                one["data"]["pycni.toml"] = _settings(one["data"]["pycni.toml"], network, settings)
            case "ConfigMap", "pycni-api-server" if api_server is not None:
                host, port = api_server
                one["data"] = {
                    "KUBERNETES_SERVICE_HOST": host,
                    "KUBERNETES_SERVICE_PORT": str(port),
                }
    return objects


def _settings(text: str, network: Json, more: Mapping[str, Any]) -> str:
    """The settings with `more`, and what they have in common with the ClusterNetwork changed."""
    prefixes = ", ".join(f"{family} = {bits}" for family, bits in network["nodePrefix"].items())
    said = {
        "cluster_cidrs": json.dumps(network["cidrs"]),
        "node_prefix": f"{{ {prefixes} }}",
        "vni": network["vni"],
        "port": network["port"],
        **{key: json.dumps(value) for key, value in more.items()},
    }
    lines = [line for line in text.splitlines() if line.partition(" = ")[0] not in said]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in said.items()), ""])


def plain() -> str:
    """All files of the source as one."""
    texts = [(KUBERNETES / name).read_text(encoding="utf-8") for name in PIECES]
    return SPDX + MADE + "---\n".join(text.removeprefix(SPDX) for text in texts)


def uninstall() -> str:
    """The DaemonSet, its containers replaced by what takes a node back."""
    (daemonset,) = pieces(["daemonset.yaml"])
    made = copy.deepcopy(daemonset)
    labels = {"app.kubernetes.io/name": "pycni-uninstall"}
    made["metadata"] |= {"name": "pycni-uninstall", "labels": labels}
    made["spec"]["selector"]["matchLabels"] = labels
    made["spec"]["template"]["metadata"]["labels"] = labels
    made["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "100%"
    pod = made["spec"]["template"]["spec"]
    _, setup, install = pod["initContainers"]
    (agent,) = pod["containers"]
    setup |= {"name": "teardown", "args": ["teardown", "--yes"]}
    install |= {
        "name": "uninstall",
        "args": ["uninstall", *(one for one in install["args"] if "-dir=" in one)],
        "volumeMounts": [one if one["name"] == "settings" else _writable(one)
                         for one in install["volumeMounts"]],
    }  # fmt: skip
    waiting = {
        "name": "done",
        "image": agent["image"],
        "imagePullPolicy": agent["imagePullPolicy"],
        "command": ["/usr/bin/python3", "-IS", "-c", "import signal; signal.pause()"],
        "securityContext": install["securityContext"] | {"capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
    }
    pod |= {
        "initContainers": [setup, install],
        "containers": [waiting],
        "terminationGracePeriodSeconds": 1,
    }
    how = "# Takes all nodes back: docs/kubernetes.md says how, and in which order.\n"
    return SPDX + MADE + how + _dump(made)


def _writable(mount: Json) -> Json:
    return {key: value for key, value in mount.items() if key != "readOnly"}


def chart() -> str:
    """Chart.yaml."""
    return SPDX + MADE + _dump({
        "apiVersion": "v2",
        "name": "pycni",
        "description": "A Kubernetes network plugin whose dataplane is eBPF",
        "type": "application",
        "version": pycni.__version__,
        "appVersion": pycni.__version__,
        "kubeVersion": OLDEST,
    })  # fmt: skip


def values() -> str:
    """values.yaml: what the source says at each knob."""
    objects = list(pieces())
    parts = [
        f"# {knob.what}\n{_dump({knob.value: _at(_find(objects, knob), knob.places[0])})}"
        for knob in KNOBS
    ]
    return SPDX + MADE + "\n".join(parts)


def template() -> str:
    """The objects but the CRDs, with a call of toJson at each knob: JSON is YAML."""
    objects = list(pieces(PIECES[1:]))
    for knob in KNOBS:
        found = _find(objects, knob)
        for place in knob.places:
            _at(found, place[:-1])[place[-1]] = f"@{knob.value}@"
    text = "---\n".join(map(_dump, objects))
    for knob in KNOBS:
        text = text.replace(f"'@{knob.value}@'", f"{{{{ toJson .Values.{knob.value} }}}}")
    return SPDX + MADE + text


def _find(objects: list[Json], knob: Knob) -> Json:
    (found,) = (
        one for one in objects if (one["kind"], one["metadata"]["name"]) == (knob.kind, knob.name)
    )
    return found


def _at(found: Json, place: Place) -> Json:
    for step in place:
        found = found[step]
    return found


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Without anchors, and with texts of several lines as they are."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if text.count("\n") > 1 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dump(document: Json) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100))
