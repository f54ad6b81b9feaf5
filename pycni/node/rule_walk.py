# SPDX-License-Identifier: Apache-2.0
"""What a base chain of nftables does with all packets of a kind: a walk over its rules, and over
those of the chains that these jump or go to.

Only what is sure counts: a rule that stops some of them, or whose conditions cannot be judged
(rule_matches.py), stops none here. Pure, but for what the caller's Reader asks the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from pycni.kernel.nft_chains import BaseChain, Expression, Rule
from pycni.kernel.nft_elements import Answer
from pycni.node import rule_matches
from pycni.node.overlay import DEVICE
from pycni.node.passing import Packets
from pycni.node.rule_matches import SILENT, Match, Part

DEEPEST = 16
"""Jumps within jumps, as the kernel has it (NFT_JUMP_STACK_SIZE)."""
LETTING = ("accept", "return", "snat", "dnat", "masquerade", "redirect")
ENDS = (*LETTING, "drop", "reject", "queue", "jump", "goto", "vmap")
XT_ENDS = {"DROP": "drop", "REJECT": "reject", "ACCEPT": "accept"}
XT_SILENT = frozenset(("LOG", "NFLOG", "MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "TCPMSS", "CT",
                       "CHECKSUM", "CLASSIFY", "DSCP", "TOS", "TTL", "HL", "TRACE", "AUDIT",
                       "RATEEST", "SET", "NOTRACK", "TEE"))  # fmt: skip
"""iptables' targets after which the next rule follows."""


class End(Enum):
    """What becomes of packets that nobody stops."""

    PASSED = auto()
    """Accepted: this base chain is done with them."""
    OPEN = auto()
    """At the end of a chain."""
    UNSURE = auto()
    """It cannot be told, or whoever wrote the rules has thought of them."""


class Stop(NamedTuple):
    """The rule that stops them all; or the policy of a base chain, without `rule`."""

    chain: str
    number: int = 0
    """Of the rule in its chain, from 1."""
    rule: Rule | None = None
    names: bool = False
    """Whether rules on the way to it name what is pycni's."""


Outcome = End | Stop


class Reader(Protocol):
    """Answers of the kernel about one table."""

    def rules(self, chain: str) -> list[Rule] | None:
        """The rules of a chain in their order; none if it is gone. None: they are not known."""
        ...

    def look_up(self, name: str, element: str | int) -> Answer:
        """What a named set or map has at an element (nft_elements.py)."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What a rule does with packets that it is about."""

    kind: str
    target: str = ""


def walk(chain: BaseChain, packets: Packets, reader: Reader) -> Outcome:
    """What a base chain does with all these packets. They meet it (Packets.at)."""
    found = _chain(chain.name, packets, reader, 0)
    if found is End.OPEN and chain.policy == "drop":
        return Stop(chain.name)
    return found


def _chain(name: str, packets: Packets, reader: Reader, depth: int) -> Outcome:
    rules = reader.rules(name) if depth <= DEEPEST else None
    if rules is None:
        return End.UNSURE
    for number, rule in enumerate(rules, 1):
        if rule.stops_all and rule is rules[-1]:
            return Stop(name, number, rule)
        for match, verdict in _parts(rule, packets, reader):
            found = _follow(match, verdict, packets, reader, depth)
            if isinstance(found, Stop):
                own = found if found.chain else found._replace(chain=name, number=number, rule=rule)
                return own._replace(names=own.names or match.names)
            if verdict.kind in ("return", "goto") and found is End.OPEN and match.part is Part.ALL:
                return End.OPEN
            if found is not End.OPEN:
                return found
    return End.OPEN


def _follow(
    match: Match, verdict: Verdict, packets: Packets, reader: Reader, depth: int
) -> Outcome:
    """What a rule does with all of them; OPEN: the next rule follows, or the chain ends."""
    kind = verdict.kind
    if match.part is Part.ALL:
        if kind in ("drop", "reject"):
            return Stop("")
        if kind in ("jump", "goto"):
            return _chain(verdict.target, packets, reader, depth + 1)
        return End.OPEN if kind == "return" else End.PASSED if kind != "queue" else End.UNSURE
    if match.part is Part.NONE or kind in ("drop", "reject"):
        return End.OPEN
    if match.part is Part.SOME and not match.names:
        return End.OPEN  # what happens to the others decides
    if kind in ("jump", "goto"):
        found = _chain(verdict.target, packets, reader, depth + 1)
        return End.UNSURE if found in (End.PASSED, End.UNSURE) else End.OPEN
    return End.UNSURE


def _parts(rule: Rule, packets: Packets, reader: Reader) -> list[tuple[Match, Verdict]]:
    """A rule as verdicts on parts of the packets: one, or with a verdict map several."""
    verdict, strange = _verdict(rule.expressions)
    if verdict is None:
        return []
    lets = verdict.kind in LETTING
    match = rule_matches.of_rule(rule.expressions, packets, reader.look_up, lets=lets)
    if strange:
        match = Match(min(match.part, Part.UNKNOWN), match.names)
    if verdict.kind != "vmap":
        return [(match, verdict)]
    (vmap,) = (one["vmap"] for one in rule.expressions if "vmap" in one)
    return _of_map(vmap, match, packets, reader)


def _of_map(
    vmap: dict[str, Any], match: Match, packets: Packets, reader: Reader
) -> list[tuple[Match, Verdict]]:
    """Of a named map of interfaces what it has for the packets': it may have thousands."""
    data = vmap["data"]
    ifnames = rule_matches.ifnames(vmap["key"], packets)
    if isinstance(data, str) and ifnames:
        return [_of_name(data[1:], one, match, len(ifnames), reader) for one in sorted(ifnames)]
    if not isinstance(data, dict) or not isinstance(vmap["key"], dict):
        return [(Match(min(match.part, Part.UNKNOWN)), Verdict("queue"))]
    found = []
    for key, value in data.get("set", []):
        verdict, _ = _verdict((value,))
        one = rule_matches.of_key(vmap["key"], key, packets, reader.look_up)
        part = min(match.part, one.part)
        names = part is not Part.NONE and (match.names or one.names)
        if verdict is not None:
            found.append((Match(part, names), verdict))
    return found


def _of_name(
    name: str, ifname: str, match: Match, ifnames: int, reader: Reader
) -> tuple[Match, Verdict]:
    """What a named map says of the packets of one of so many interfaces."""
    found = reader.look_up(name, ifname)
    verdict = _verdict((found,))[0] if isinstance(found, dict) else None
    if verdict is None:
        return Match(Part.UNKNOWN if found is None else Part.NONE), Verdict("queue")
    part = Part.ALL if ifnames == 1 else Part.UNKNOWN
    return Match(min(match.part, part), match.names or ifname == DEVICE), verdict


def _verdict(expressions: tuple[Expression, ...]) -> tuple[Verdict | None, bool]:
    """What a rule ends with, None if the next rule follows; and whether there is something in it
    that may choose packets, and that nobody here knows."""
    verdict, strange = None, False
    for one in expressions:
        (kind, said), *_ = one.items()
        if kind in ENDS:
            target = said["target"] if kind in ("jump", "goto") else ""
            verdict = Verdict(kind, target)
        elif kind == "xt" and said is not None and said.get("type") == "target":
            name = said.get("name", "")
            if name not in XT_SILENT:
                verdict = Verdict(XT_ENDS.get(name, "queue"))
        elif kind not in SILENT and kind not in ("match", "xt"):
            strange = True
    return verdict, strange
