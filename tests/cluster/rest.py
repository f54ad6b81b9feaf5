# SPDX-License-Identifier: Apache-2.0
"""A cluster at rest: nothing is written to pycni's kinds, and who watches them hears nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from cluster.kubectl import Kubectl
from cluster.life import Running
from pycni.lab.checks import Check

GROUP = "pycni.dev"
SETTLING = 60.0
"""Seconds after the last change: agents have looked at everything twice since."""
REQUESTS = "apiserver_request"
"""Counter of the API server (Kubernetes' reference of metrics), with verb, group and resource."""
READING = frozenset({"GET", "LIST", "WATCH", "WATCHLIST", "CONNECT"})


def at_rest(running: Running, *, seconds: float) -> Iterator[Check]:
    """Watch for so many seconds that nothing happens; `found` has the counts. Raises PycniError."""
    time.sleep(SETTLING)
    kubectl = running.kubectl
    before, versions = writes(_metrics(kubectl)), _versions(kubectl)
    time.sleep(seconds)
    more = writes(_metrics(kubectl)) - before
    yield Check(
        f"nobody writes to kinds of {GROUP} in {seconds:g} s",
        not more,
        ", ".join(f"{verb} {resource}: {count}" for (verb, resource), count in more.items()),
    )
    after = _versions(kubectl)
    changed = sorted(name for name in versions | after if versions.get(name) != after.get(name))
    yield Check(f"who watches hears nothing in {seconds:g} s: {len(after)} objects are as they "
                "were", not changed and bool(after), ", ".join(changed))  # fmt: skip


def writes(metrics: str) -> Counter[tuple[str, str]]:
    """Requests that may write, to kinds of pycni's group, by verb and resource: also those that
    were refused, and those that changed nothing. Pure."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(metrics):
        if family.name != REQUESTS:
            continue
        for sample in family.samples:
            labels = sample.labels
            if labels["group"] == GROUP and labels["verb"] not in READING:
                found[labels["verb"], labels["resource"]] += int(sample.value)
    return found


def _metrics(kubectl: Kubectl) -> str:
    return kubectl("get", "--raw=/metrics")


def _versions(kubectl: Kubectl) -> dict[str, str]:
    """Each object of pycni's kinds with its resourceVersion, which every event changes."""
    names = kubectl("api-resources", f"--api-group={GROUP}", "--output=name").split()
    return {
        f"{item['kind']} {item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in kubectl.get(",".join(names))["items"]
    }
