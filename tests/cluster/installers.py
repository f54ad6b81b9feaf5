# SPDX-License-Identifier: Apache-2.0
"""The ways to install pycni, to change to another release, and to remove it: by the manifest, by an
overlay of kustomize, or by the chart of Helm, each as docs/kubernetes.md says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster import helm, release
from cluster.build import Tell
from cluster.kubectl import Json
from cluster.layout import API_PORT, Cluster, address
from cluster.life import Running
from cluster.network import NAMESPACE
from image import manifests

SECONDS = 180.0
RELEASE = "pycni"
"""As Helm calls the installation."""


class Installer(Protocol):
    """One way. What is applied is in the API when a method returns, and pods follow."""

    def install(self, image: str, /) -> None: ...

    def upgrade(self, image: str, /) -> None: ...

    def roll_back(self, image: str, /) -> None: ...

    def uninstall(self, image: str, /) -> None:
        """Returns when nodes are taken back and the objects are gone."""
        ...


@dataclass(frozen=True)
class Manifest:
    """`kubectl apply -f`."""

    running: Running

    def install(self, image: str) -> None:
        """As of Installer."""
        release.apply(self.running.cluster, self.running.kubectl, image=image)

    upgrade = roll_back = install

    def uninstall(self, image: str) -> None:
        """As of Installer."""
        release.uninstall(self.running.cluster, self.running.kubectl, image=image)


@dataclass(frozen=True)
class Kustomize:
    """`kubectl apply -k` of an overlay with the image and the API server's address."""

    running: Running

    def install(self, image: str) -> None:
        """As of Installer."""
        cluster, kubectl = self.running.cluster, self.running.kubectl
        release.apply_kinds(cluster, kubectl)
        kubectl("apply", "--server-side", f"--kustomize={self._written(image)}", timeout=SECONDS)

    upgrade = roll_back = install

    def uninstall(self, image: str) -> None:
        """As of Installer."""
        cluster, kubectl = self.running.cluster, self.running.kubectl
        release.take_nodes_back(cluster, kubectl, image=image)
        overlay = self._written(image)
        kubectl("delete", f"--kustomize={overlay}", "--ignore-not-found", timeout=SECONDS)

    def _written(self, image: str) -> Path:
        directory = self.running.cluster.directory / "overlay"
        directory.mkdir(exist_ok=True)
        text = json.dumps(overlay(self.running.cluster, directory, image))
        (directory / "kustomization.yaml").write_text(text)
        return directory


@dataclass(frozen=True)
class Chart:
    """`helm install`, `upgrade` and `rollback`; Helm never changes kinds, so `kubectl` does."""

    running: Running
    program: Path

    def install(self, image: str) -> None:
        """As of Installer."""
        self._helm("install", RELEASE, manifests.HELM, f"--values={self._values(image)}")

    def upgrade(self, image: str) -> None:
        """As of Installer."""
        path = manifests.KUBERNETES / manifests.CRDS
        self.running.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={path}")
        self._helm("upgrade", RELEASE, manifests.HELM, f"--values={self._values(image)}")

    def roll_back(self, _: str) -> None:
        """As of Installer: Helm has kept what was there before."""
        self._helm("rollback", RELEASE)

    def uninstall(self, image: str) -> None:
        """As of Installer."""
        kubectl = self.running.kubectl
        release.take_nodes_back(self.running.cluster, kubectl, image=image)
        self._helm("uninstall", RELEASE)
        path = manifests.KUBERNETES / manifests.CRDS
        kubectl("delete", f"--filename={path}", timeout=SECONDS)

    def _helm(self, *arguments: str | Path) -> None:
        place = f"--namespace={NAMESPACE}"
        helm.run(self.running.cluster, self.program, *arguments, place)

    def _values(self, image: str) -> Path:
        path = self.running.cluster.directory / "values.json"
        path.write_text(json.dumps({"image": image, "apiServer": server(self.running.cluster)}))
        return path


def _manifest(running: Running, _: Tell) -> Installer:
    return Manifest(running)


def _kustomize(running: Running, _: Tell) -> Installer:
    return Kustomize(running)


def _chart(running: Running, tell: Tell) -> Installer:
    return Chart(running, helm.provide(tell))


BY: dict[str, Callable[[Running, Tell], Installer]] = {
    "manifest": _manifest,
    "kustomize": _kustomize,
    "helm": _chart,
}


def server(cluster: Cluster) -> dict[str, str]:
    """Where nodes reach the API server."""
    return {
        "KUBERNETES_SERVICE_HOST": address(cluster.control),
        "KUBERNETES_SERVICE_PORT": str(API_PORT),
    }


def overlay(cluster: Cluster, directory: Path, image: str) -> Json:
    """A Kustomization in `directory`, on top of that in deploy/kubernetes."""
    name, _, tag = image.rpartition(":")
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(manifests.KUBERNETES, directory.resolve())],
        "images": [{"name": name, "newTag": tag}],
        "patches": [
            {
                "target": {"kind": "ConfigMap", "name": "pycni-api-server"},
                "patch": json.dumps([{"op": "add", "path": "/data", "value": server(cluster)}]),
            }
        ],
    }
