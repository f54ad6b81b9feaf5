# SPDX-License-Identifier: Apache-2.0
"""What packets of pods need in iptables' chains: rules of ours that accept them.

Docker and ufw let FORWARD drop by policy, ufw INPUT, too. An accept in a table of our own would
not help: a packet must be accepted in each table that drops. So there are a few rules of ours at
the head of these chains, where something else is in them. They are known by their comments, and
nobody else's rule is touched. Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pycni.faults import Fault, Weight
from pycni.kernel import nft_chains
from pycni.kernel.nft_chains import BaseChain, Expression, NewRule, Rule
from pycni.names import NAME_HEAD
from pycni.node.overlay import DEVICE
from pycni.node.record import Node

WHAT = "the rules that accept pods' packets in iptables' chains"
PART = "iptables"
TABLE, FORWARD, INPUT = "filter", "FORWARD", "INPUT"
"""Of iptables-nft, in the families ip and ip6."""
VERSIONS = {"ip": 4, "ip6": 6}
MARK = "pycni: "
"""Comments of ours begin so."""


@dataclass(frozen=True)
class Found:
    """One of iptables' chains, as it is."""

    chain: BaseChain
    rules: tuple[Rule, ...]

    @property
    def ours(self) -> list[Rule]:
        return [rule for rule in self.rules if rule.comment.startswith(MARK)]

    @property
    def is_used(self) -> bool:
        """Whether others may drop packets in it. INPUT is full of rules that drop some packets,
        none of ours; it matters only if it drops all that nobody accepted."""
        others = [rule for rule in self.rules if not rule.comment.startswith(MARK)]
        if self.chain.name == INPUT:
            others = [rule for rule in others if rule.stops_all]
        return self.chain.policy == "drop" or bool(others)

    @property
    def is_blocked(self) -> bool:
        """Whether a rule before the last of ours lets no packet pass."""
        last = max((self.rules.index(rule) for rule in self.ours), default=0)
        return any(rule.stops_all for rule in self.rules[:last])


def wanted(node: Node, chain: BaseChain) -> list[NewRule]:
    """The rules that one of iptables' chains must begin with, if others use it. Pure.

    Packets of pods pass the overlay device, those of pods behind an ingress qdisc of others their
    host end (pods/link_changes.py). VXLAN comes in only where the programs leave it to the kernel.
    """
    version = VERSIONS[chain.family]
    if chain.name == FORWARD and any(one.version == version for one in node.cluster_cidrs):
        return [
            _accept("from pods", _is_meta("iifname", DEVICE)),
            _accept("to pods", _is_meta("oifname", DEVICE)),
            _accept("from limited pods", _is_meta("iifname", f"{NAME_HEAD}*")),
        ]
    if chain.name == INPUT and node.vtep.version == version:
        vtep = str(node.vtep)
        return [
            _accept(
                f"VXLAN to {vtep} port {node.port}",
                _is_field(chain.family, "daddr", vtep),
                _is_field("udp", "dport", node.port),
            )
        ]
    return []


def setup(node: Node) -> None:
    """Put the rules where they are missing; other people's rules stay. Raises SetupError."""
    for found in _look():
        if _problem(found, node):
            nft_chains.replace(found.chain, found.ours, wanted(node, found.chain), what=WHAT)


def exist() -> bool:
    """Whether any of the rules is there. Raises SetupError."""
    return any(found.ours for found in _look())


def teardown() -> None:
    """Delete the rules, and none else. Raises SetupError."""
    for found in _look():
        if found.ours:
            nft_chains.replace(found.chain, found.ours, what=WHAT)


def faults(node: Node) -> list[Fault]:
    """What `setup` would mend. Raises SetupError."""
    return [
        Fault(PART, str(found.chain), problem, weight=_weight(found))
        for found in _look()
        if (problem := _problem(found, node))
    ]


def is_iptables(chain: BaseChain) -> bool:
    """Whether it is one of the chains that this module cares for."""
    return chain.family in VERSIONS and chain.table == TABLE and chain.name in (FORWARD, INPUT)


def _look() -> Iterator[Found]:
    for chain in nft_chains.base_chains("forward", "input", what=WHAT):
        if is_iptables(chain):
            yield Found(chain, tuple(nft_chains.rules(chain, what=WHAT)))


def _problem(found: Found, node: Node) -> str:
    """What is wrong with it, in a few words, or nothing."""
    comments = [rule.comment for rule in wanted(node, found.chain)]
    if not comments or not found.is_used:
        return ""
    if [rule.comment for rule in found.ours] != comments:
        return f"without the rules of pycni (policy {found.chain.policy})"
    return "dropping all packets before the rules of pycni" if found.is_blocked else ""


def _weight(found: Found) -> Weight:
    broken = found.chain.name == FORWARD and found.chain.policy == "drop"
    return Weight.BROKEN if broken else Weight.DEGRADED


def _accept(why: str, *matches: Expression) -> NewRule:
    end: Sequence[Expression] = ({"counter": None}, {"accept": None})
    return NewRule(MARK + why, (*matches, *end))


def _is_meta(key: str, value: str) -> Expression:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": value}}


def _is_field(protocol: str, field: str, value: object) -> Expression:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": value}}
