# SPDX-License-Identifier: Apache-2.0
"""Keeps the list of nodes on disk (node/last_list.py), for a boot without the store."""

from __future__ import annotations

from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.node import last_list
from pycni.settings import Settings
from pycni.stores import NodeRecord

PERIOD = 10.0
"""Seconds, at least, between two writes."""
LOOK = 1.0
"""Seconds between two looks at whether there is a first list."""


def follow(settings: Settings, run: Run, *, known: Known) -> None:
    """Until the agent stops. Raises FileError."""
    written: tuple[NodeRecord, ...] | None = None
    while not run.stopping:
        nodes = known.nodes
        # a store that does not know this node is not believed (agent/cluster_store.py)
        is_ours = any(node.name == settings.node_name for node in nodes or ())
        if nodes is not None and is_ours and nodes != written:
            last_list.save(settings, nodes)
            written = nodes
        run.well()
        run.wait(LOOK if written is None else PERIOD)
