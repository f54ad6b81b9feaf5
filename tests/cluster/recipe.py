# SPDX-License-Identifier: Apache-2.0
"""What is built of Kubernetes' Go modules, and how; pure.

All programs share one module of ours. Its go.mod is Kubernetes' own, so each dependency has the
version that Kubernetes chose; only Kubernetes' staging modules come from the module proxy and not
from its tree.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import product
from cluster.product import Part, Product

KUBERNETES = "1.37.2"
COREDNS = "1.14.5"
"""Needs no other versions than Kubernetes 1.37 does, so the packages are compiled once."""

SOURCES = Path(__file__).with_name("go")
VERSION = re.compile(r"1\.\d{2,3}\.\d{1,3}")
STAGING = re.compile(r"=> \./staging/src/k8s\.io/(\S+)")

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler",
              "kubectl", "kubelet")  # fmt: skip
"""Names by which the program `kube` is called."""

AGNHOST = "k8s.io/kubernetes/test/images/agnhost"
CLUSTER = (
    Part("pause", "./pause"),
    Part("kube", "./kube"),
    Part("agnhost", AGNHOST),
    Part("coredns", "./dns"),
)
"""What a cluster needs."""
END_TO_END = (
    Part("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
    Part("e2e.test", "./e2e", is_test=True),
)
"""What Kubernetes' own tests need besides."""


@dataclass(frozen=True)
class Kubernetes(Product):
    """With CoreDNS, and what its own tests need."""

    title = "Kubernetes"
    module = "k8s.io/kubernetes"
    cost = "about 10 minutes on two free processors, once; 5.5 GB in the cache"
    own = SOURCES

    def __post_init__(self) -> None:
        """Raises PycniError if that cannot be a version of Kubernetes."""
        hint = f"give all three numbers, such as --kubernetes {KUBERNETES}"
        product.check_version(self.version, VERSION, self.title, hint)

    def go_mod(self, theirs: str) -> str:
        """The module k8s.io/api of Kubernetes 1.X.Y has the version 0.X.Y, and so have its
        siblings."""
        siblings = f"v0.{self.version.removeprefix('1.')}"
        ours = STAGING.sub(rf"=> k8s.io/\1 {siblings}", super().go_mod(theirs))
        return f"{ours}require github.com/coredns/coredns v{COREDNS}\n"

    def values(self, part: Part, source: Path | None) -> dict[str, str]:
        """Without its version, kubelet calls itself v0.0.0-master, and others refuse it."""
        if part.name in ("kube", "e2e.test"):
            _, minor, _ = self.version.split(".")
            package = "k8s.io/component-base/version"
            return {
                f"{package}.gitVersion": f"v{self.version}",
                f"{package}.gitMajor": "1",
                f"{package}.gitMinor": minor,
                f"{package}.gitTreeState": "clean",
            }
        if part.name == "agnhost":
            stated = source and (source / "test/images/agnhost/VERSION").read_text().strip()
            return {"main.Version": stated or ""}
        return {}

    def ingredients(self, part: Part) -> list[Any]:
        return [self.version, COREDNS, vars(part), self.link_flags(part, None)]

    def accompany(self, source: Path, programs: Path) -> None:
        """The names by which `kube` is called, and what the image of agnhost has beside it."""
        for name in COMPONENTS:
            link = programs / name
            link.unlink(missing_ok=True)
            link.symlink_to("kube")
        for name in ("localhost.crt", "localhost.key"):
            shutil.copy2(source / "test/images/agnhost/porter" / name, programs / name)
