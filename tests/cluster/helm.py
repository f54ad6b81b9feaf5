# SPDX-License-Identifier: Apache-2.0
"""Helm: its program, built of its Go module, and what it does in a cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cluster import build, product
from cluster.layout import Cluster
from cluster.product import Part, Product
from pycni.errors import PycniError
from pycni.lab import processes

VERSION = "4.3.2"
"""It has the modules of Kubernetes that Kubernetes 1.37.2 is built of."""
PATTERN = re.compile(r"4\.\d{1,3}\.\d{1,3}")
MODULE = "helm.sh/helm/v4"
PARTS = (Part("helm", f"{MODULE}/cmd/helm"),)
SECONDS = 180.0
DIRECTORIES = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")


@dataclass(frozen=True)
class Helm(Product):
    """The program alone."""

    title = "Helm"
    module = MODULE
    cost = "12 minutes on a busy machine, once"
    version_variable = f"{MODULE}/internal/version.version"

    def __post_init__(self) -> None:
        """Raises PycniError if that cannot be a version."""
        hint = f"give all three numbers, such as {VERSION}"
        product.check_version(self.version, PATTERN, "Helm 4", hint)


def provide(tell: build.Tell) -> Path:
    """The program; built if it was not yet. Raises PycniError."""
    return build.provide(Helm(VERSION), PARTS, tell=tell) / PARTS[0].name


def run(cluster: Cluster, program: Path, *arguments: str | Path) -> str:
    """What it prints, as the administrator. Raises PycniError with its words if it fails."""
    own = {name: str(cluster.directory / "helm") for name in DIRECTORIES}
    done = processes.run(
        cluster.control.netns,
        [program, f"--kubeconfig={cluster.keys / 'admin.kubeconfig'}", *arguments],
        env={**os.environ, **own},
        timeout=SECONDS,
    )
    if done.returncode != 0:
        raise PycniError(
            f"helm {' '.join(map(str, arguments))} failed",
            details=done.stderr.decode(errors="replace").strip()[-1000:],
            hint=f"see the logs: python -m cluster logs --name {cluster.name}",
        )
    return done.stdout.decode(errors="replace")
