# SPDX-License-Identifier: Apache-2.0
"""Other people's nftables chains: what stands in them, and rules of ours at their head.

iptables-nft keeps its tables here, too: `filter` in the families `ip` and `ip6`. It shows a rule of
ours as one of its own, with the comment. Everything runs in the network namespace of the calling
thread; every function raises SetupError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pycni.errors import SetupError
from pycni.kernel import nft, nft_tables, xt_matches

Expression = dict[str, Any]
"""A statement of a rule, as libnftables-json(5) has it."""


XT_REJECT = {"type": "target", "name": "REJECT"}
FAMILIES = ("ip", "ip6", "inet")
ON_DEVICES = ("ingress", "egress")
"""Hooks of single interfaces: those of the family netdev are there, and `ingress` of inet."""
NETDEV = frozenset(("netdev", hook) for hook in ON_DEVICES)


@dataclass(frozen=True)
class BaseChain:
    """A chain that the kernel calls, at `hook`; `policy` says what becomes of a packet at its
    end."""

    family: str
    table: str
    name: str
    hook: str
    policy: str
    priority: int = 0
    kind: str = "filter"
    """"filter", "nat" or "route"."""
    devices: tuple[str, ...] = ()
    """Names of the interfaces, of a hook among ON_DEVICES."""

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}"


@dataclass(frozen=True)
class Rule:
    """A rule in a chain; `comment` is empty if it has none."""

    handle: int
    comment: str
    expressions: tuple[Expression, ...]

    @property
    def stops_all(self) -> bool:
        """Whether no packet gets past it. What iptables adds to nftables, such as its target
        REJECT, is "xt"; an older libnftables does not tell which."""
        rest = [one for one in self.expressions if "counter" not in one]
        return len(rest) == 1 and (
            "drop" in rest[0]
            or "reject" in rest[0]
            or ("xt" in rest[0] and (rest[0]["xt"] or XT_REJECT) == XT_REJECT)
        )


@dataclass(frozen=True)
class NewRule:
    """A rule to be made."""

    comment: str
    expressions: tuple[Expression, ...]


def base_chains(*hooks: str, what: str) -> list[BaseChain]:
    """The chains of IP at these hooks, and where these are of interfaces, those of netdev. The
    kernel calls none of a dormant table."""
    flags = nft.flags(what=what)
    found = [
        BaseChain(
            one["family"],
            one["table"],
            one["name"],
            one["hook"],
            one.get("policy", ""),
            one.get("prio", 0),
            one.get("type", ""),
        )
        for one in _all_chains(what)
        if one.get("hook") in hooks
        and (one["family"] in FAMILIES or (one["family"], one["hook"]) in NETDEV)
        and not flags.get((one["family"], one["table"]), 0) & nft_tables.DORMANT
    ]
    if any(one.hook in ON_DEVICES for one in found):
        devices = nft.devices(what=what)
        found = [
            dataclasses.replace(one, devices=devices.get((one.family, one.table, one.name), ()))
            for one in found
        ]
    return found


def rules(chain: BaseChain, *, what: str) -> list[Rule]:
    """The rules of a chain in their order; none if it is gone."""
    return rules_in(chain.family, chain.table, chain.name, what=what).get(chain.name, [])


def rules_in(family: str, table: str, name: str, *, what: str) -> dict[str, list[Rule]]:
    """The rules of any chain in their order, by its name; none if it is gone. Where they are not to
    be had alone, those of all chains of the table.

    What iptables asks by its own matches is told, as far as xt_matches.py knows it.
    """
    place = {"family": family, "table": table, "name": name}
    is_large = nft.is_old() and nft.are_many(family, table, what=what)
    listed = _without_elements(family, table, what=what) if is_large else None
    if listed is None:
        try:
            listed = nft.run([{"list": {"chain": place}}], what=what, elements=False)
        except SetupError:
            if any(place.items() <= one.items() for one in _all_chains(what)):
                raise
            return {}
    found: dict[str, list[Rule]] = {one["chain"]["name"]: [] for one in listed if "chain" in one}
    for one in (entry["rule"] for entry in listed if "rule" in entry):
        rule = Rule(one["handle"], one.get("comment", ""), tuple(one.get("expr", [])))
        found.setdefault(one["chain"], []).append(rule)
    return {chain: _told(family, table, chain, rules, what) for chain, rules in found.items()}


def _told(family: str, table: str, chain: str, rules: list[Rule], what: str) -> list[Rule]:
    if not any(_is_of_iptables(one) for rule in rules for one in rule.expressions):
        return rules
    found = nft.matches(family, table, chain, what=what)
    return [_with_matches(rule, iter(found.get(rule.handle, ()))) for rule in rules]


def _without_elements(family: str, table: str, *, what: str) -> list[dict[str, Any]] | None:
    """All of a table but the elements of its sets. With an older libnftables that is a part of a
    listing of all tables, so none of these may have flags; else None."""
    if not nft.is_old():
        place = {"family": family, "name": table}
        return nft.run([{"list": {"table": place}}], what=what, elements=False)
    if any(flags for (one, _), flags in nft.flags(what=what).items() if one == family):
        return None
    listed = nft.run(f"list ruleset {family}", what=what, elements=False)
    return [entry for entry in listed if {"table": table}.items() <= _only(entry).items()]


def _only(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry of a listing is about: it has one word."""
    (said,) = entry.values()
    return dict(said)


def _is_of_iptables(expression: Expression) -> bool:
    said = expression.get("xt") or {}
    return said.get("type") == "match" and said.get("name") in xt_matches.NAMES


def _with_matches(rule: Rule, found: Iterator[Expression | None]) -> Rule:
    """A rule with what is found of its matches of iptables in their place."""
    told = (next(found, None) if _is_of_iptables(one) else None for one in rule.expressions)
    expressions = (said or one for said, one in zip(told, rule.expressions, strict=True))
    return dataclasses.replace(rule, expressions=tuple(expressions))


def _all_chains(what: str) -> list[dict[str, Any]]:
    listed = nft.run([{"list": {"chains": None}}], what=what)
    return [entry["chain"] for entry in listed if "chain" in entry]


def table_names(chain: BaseChain, *words: str | int, what: str) -> bool:
    """Whether a rule or set in the chain's table has one of these words: interfaces, addresses,
    ports."""
    family, table = chain.family, chain.table
    are_many = nft.are_many(family, table, what=what)
    listed = _without_elements(family, table, what=what) if are_many else None
    if listed is not None:
        names = [entry["set"]["name"] for entry in listed if "set" in entry]
        if any(nft.look_up(family, table, name, one, what=what) for name in names for one in words):
            return True
    elif nft.table_flags(table, family=family, what=what):
        listed = _list_parts(chain, what=what)
    else:
        listed = nft.run([{"list": {"table": {"family": family, "name": table}}}], what=what)
    return any(one in words for entry in listed for one in _words(entry))


def _words(entry: object) -> Iterator[str | int]:
    """All that a listing says. Handles are the kernel's own numbers."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key != "handle":
                yield from _words(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from _words(value)
    elif isinstance(entry, str | int):
        yield entry


def _list_parts(chain: BaseChain, *, what: str) -> list[Expression]:
    """The chains, sets and maps of the chain's table, without the table itself: it has flags."""
    found = []
    for kind in ("chains", "sets", "maps"):
        for entry in nft.run([{"list": {kind: None}}], what=what):
            one = entry.get(kind.removesuffix("s"), {})
            if (one.get("family"), one.get("table")) != (chain.family, chain.table):
                continue
            place = {key: one[key] for key in ("family", "table", "name")}
            found += nft.run([{"list": {kind.removesuffix("s"): place}}], what=what)
    return found


def replace(
    chain: BaseChain, old: Iterable[Rule], new: Sequence[NewRule] = (), *, what: str
) -> None:
    """Delete rules, and put others at the head in their order, in one transaction."""
    place = {"family": chain.family, "table": chain.table, "chain": chain.name}
    deletions = [{"delete": {"rule": place | {"handle": rule.handle}}} for rule in old]
    insertions = [
        {"insert": {"rule": place | {"expr": list(rule.expressions), "comment": rule.comment}}}
        for rule in reversed(new)
    ]
    nft.run([*deletions, *insertions], what=what)
