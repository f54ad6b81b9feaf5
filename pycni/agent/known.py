# SPDX-License-Identifier: Apache-2.0
"""The nodes as the agent's store loop has heard of them last, for its other threads."""

from __future__ import annotations

from collections.abc import Iterable

from pycni.stores import NodeRecord


class Known:
    """One writer, any number of readers; a reader gets one whole answer or another."""

    def __init__(self) -> None:
        self.nodes: tuple[NodeRecord, ...] | None = None
        """None until the store has listed all."""
        self.version = 0
        """Changes with each news."""

    def tell(self, nodes: Iterable[NodeRecord]) -> None:
        """These are the nodes now."""
        self.nodes = tuple(nodes)
        self.version += 1
