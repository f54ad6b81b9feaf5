# SPDX-License-Identifier: Apache-2.0
"""What is built of which Go modules, and how; pure.

All programs share one module of ours. Its go.mod is Kubernetes' own, so each dependency has the
version that Kubernetes chose; only Kubernetes' staging modules come from the module proxy and not
from its tree.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycni.errors import PycniError

KUBERNETES = "1.37.2"
COREDNS = "1.14.5"
"""Needs no other versions than Kubernetes 1.37 does, so the packages are compiled once."""
GO = (1, 26)
"""The oldest Go that compiles them."""

SOURCES = Path(__file__).with_name("go")
VERSION = re.compile(r"1\.\d{2,3}\.\d{1,3}")
STAGING = re.compile(r"=> \./staging/src/k8s\.io/(\S+)")

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler",
              "kubectl", "kubelet")  # fmt: skip
"""Names by which the program `kube` is called."""


@dataclass(frozen=True)
class Part:
    """A program: its file's name and the Go package it is built from."""

    name: str
    package: str
    is_test: bool = False


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


def check_version(version: str) -> str:
    """Raises PycniError if that cannot be a version of Kubernetes."""
    if not VERSION.fullmatch(version):
        raise PycniError(
            f"{version!r} is no version of Kubernetes",
            hint=f"give all three numbers, such as --kubernetes {KUBERNETES}",
        )
    return version


def go_mod(kubernetes_go_mod: str, version: str) -> str:
    """Our module's go.mod: Kubernetes' own, under our name.

    The module k8s.io/api of Kubernetes 1.X.Y has the version 0.X.Y, and so have its siblings.
    """
    ours = re.sub(r"^module .*$", "module pycni/cluster", kubernetes_go_mod, count=1, flags=re.M)
    ours = STAGING.sub(rf"=> k8s.io/\1 v0.{version.removeprefix('1.')}", ours)
    return (
        f"{ours}\nrequire (\n\tk8s.io/kubernetes v{version}\n"
        f"\tgithub.com/coredns/coredns v{COREDNS}\n)\n"
    )


def link_flags(part: Part, version: str, agnhost_version: str) -> str:
    """For -ldflags: no symbols, and the versions that programs tell of themselves.

    Without its version, kubelet calls itself v0.0.0-master, and others refuse it.
    """
    values: dict[str, str] = {}
    if part.name in ("kube", "e2e.test"):
        _, minor, _ = version.split(".")
        package = "k8s.io/component-base/version"
        values = {
            f"{package}.gitVersion": f"v{version}",
            f"{package}.gitMajor": "1",
            f"{package}.gitMinor": minor,
            f"{package}.gitTreeState": "clean",
        }
    elif part.name == "agnhost":
        values = {"main.Version": agnhost_version}
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def build_command(part: Part, flags: str, output: Path) -> list[str]:
    """The command line after `go`; `-v` prints each package as it is compiled."""
    verb = ["test", "-c"] if part.is_test else ["build"]
    return [*verb, "-v", "-trimpath", "-ldflags", flags, "-o", str(output), part.package]


def digest(part: Part, version: str, *, sources: Path = SOURCES) -> str:
    """What a program was built from: versions, flags and our own sources."""
    recipe = [version, COREDNS, vars(part), link_flags(part, version, "")]
    hashed = hashlib.sha256(json.dumps(recipe).encode())
    if part.package.startswith("./"):
        for file in sorted((sources / part.package).glob("*.go")):
            hashed.update(file.read_bytes())
    return hashed.hexdigest()


def missing(
    parts: Iterable[Part], version: str, built: dict[str, str], present: Sequence[str]
) -> list[Part]:
    """The parts whose file is not `present`, or was `built` from something else."""
    return [
        part
        for part in parts
        if part.name not in present or built.get(part.name) != digest(part, version)
    ]
