# SPDX-License-Identifier: Apache-2.0
"""What the agent knows of this node's place in the cluster store, told in its report.

It is lost if the store does not have the node, or has it with other pod CIDRs, or has its name with
another machine. It stays lost until a heartbeat is well. A store that does not answer changes
nothing.
"""

from __future__ import annotations

import logging

from pycni.agent.known import Known
from pycni.errors import PlaceLost
from pycni.logfmt import quoted
from pycni.node.record import Node
from pycni.node.report import PLACE, Report
from pycni.stores import Rival

ASK = "see who did that: pycni nodes; or drain this node, then run: pycni setup"

log = logging.getLogger(__name__)


class Place:
    """Used by one thread at a time."""

    def __init__(self, report: Report, known: Known) -> None:
        self._report = report
        self._known = known
        self._cause = ""
        self._todo = ""
        self._was_unlisted = False
        """Whether the last heartbeat was well, and the store listed no valid record."""

    def beat(self, node: Node, rival: Rival | None) -> None:
        """The store has taken a heartbeat."""
        self._tell(self._found(node, rival), ASK)

    def lose(self, error: PlaceLost) -> None:
        """The store has no place for this node."""
        self._tell(error.message, error.hint)

    def repeat(self) -> None:
        """The store did not answer: what was found before stands."""
        self._put()

    def _found(self, node: Node, rival: Rival | None) -> str:
        """Why the place is lost, though the store knows the node; empty if it is not."""
        nodes = self._known.nodes
        own = next((one for one in nodes or () if one.name == node.name), None)
        is_unlisted, was_unlisted = nodes is not None and own is None, self._was_unlisted
        self._was_unlisted = is_unlisted
        if is_unlisted and was_unlisted:  # once, the news may be late
            return "its record in the cluster store is set aside: pycni nodes says why"
        if own is not None and own.pod_cidrs != node.pod_cidrs:
            given, have = (" ".join(map(str, one.pod_cidrs)) for one in (own, node))
            return f"it has the pod CIDRs {given} in the cluster store, and its pods are in {have}"
        if rival is not None and (rival.has_place or (own is not None and own.vtep != node.vtep)):
            return f"another machine registered under its name, {rival}"
        return ""

    def _tell(self, cause: str, todo: str) -> None:
        if cause and cause != self._cause:
            log.warning("place lost, no pod is added cause=%s to_do=%s",
                        quoted(cause), quoted(todo))  # fmt: skip
        elif self._cause and not cause:
            log.info("place is back, pods are added again")
        self._cause, self._todo = cause, todo
        self._put()

    def _put(self) -> None:
        self._report.put(PLACE, {"cause": self._cause, "to_do": self._todo} if self._cause else "")
