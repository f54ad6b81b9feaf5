# SPDX-License-Identifier: Apache-2.0
"""Pings between pods, each sent once; and a pod's network namespace, from where they go."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.kubectl import Json
from cluster.layout import Cluster
from pycni.errors import PycniError
from pycni.lab import processes
from pycni.lab.cluster import peer_command
from support import leftovers

INTERVAL = 0.01
"""Seconds between two echo requests: peer.py can tell those of eleven minutes apart."""
GRACE = 5.0
"""Seconds for the last replies."""
END_SECONDS = 60.0


@dataclass(frozen=True)
class Answers:
    """What came of the pings of one pod to one address."""

    sent: int
    lost: int
    words: str
    """Which ones were lost, and why; empty if none."""


class Pings:
    """Echo requests to one address, each sent once, from `start` until `stop`."""

    def __init__(self, source: str, target: str, address: str) -> None:
        self.source = source
        self.target = target
        self.address = address
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"{self.source} -> {self.target} {self.address}"

    def start(self, netns: Path) -> None:
        """In the network namespace `netns`."""
        words = ("--count", "1", "--until-eof", "--interval", str(INTERVAL), "--grace", str(GRACE))
        self._process = subprocess.Popen(
            processes.inside(str(netns), peer_command("echo", self.address, *words)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def stop(self) -> Answers:
        """End them, and wait for the last replies. Raises PycniError if they ended before."""
        assert self._process is not None
        early = self._process.poll() is not None
        said, errors = self._process.communicate(timeout=END_SECONDS)
        if early or self._process.returncode != 0:
            raise PycniError(
                f"the pings {self.name} ended too early",
                details=(errors or said).decode(errors="replace").strip()[-500:],
                hint="see whether the pod still runs",
            )
        (answer,) = json.loads(said)
        lost = answer["sent"] - answer["received"]
        return Answers(answer["sent"], lost, _words(answer) if lost else "")

    def kill(self) -> None:
        """End them at once, if they run."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def netns_of(cluster: Cluster, pod: Json) -> Path:
    """The network namespace of a pod that runs, as kubelet's control groups tell its processes.

    Raises PycniError if there is none.
    """
    uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
    node = cluster.layout.node(pod["spec"]["nodeName"])
    for top in leftovers.cgroups(cluster.cgroup(node)):
        for group in top.rglob(f"pod{uid}"):
            for file in group.rglob("cgroup.procs"):
                for pid in _processes(file):
                    found = Path(f"/proc/{pid}/ns/net")
                    if found.exists():
                        return found
    raise PycniError(f"no process of the pod {name} runs", hint="see: kubectl describe pod")


def peer(netns: Path, *arguments: str) -> list[Json]:
    """What peer.py says that runs in a namespace. Raises PycniError."""
    done = processes.run(str(netns), peer_command(*arguments))
    if done.returncode != 0:
        raise PycniError(
            f"peer {' '.join(arguments)} failed",
            details=done.stderr.decode(errors="replace")[-500:],
        )
    found: list[Json] = json.loads(done.stdout)
    return found


def _processes(file: Path) -> Sequence[str]:
    with suppress(OSError):
        return file.read_text().split()
    return ()


def _words(answer: Json) -> str:
    lost = answer["sent"] - answer["received"]
    found = f"{lost} of {answer['sent']}, by their numbers {answer['missing'][:20]}"
    if answer["errors"]:
        found += f"; {answer['errors']} could not be sent"
    if answer["unread"]:
        found += f"; {answer['unread']} replies came and were not read in time"
    return found
