# SPDX-License-Identifier: Apache-2.0
"""Which of Kubernetes' own tests are run, and which are not, with the reason; pure but for a file.

Patterns are read by Go and by Python: both know what is used here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pycni.errors import PycniError

FILE = Path(__file__).with_name("skips.toml")

FOCUS = {
    "conformance": r"\[sig-network\].*\[Conformance\]",
    "services": r"\[sig-network\] (Services|EndpointSlice|Endpoints|HostPort|Proxy|Service |"
                r"Networking Granular|Conntrack|KubeProxy|Traffic Distribution|Topology Hints)",
    "policy": r"\[sig-network\] Netpol",
    "all": r"\[sig-network\]",
    "cut": r"\[sig-network\] (DNS should provide DNS for (services|the cluster) \[Conformance\]|"
           r"HostPort|Networking Granular Checks: Pods .* \[Conformance\]|"
           r"Services should (be able to change the type|have session affinity work for NodePort|"
           r"serve multiport|serve a basic).*\[Conformance\])",
}  # fmt: skip
"""By name; `cut` is a minute of what a change is most likely to break."""


@dataclass(frozen=True)
class Skip:
    """Tests that match `tests` are not run; one that skips itself with words like `says` may."""

    reason: str
    tests: str = ""
    says: str = ""


def load(file: Path = FILE) -> list[Skip]:
    """The skips of a file. Raises PycniError for one without a reason, or that matches nothing."""
    skips = [Skip(**entry) for entry in tomllib.loads(file.read_text())["skip"]]
    for skip in skips:
        if not skip.reason or not (skip.tests or skip.says):
            raise PycniError(
                f"{file.name}: {skip} says not what is skipped, and why",
                hint="give each a `reason`, and `tests` or `says`",
            )
    return skips


def pattern(skips: Iterable[Skip]) -> str:
    """What ginkgo shall skip."""
    return "|".join(skip.tests for skip in skips if skip.tests)


def reason(skips: Iterable[Skip], *, test: str, words: str) -> str | None:
    """Why a test of that name did not run, or skipped itself with these words."""
    for skip in skips:
        if skip.tests and re.search(skip.tests, test):
            return skip.reason
        if skip.says and re.search(skip.says, words):
            return skip.reason
    return None
