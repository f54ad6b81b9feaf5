# SPDX-License-Identifier: Apache-2.0
"""Leases in etcd: each says that one node's agent lives, and runs out when nobody renews it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from pycni.errors import PycniError
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.registry import HEARTBEAT_FRESH

SEEN_INTERVAL = 300.0
"""Seconds."""


@dataclass(frozen=True)
class Leases:
    """The leases that this process renews. All raise StoreError, unless it says otherwise."""

    gateway: Gateway
    _held: dict[str, str] = field(default_factory=dict)
    """By node."""
    _beaten: set[str] = field(default_factory=set)
    """Nodes that this process has sent a heartbeat for."""
    _written: dict[str, float] = field(default_factory=dict)
    """When the time of a heartbeat was last written: CLOCK_MONOTONIC, in seconds."""

    def grant(self) -> str:
        """A new lease, which runs for HEARTBEAT_FRESH."""
        answer = self.gateway.call("lease/grant", {"TTL": str(round(HEARTBEAT_FRESH))})
        return str(answer["ID"])

    def revoke(self, lease: str) -> None:
        """End a lease if etcd can be reached; otherwise it runs out by itself. Raises nothing."""
        with suppress(PycniError):
            self.gateway.call("lease/revoke", {"ID": lease})

    def keep_for(self, name: str, lease: str) -> None:
        """This lease is the node's from now on."""
        self._held[name] = lease

    def renewed(self, name: str) -> str:
        """The node's lease, renewed; a new one if it had none or it had run out."""
        lease = self._held.get(name)
        if lease is None or not self._renew(lease):
            lease = self._held[name] = self.grant()
        return lease

    def has_beaten(self, name: str) -> bool:
        """Whether this was asked for the node before."""
        before = name in self._beaten
        self._beaten.add(name)
        return before

    def is_due(self, name: str) -> bool:
        """Whether the time of the heartbeat is to be written now: every SEEN_INTERVAL, since
        thousands of nodes write to one etcd."""
        now = time.monotonic()
        if now - self._written.get(name, -SEEN_INTERVAL) < SEEN_INTERVAL:
            return False
        self._written[name] = now
        return True

    def end(self, name: str) -> None:
        """End the node's lease, if this process has it. Raises nothing."""
        if lease := self._held.pop(name, None):
            self.revoke(lease)

    def _renew(self, lease: str) -> bool:
        """False if it had run out: etcd then answers without a TTL."""
        answer = self.gateway.call("lease/keepalive", {"ID": lease})
        return int(answer["result"].get("TTL", 0)) > 0
