# SPDX-License-Identifier: Apache-2.0
"""Pods that are made and deleted, however long the API is away: as a controller does, again."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence

from cluster.kubectl import Json, Kubectl, is_ready
from pycni.errors import PycniError

API_SECONDS = 120.0
PAUSE_SECONDS = 0.5
REQUEST = "--request-timeout=5s"
EVENTS = 3
"""Of a pod that does not run: those that are told."""


class Crowd:
    """The pods of a namespace."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def create(self, pods: Sequence[Json]) -> None:
        """Raises PycniError if the API does not take them in API_SECONDS."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(pods)})
        self._insist("apply", "--filename=-", stdin=text)

    def delete(self, names: Sequence[str]) -> None:
        """Waits for no pod's end. Raises PycniError."""
        if names:
            self._insist("delete", "pods", "--ignore-not-found", "--wait=false", *names)

    def wait_until_ready(self, names: Collection[str], seconds: float) -> dict[str, Json]:
        """All of them, by name. Raises PycniError that tells of those that are not ready."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.pods()
            late = [name for name in names if not is_ready(found.get(name, {}))]
            if not late:
                return {name: found[name] for name in names}
            if time.monotonic() > deadline:
                raise PycniError(
                    f"{len(late)} of {len(names)} pods are not Ready within {seconds:g} s",
                    details="; ".join(self._told(name, found) for name in late[:EVENTS]),
                )
            time.sleep(PAUSE_SECONDS)

    def wait_until_gone(self, names: Collection[str], seconds: float) -> None:
        """Raises PycniError that names those that are still there."""
        deadline = time.monotonic() + seconds
        while still := sorted(self.pods().keys() & set(names)):
            if time.monotonic() > deadline:
                raise PycniError(
                    f"{len(still)} pods are not gone within {seconds:g} s",
                    details="; ".join(self._told(name, self.pods()) for name in still[:EVENTS]),
                )
            time.sleep(PAUSE_SECONDS)

    def pods(self) -> dict[str, Json]:
        """All pods of the namespace, by name. Raises PycniError."""
        items: list[Json] = json.loads(self._insist("get", "pods", "--output=json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def _insist(self, *arguments: str, stdin: str = "") -> str:
        deadline = time.monotonic() + API_SECONDS
        while True:
            try:
                return self._kubectl(REQUEST, *arguments, stdin=stdin)
            except PycniError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)

    def _told(self, name: str, pods: dict[str, Json]) -> str:
        """Phase, what it waits for, and its last events."""
        status = pods.get(name, {}).get("status", {})
        waiting = [
            one["state"]["waiting"].get("reason", "")
            for one in status.get("containerStatuses", ())
            if "waiting" in one["state"]
        ]
        selector = f"--field-selector=involvedObject.name={name}"
        events = json.loads(self._insist("get", "events", "--output=json", selector))["items"]
        said = [event.get("message", "") for event in events[-EVENTS:]]
        return " ".join([f"{name}: {status.get('phase', 'not there')}", *waiting, *said])
