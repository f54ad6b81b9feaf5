# SPDX-License-Identifier: Apache-2.0
"""The chains of iptables-legacy that stop packets which a node needs: found and named, never
changed.

None of our rules can be there: an accept in nftables does not help. Looks only, in the network
namespace of the calling thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from pycni.faults import Fault, Weight
from pycni.kernel import xtables
from pycni.kernel.nft_chains import BaseChain, Rule
from pycni.kernel.nft_elements import Answer
from pycni.kernel.xtables_entries import Table
from pycni.node import stopping_rules
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.node.stopping_rules import Judged, Stopping

COMMANDS = {4: "iptables-legacy", 6: "ip6tables-legacy"}


@dataclass(frozen=True)
class Reader:
    """Of one table. It has no sets: those of ipset are matches that nobody here knows."""

    table: Table
    known: dict[str, list[Rule]] = field(default_factory=dict)

    def of(self, _: BaseChain) -> Reader:
        """That of the chain's table."""
        return self

    def rules(self, chain: str) -> list[Rule]:
        """The rules of a chain in their order."""
        if chain not in self.known:
            self.known[chain] = self.table.rules(chain)
        return self.known[chain]

    def look_up(self, _: str, __: str | int) -> Answer:
        """Nothing is known."""
        return None


def faults(node: Node, ways: Collection[str], part: str) -> Iterator[Fault]:
    """What stops all packets of a kind; and chains that drop in the end, in tables that do not name
    the overlay device, at the host's own packets VXLAN's port. Raises SetupError.

    `ways`: names of the interfaces by which packets may leave for the world. `part`: the row.
    """
    for version in sorted({cidr.version for cidr in node.cluster_cidrs}):
        for table in xtables.tables(version):
            found = stopping_rules.judge(node, ways, table.base_chains, Reader(table))
            sure = [_row(one, COMMANDS[version], node.port) for one in found.stopping]
            unsure = _closed(table, found, COMMANDS[version], node)
            for weight, rows in ((Weight.BROKEN, sure), (Weight.DEGRADED, unsure)):
                for thing, what, accepts in rows:
                    yield Fault(part, thing, what, f"run: {'; '.join(accepts)}", weight)


def state() -> object:
    """What differs if others changed them. Raises SetupError."""
    return [xtables.tables(version) for version in COMMANDS]


Row = tuple[str, str, tuple[str, ...]]
"""A thing, what it does, and commands that let packets pass."""


def _row(one: Stopping, command: str, port: int) -> Row:
    base, stop = one.base, one.stop
    thing = f"chain {stop.chain} of {command} -t {base.table}"
    if stop.rule:
        thing = f"rule {stop.number} of {thing}"
    return thing, one.found, tuple(_accepts(base, stopping_rules.matches(one), command, port))


def _accepts(base: BaseChain, matches: Iterable[str], command: str, port: int) -> Iterator[str]:
    begin = f"{command} -t {base.table} -I {base.name}"
    for match in matches:
        words = {
            "iifname": f"-i {DEVICE}",
            "oifname": f"-o {DEVICE}",
            "udp": f"-p udp --dport {port}",
        }
        yield f"{begin} {words[match]} -j ACCEPT"


def _closed(table: Table, found: Judged, command: str, node: Node) -> Iterator[Row]:
    """Where it cannot be told what becomes of packets on their way to the end of a chain."""
    told = {one.base for one in found.stopping} | found.letting
    words = {"forward": DEVICE}
    if command == COMMANDS[node.vtep.version]:
        words["input"] = str(node.port)
    for base in table.base_chains:
        rules = table.rules(base.name)
        is_closed = base.policy == "drop" or bool(rules and rules[-1].stops_all)
        word = words.get(base.hook)
        if word and is_closed and base not in told and not _names(table, word):
            what = f"dropping what it does not know, and does not name {word}"
            match = ("iifname", "oifname") if word == DEVICE else ("udp",)
            accepts = tuple(_accepts(base, match, command, node.port))
            yield f"chain {base.name} of {command} -t {base.table}", what, accepts


def _names(table: Table, word: str) -> bool:
    return any(word in str(table.rules(chain)) for chain in table.entries)
