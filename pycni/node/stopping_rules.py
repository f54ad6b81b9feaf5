# SPDX-License-Identifier: Apache-2.0
"""Rules of others that stop all packets of a kind that a node needs: found at every hook and in
every chain, never changed.

One question of the kernel for each chain that such packets meet. Chains of NAT, which decide where
packets go and seldom whether, are left out, as are those that only some packets jump to. Looks
only, in the network namespace of the calling thread.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pycni.errors import SetupError
from pycni.kernel import nft, nft_chains
from pycni.kernel.nft_chains import BaseChain, Rule
from pycni.kernel.nft_elements import Answer
from pycni.node import passing, rule_walk
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.node.rule_walk import End, Outcome, Reader, Stop

HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}
TABLES = ("filter", "raw", "mangle", "security")
"""Of iptables."""
MOST_CHAINS = 200
"""Chains that one look reads, at most."""
MOST_SECONDS = 0.5
"""Of processor time, after which a look asks no more. One question takes as long where a table has
a set of 100,000 elements (nft_chains.rules_in), and all else that the agent holds waits."""


@dataclass(frozen=True)
class Stopping:
    """A rule, or a base chain's policy, and what it stops."""

    base: BaseChain
    stop: Stop
    stopped: tuple[str, ...]
    """The kinds of packets, in words."""

    @property
    def thing(self) -> str:
        """Which rule."""
        base, stop = self.base, self.stop
        where = f"chain {stop.chain} of table {base.family} {base.table}"
        return f"rule {stop.number} of {where}" if stop.rule else f"the policy of {where}"

    @property
    def found(self) -> str:
        """What it does."""
        away = "" if self.stop.chain == self.base.name else f" (from chain {self.base.name})"
        return f"stopping {', '.join(self.stopped)}, at the hook {self.base.hook}{away}"

    @property
    def is_iptables(self) -> bool:
        """Whether iptables made it."""
        base = self.base
        return base.family in IPTABLES and base.table in TABLES and base.name.isupper()


class Enough(Exception):
    """A look has taken its time."""


@dataclass
class Effort:
    """What a look may still take, shared by all its readers."""

    chains: int = MOST_CHAINS
    end: float = field(default_factory=lambda: time.thread_time() + MOST_SECONDS)

    def is_over(self) -> bool:
        """Whether its time is."""
        return time.thread_time() >= self.end


@dataclass
class TableReader:
    """What the kernel says of one table, each thing asked for once. Raises SetupError."""

    family: str
    table: str
    what: str
    effort: Effort
    _rules: dict[str, list[Rule]] = field(default_factory=dict)
    _found: dict[tuple[str, str | int], Answer] = field(default_factory=dict)

    def rules(self, chain: str) -> list[Rule] | None:
        """The rules of a chain in their order; none if it is gone. None: too many were read."""
        if chain not in self._rules:
            if not self.effort.chains or self.effort.is_over():
                return None
            self.effort.chains -= 1
            found = nft_chains.rules_in(self.family, self.table, chain, what=self.what)
            self._rules |= {chain: [], **found}
        return self._rules[chain]

    def look_up(self, name: str, element: str | int) -> Answer:
        """What a named set or map has at an element. Raises Enough."""
        key = name, element
        if key not in self._found:
            if self.effort.is_over():
                raise Enough
            self._found[key] = nft.look_up(self.family, self.table, *key, what=self.what)
        return self._found[key]


@dataclass
class Readers:
    """Of all tables, for one look. `what` as in nft.run."""

    what: str
    effort: Effort = field(default_factory=Effort)
    _made: dict[tuple[str, str], TableReader] = field(default_factory=dict)

    def of(self, chain: BaseChain) -> TableReader:
        """That of a chain's table."""
        table = chain.family, chain.table
        return self._made.setdefault(table, TableReader(*table, self.what, self.effort))


class ReadersOf(Protocol):
    """Who answers for the table of a chain."""

    def of(self, chain: BaseChain) -> Reader:
        """Its reader."""
        ...


@dataclass
class Judged:
    """Of base chains."""

    stopping: list[Stopping]
    """What stops packets for sure."""
    letting: frozenset[BaseChain]
    """Chains that accept all packets, of all kinds that meet them."""


def judge(
    node: Node, ways: Collection[str], chains: Iterable[BaseChain], readers: ReadersOf
) -> Judged:
    """What these base chains do. Raises SetupError.

    `ways`: names of the interfaces by which packets may leave for the world.
    """
    kinds = list(passing.kinds(node, ways))
    found: dict[tuple[BaseChain, str, int], Stopping] = {}
    is_letting: dict[BaseChain, bool] = {}
    for chain, packets in _met(chains, kinds):
        end = _walk(chain, packets, readers)
        is_letting[chain] = is_letting.get(chain, True) and end is End.PASSED
        if isinstance(end, Stop):
            key = chain, end.chain, end.number
            before = found.get(key)
            stopped = (*(before.stopped if before else ()), packets.what)
            names = end.names or bool(before and before.stop.names)
            found[key] = Stopping(chain, end._replace(names=names), tuple(dict.fromkeys(stopped)))
    return Judged(list(found.values()), frozenset(one for one, lets in is_letting.items() if lets))


def _walk(chain: BaseChain, packets: passing.Packets, readers: ReadersOf) -> Outcome:
    try:
        return rule_walk.walk(chain, packets, readers.of(chain))
    except Enough:
        return End.UNSURE
    except SetupError:
        if not nft.unreadable((chain.family, chain.table)):
            raise
        return End.UNSURE  # an older libnftables must not read it: nothing is known of it


def todo(one: Stopping, *, port: int) -> str:
    """What a person has to do; `port` is VXLAN's."""
    base, stop = one.base, one.stop
    if one.is_iptables:
        command = f"{IPTABLES[base.family]} -t {base.table}"
        return f"see it: {command} -S {stop.chain}; {_remedy(stop)}"
    place = f"{base.family} {base.table} {stop.chain}"
    if stop.names and stop.rule:
        handle = f"nft delete rule {place} handle {stop.rule.handle}"
        return f"see it: nft -a list chain {place}; {_remedy(stop)} ({handle})"
    words = {"iifname": f"iifname {DEVICE}", "oifname": f"oifname {DEVICE}",
             "udp": f"udp dport {port}"}  # fmt: skip
    accept = "; ".join(
        f"nft insert rule {base.family} {base.table} {base.name} {words[match]} accept"
        for match in matches(one)
    )
    return f"let them pass: {accept}"


def _remedy(stop: Stop) -> str:
    return "remove it, or accept these packets before it" if stop.rule else "accept these packets"


def matches(one: Stopping) -> Iterator[str]:
    """What must be accepted: "iifname" and "oifname" of the overlay device, "udp" to VXLAN's
    port."""
    is_vxlan = [what.startswith("VXLAN") for what in one.stopped]
    if any(is_vxlan):
        yield "udp"
    if all(is_vxlan):
        return
    if one.base.hook in ("prerouting", "input", "forward", "ingress"):
        yield "iifname"
    if one.base.hook in ("forward", "output", "postrouting", "egress"):
        yield "oifname"


def _met(
    chains: Iterable[BaseChain], kinds: Collection[passing.Packets]
) -> Iterator[tuple[BaseChain, passing.Packets]]:
    for chain in chains:
        for packets in kinds:
            now = packets.at(chain) if chain.kind != "nat" else None
            if now is not None:
                yield chain, now
