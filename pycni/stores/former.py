# SPDX-License-Identifier: Apache-2.0
"""The place that a machine had before it registers, by its own record and its pods.

A store that has lost its record gives it back where it is free, and refuses another one while pods
live in it. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import PlaceLost


@dataclass(frozen=True)
class Former:
    """What a machine was as a node."""

    pod_cidrs: tuple[IPNetwork, ...] = ()
    """Empty: it was none."""
    blocks: tuple[IPNetwork, ...] = ()
    """Its further networks."""
    pods: tuple[IPAddress, ...] = ()
    """Addresses of the pods that run on it."""
    stays: bool = False
    """Whether it may get no other pod CIDRs: it has pods, or may get some at any moment."""

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """All networks of its pods, its pod CIDRs first."""
        return (*self.pod_cidrs, *self.blocks)

    def refuse_renumbering(self, given: Sequence[IPNetwork]) -> None:
        """Raise PlaceLost if the store gives other pod CIDRs than those that pods live in."""
        if self.stays and self.pod_cidrs and self.pod_cidrs != tuple(given):
            have, offered = (" ".join(map(str, cidrs)) for cidrs in (self.pod_cidrs, given))
            raise PlaceLost(
                f"the cluster store gives this node {offered or 'another place'}, but its pods "
                f"have addresses of {have}",
                hint="restore the store from before, or drain the node, then pycni teardown and "
                "setup",
            )

    def refuse_lost_blocks(self, given: Collection[IPNetwork]) -> None:
        """Raise PlaceLost if pods have addresses of a block that is not among the networks that
        the store gives."""
        for block in sorted(set(self.blocks) - set(given), key=str):
            if any(address in block for address in self.pods):
                raise PlaceLost(
                    f"pods of this node have addresses of {block}, which it has no more in the "
                    "cluster store",
                    hint="drain the node, then run: pycni setup",
                )


NEW = Former()
"""Of a machine that was no node."""
