# SPDX-License-Identifier: Apache-2.0
"""One checked call of the plugin: what is asked, of which network, and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pycni.cni.netconf import NetConf
from pycni.cni.protocol import Request
from pycni.errors import TryAgain
from pycni.kernel.forgetting import Forgetting
from pycni.locks import DEADLINE
from pycni.names import AttachmentKey
from pycni.settings import Settings


@dataclass(frozen=True)
class Serving:
    """What a call gets from the process that does the work."""

    forgetting: Forgetting = field(default_factory=Forgetting)
    """For the connections of addresses that are given back, or taken."""
    has_left: Callable[[], bool] = lambda: False
    """Whether the plugin that asked has ended."""


@dataclass(frozen=True)
class Call:
    """What the commands work on. Everything happens in the node's network namespace."""

    request: Request
    conf: NetConf
    env: Mapping[str, str]
    """As the runtime set it; another IPAM plugin gets the same."""
    stdin: bytes
    """The bytes of the configuration; another IPAM plugin gets the same."""
    settings: Settings
    end: float
    """When to give up, in seconds of time.monotonic()."""
    netns_fd: int = -1
    """The pod's network namespace: on ADD and CHECK always, on DEL if it still exists, else -1."""
    serving: Serving = field(default_factory=Serving)

    @property
    def key(self) -> AttachmentKey:
        return AttachmentKey(self.conf.name, self.request.container_id, self.request.ifname)

    def left(self) -> float:
        """Seconds until the end, not negative."""
        return max(0.0, self.end - time.monotonic())

    @property
    def forgetting(self) -> Forgetting:
        return self.serving.forgetting

    def refuse_unheard(self) -> None:
        """Raise TryAgain if nobody hears of a success any more.

        After the end, whoever called may have been told of an error. If the plugin was killed, the
        runtime's DEL may have been answered.
        """
        if self.serving.has_left():
            raise TryAgain(
                f"{self.request.command} was left by its caller",
                details="everything is undone",
                hint="nobody waits for this answer",
            )
        if self.left() <= 0:
            raise TryAgain(
                f"{self.request.command} took longer than it may",
                details="everything is undone",
                hint="look at the load of this node, then try again",
            )

    def patience(self) -> float:
        """Seconds to wait for a lock."""
        return min(DEADLINE, self.left())
