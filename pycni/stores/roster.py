# SPDX-License-Identifier: Apache-2.0
"""Which records of a store are valid: the answer as a whole, and how it changes record by record.

A record that is wrong by itself is set aside. Of two that claim the same thing, the senior one
counts (`Claim.seniority`). The answer depends on what the store holds and on nothing else: not on
the order of changes, so that all nodes come to the same. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pycni.cluster import Cluster
from pycni.stores.records import Claim, Key, Raw, conflict, printable, read
from pycni.stores.registry import Listing, Liveness, NodeRecord
from pycni.stores.source import Event, Put, Rejected, Removed

NAMED = 3
"""Networks that a reason names."""


class Roster:
    """The records of a store, checked. A change costs what it touches, not the whole."""

    def __init__(
        self,
        cluster: Cluster,
        records: Mapping[str, Raw] | None = None,
        *,
        newer_has_vtep: bool = False,
        extra_in_cluster: bool = True,
        keeps_identity: bool = True,
    ) -> None:
        """With `newer_has_vtep`, of two valid records with one VTEP the junior one counts: where
        machines come and go, addresses are used again before records of machines that went go.

        Without `extra_in_cluster`, no node publishes addresses of the cluster's networks, and who
        does it wants other nodes' records set aside.

        Without `keeps_identity`, claims do not say of which machine they are: who registers asks
        that, and who only follows thousands of nodes saves memory."""
        self.cluster = cluster
        self.newer_has_vtep = newer_has_vtep
        self.extra_in_cluster = extra_in_cluster
        self.keeps_identity = keeps_identity
        self.claims: dict[str, Claim] = {}
        """All records, by name."""
        self.nodes: dict[str, NodeRecord] = {}
        """The valid ones."""
        self.rejected: dict[str, str] = {}
        """Why the others are set aside."""
        self._named: dict[Key, str | tuple[str, ...]] = {}
        """Who holds or touches a thing, of all that are valid by themselves: one name, mostly."""
        self.change(records or {})

    def change(self, records: Mapping[str, Raw | None]) -> list[Event[NodeRecord]]:
        """Take in records as they are now, None for one that is gone; returns what that changes.

        Removed come first, then Rejected, then Put.
        """
        affected = self._connected(records)
        for name, raw in records.items():
            self._forget(name)
            if raw is not None:
                self._learn(self.read(name, raw))
        affected |= self._connected(records)
        nodes = {name: self.nodes.get(name) for name in affected}
        rejected = {name: self.rejected.get(name) for name in affected}
        self._settle(affected)
        return self._differences(nodes, rejected)

    def read(self, name: str, raw: Raw) -> Claim:
        """What `claims` has for a record, whatever others say."""
        claim = read(name, raw, self.cluster)
        if not self.keeps_identity:
            claim = replace(claim, identity="")
        if claim.touches and not claim.problem and not self.extra_in_cluster:
            overlapped = ", ".join(map(str, claim.touches[:NAMED]))
            problem = f"the address that it published overlaps {overlapped}, for pods of nodes"
            return replace(claim, problem=problem)
        return claim

    def holder(self, key: Key) -> str:
        """The valid node that has a thing, or that has an address in it; empty if none has."""
        valid = [name for name in self._names(key) if name in self.nodes]
        holding = [name for name in valid if self.claims[name].has(key)]
        return min(holding or valid, default="")

    def listing(self, liveness: Mapping[str, Liveness]) -> Listing:
        """All records, with what the store knows of the agents."""
        silent = Liveness(alive=False)
        return Listing(
            nodes=tuple(self.nodes[name] for name in sorted(self.nodes)),
            liveness={printable(name): liveness.get(name, silent) for name in sorted(self.claims)},
            rejected={printable(name): self.rejected[name] for name in sorted(self.rejected)},
        )

    def _names(self, key: Key) -> tuple[str, ...]:
        named = self._named.get(key, ())
        return (named,) if isinstance(named, str) else named

    def _learn(self, claim: Claim) -> None:
        self.claims[claim.name] = claim
        for key in dict.fromkeys(claim.keys):
            before = self._names(key)
            self._named[key] = (*before, claim.name) if before else claim.name

    def _forget(self, name: str) -> None:
        claim = self.claims.pop(name, None)
        for key in dict.fromkeys(_keys(claim)):
            left = tuple(one for one in self._names(key) if one != name)
            if left:
                self._named[key] = left if len(left) > 1 else left[0]
            else:
                del self._named[key]

    def _connected(self, names: Iterable[str]) -> set[str]:
        """These names and all whose claims may depend on theirs, step by step."""
        found: set[str] = set()
        keys: set[Key] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name in found:
                continue
            found.add(name)
            claim = self.claims.get(name)
            for key in _keys(claim):
                if key not in keys:
                    keys.add(key)
                    left.extend(self._names(key))
        return found

    def _settle(self, names: set[str]) -> None:
        """Decide anew about records whose claims depend on no others'."""
        for name in names:
            self.nodes.pop(name, None)
            self.rejected.pop(name, None)
        claims = [self.claims[name] for name in names if name in self.claims]
        for claim in sorted(claims, key=lambda claim: claim.seniority):
            former = self._former_of_vtep(claim)
            if reason := claim.problem or self._conflict(claim, former):
                self.rejected[claim.name] = reason
                continue
            if former is not None:
                del self.nodes[former.name]
                self.rejected[former.name] = (
                    f"its VTEP {claim.vtep} is that of {claim.name}, which is newer"
                )
            self.nodes[claim.name] = claim.record

    def _former_of_vtep(self, claim: Claim) -> Claim | None:
        """The valid claim that a junior one takes the VTEP from, if it can be valid otherwise."""
        if not self.newer_has_vtep or claim.problem:
            return None
        assert claim.vtep is not None
        former = self.claims.get(self.holder(claim.vtep))
        return former if former is not None and former.vtep == claim.vtep else None

    def _conflict(self, claim: Claim, former: Claim | None) -> str:
        """Why a claim cannot be valid beside those that are, even if it gets the VTEP of `former`;
        empty if it can."""
        rivals = {
            name
            for key in claim.keys
            for name in self._names(key)
            if name in self.nodes and (claim.has(key) or self.claims[name].has(key))
        }
        seniors = sorted((self.claims[name] for name in rivals), key=lambda one: one.seniority)
        conflicts = (conflict(claim, one, but_vtep=one is former) for one in seniors)
        return next(filter(None, conflicts), "")

    def _differences(
        self, nodes: Mapping[str, NodeRecord | None], rejected: Mapping[str, str | None]
    ) -> list[Event[NodeRecord]]:
        """The events from the records as they were to the records as they are."""
        removed: list[Event[NodeRecord]] = []
        refused: list[Event[NodeRecord]] = []
        put: list[Event[NodeRecord]] = []
        for name in sorted(nodes):
            was_known = nodes[name] is not None or rejected[name] is not None
            if name in self.nodes:
                if self.nodes[name] != nodes[name]:
                    put.append(Put(name, self.nodes[name]))
            elif name in self.rejected:
                if self.rejected[name] != rejected[name]:
                    refused.append(Rejected(printable(name), self.rejected[name]))
            elif was_known:
                removed.append(Removed(printable(name)))
        return [*removed, *refused, *put]


def _keys(claim: Claim | None) -> tuple[Key, ...]:
    return () if claim is None else claim.keys
