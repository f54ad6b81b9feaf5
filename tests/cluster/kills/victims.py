# SPDX-License-Identifier: Apache-2.0
"""Components that are killed and stopped, and how each of them comes back.

Daemons of a machine are started again by this process, in place of a supervisor such as systemd;
pycni's agent by the kubelet, as the container that it is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from cluster import network
from cluster.layout import Cluster
from cluster.machine import Machine
from cluster.proc import is_stopped
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab.layout import LabNode
from pycni.lab.processes import Kept

AGENT = "agent"
OF_CONTROL = {"etcd": "etcd", "API server": "api-server"}
OF_WORKERS = {"kubelet": "kubelet", "containerd": "containerd"}
DAEMONS = OF_CONTROL | OF_WORKERS
"""Components and the names of their daemons (machine.py)."""
SIGNAL_SECONDS = 10.0
AGENT_SECONDS = 330.0
"""The kubelet waits longer each time that a container has ended, 300 s at last."""


class Kind(StrEnum):
    """What befalls a component."""

    KILLED = "killed"
    STOPPED = "stopped"
    KILLED_STOPPED = "killed while stopped"


@dataclass(frozen=True)
class Victim:
    """A component on a machine."""

    component: str
    node: LabNode

    def __str__(self) -> str:
        return f"{self.component} on {self.node.name}"


def everybody(cluster: Cluster) -> list[list[Victim]]:
    """For each component, where it runs; an agent and others of a worker on each worker."""
    return [
        *([Victim(name, cluster.control)] for name in OF_CONTROL),
        *([Victim(name, node) for node in cluster.workers] for name in (*OF_WORKERS, AGENT)),
    ]


def strike(victim: Victim, kind: Kind, *, seconds: float) -> None:
    """Hurt it so that it is away for `seconds`; returns when it runs again.

    Raises PycniError if it did not run, or does not come back.
    """
    body = _Agent(victim.node) if victim.component == AGENT else _Daemon(victim)
    match kind:
        case Kind.STOPPED:
            with _frozen(body):
                time.sleep(seconds)
        case Kind.KILLED:
            body.kill()
            body.come_back(seconds)
        case Kind.KILLED_STOPPED:
            with _frozen(body):
                time.sleep(seconds / 2)
                body.kill()
            body.come_back(seconds / 2)


@contextmanager
def _frozen(body: _Agent | _Daemon) -> Iterator[None]:
    """Stopped inside of the block, unless it is killed there."""
    body.freeze()
    try:
        yield
    finally:
        body.thaw()


class _Daemon:
    def __init__(self, victim: Victim) -> None:
        self._machine = Machine(victim.node)
        self._name = DAEMONS[victim.component]
        self._machine.require(self._name)

    def freeze(self) -> None:
        self._machine.freeze_daemon(self._name)

    def thaw(self) -> None:
        kept = self._machine.daemon(self._name)
        if kept is not None and kept.alive:
            self._machine.thaw_daemon(self._name)

    def kill(self) -> None:
        self._machine.stop_daemon(self._name, kill=True)

    def come_back(self, seconds: float) -> None:
        """After so many seconds a supervisor starts it again."""
        time.sleep(seconds)
        self._machine.start_again(self._name)


class _Agent:
    def __init__(self, node: LabNode) -> None:
        self._node = node
        self._process = _running_agent(node)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)
        until(lambda: is_stopped(self._process.pid), f"the agent of {self._node.name} is stopped",
              SIGNAL_SECONDS)  # fmt: skip

    def thaw(self) -> None:
        if self._process.alive:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        until(lambda: not self._process.alive, f"the agent of {self._node.name} has ended",
              SIGNAL_SECONDS)  # fmt: skip

    def come_back(self, _: float) -> None:
        """When the kubelet likes."""
        until(lambda: network.agent(self._node) is not None,
              f"the kubelet starts {self._node.name}'s agent again", AGENT_SECONDS)  # fmt: skip


def _running_agent(node: LabNode) -> Kept:
    found = network.agent(node)
    if found is None:
        raise PycniError(
            f"no agent of pycni runs on {node.name}",
            hint=f"see: python -m cluster kubectl -n {network.NAMESPACE} describe pods",
        )
    return found
