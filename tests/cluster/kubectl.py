# SPDX-License-Identifier: Apache-2.0
"""kubectl of a cluster, in the control plane's network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from cluster.layout import Cluster
from pycni.errors import PycniError
from pycni.lab import processes

Json = dict[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """Runs it as the administrator; `namespace`, if there is one, is where all objects are."""

    cluster: Cluster
    programs: Path
    namespace: str = ""

    def run(
        self, *arguments: str, stdin: str = "", timeout: float = 60.0
    ) -> CompletedProcess[bytes]:
        """To the end, whatever its status. Raises PycniError after `timeout` seconds."""
        return processes.run(
            self.cluster.control.netns, self.command(*arguments), stdin=stdin.encode(),
            timeout=timeout,
        )  # fmt: skip

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 60.0) -> str:
        """What it prints. Raises PycniError with its words if it fails."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise PycniError(
                f"kubectl {' '.join(arguments)} failed",
                details=done.stderr.decode(errors="replace").strip()[-1000:],
                hint=f"see the logs: python -m cluster logs --name {self.cluster.name}",
            )
        return done.stdout.decode(errors="replace")

    def get(self, *arguments: str) -> Json:
        """An object, or a list of them."""
        document: Json = json.loads(self("get", "--output=json", *arguments))
        return document

    def apply(self, objects: Sequence[Json]) -> None:
        """Create or change objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self("apply", "--filename=-", stdin=text)

    def execute(self, pod: str, *command: str, timeout: float = 60.0) -> str:
        """What a command prints that runs in a pod. Raises PycniError if it fails."""
        return self("exec", pod, "--", *command, timeout=timeout)

    def command(self, *arguments: str) -> list[str | Path]:
        """The command line, right in the control plane's network."""
        kubeconfig = self.cluster.keys / "admin.kubeconfig"
        place = (f"--namespace={self.namespace}",) * bool(self.namespace)
        return [self.programs / "kubectl", f"--kubeconfig={kubeconfig}", *place, *arguments]


def is_ready(item: Json) -> bool:
    """Whether a pod or a node has the condition Ready."""
    conditions = item.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
