# SPDX-License-Identifier: Apache-2.0
"""Tells the cluster store, every HEARTBEAT_INTERVAL, that this node's agent lives."""

from __future__ import annotations

from pycni.agent.loops import Run
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import HEARTBEAT_INTERVAL, open_store


def follow(settings: Settings, run: Run) -> None:
    """Until the agent stops. Raises NotAvailable, StoreError among it."""
    name = Node.load(settings).name
    store = open_store(settings.store_url, settings.cluster, create=False)
    while not run.stopping:
        store.heartbeat(name)
        run.well()
        run.wait(HEARTBEAT_INTERVAL)
