# SPDX-License-Identifier: Apache-2.0
"""Tables of ours in nftables, described once: written as a whole, and compared with the kernel's.

The kernel lists a rule in other words than those it was written in. So each rule carries a digest
of its text as its comment, and a table is compared by these. Everything runs in the network
namespace of the calling thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel import nft

Listing = list[dict[str, Any]]
Sets = Mapping[str, int | None]
"""How many addresses are in sets, by their names; None: it is not there, or has others."""

ADDRESS = {4: "typeof ip saddr", 6: "typeof ip6 saddr"}
"""What a set of addresses is declared by. Declared by their types, one that a newer nft has written
would make an older one crash (nft_sets.py)."""
PIECE = 500
"""Addresses in one transaction: libnftables takes 700 bytes for each."""
FOR_NEWER = "written so that an older nft crashes at it"
"""Of a set, as earlier releases of ours declared it."""


@dataclass(frozen=True)
class Hook:
    """Where the kernel calls a chain: `kind`, `name` and `priority` as nft(8) has them."""

    kind: str
    name: str
    priority: int


@dataclass(frozen=True)
class Chain:
    """Rules in nft(8)'s words. A chain without a hook is one that rules jump to."""

    name: str
    rules: tuple[str, ...]
    hook: Hook | None = None


@dataclass(frozen=True)
class AddressSet:
    """A named set of addresses of one IP version."""

    name: str
    version: int
    addresses: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table of the family inet."""

    name: str
    chains: tuple[Chain, ...]
    counters: tuple[str, ...] = ()
    sets: tuple[AddressSet, ...] = ()


@dataclass(frozen=True)
class Count:
    """A named counter's value."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Difference:
    """One thing of a table that is not as described."""

    thing: str
    found: str


def write(table: Table, *, what: str) -> None:
    """Make the table, or replace it, in one transaction; counters keep their values.

    `what` says in the message of a SetupError what the table is.
    """
    nft.run(script(table, counts(table.name, what=what)), what=what)


def differences(table: Table, *, what: str) -> list[Difference]:
    """How the kernel's table differs. Looks only. Raises SetupError."""
    flags = nft.table_flags(table.name, what=what)
    if flags is None:
        return [Difference(f"nftables table {nft.FAMILY} {table.name}", "gone")]
    sets = {
        one.name: nft.count_among(table.name, one.name, one.addresses, what=what)
        for one in table.sets
    }
    listed = [{"table": {"flags": flags}}, *nft.outline(table.name, what=what)]
    demanding = nft.demanding_sets(table.name, what=what) if table.sets else ()
    return compare(table, listed, sets) + [
        Difference(f"set {one.name} of nftables table {table.name}", FOR_NEWER)
        for one in table.sets
        if one.name in demanding
    ]


def write_addresses(table: str, wanted: AddressSet, *, what: str) -> bool:
    """Give a set its addresses: first those that it lacks, a few in each transaction. Where others
    change it meanwhile, or had put in what is no address, all in one. False if the table or the set
    is gone.

    Raises SetupError.
    """
    known = nft.addresses(table, wanted.name, what=what)
    if known is None:
        return False
    single = frozenset(one for one in known if not isinstance(one, bytes))
    if single == known:
        with suppress(SetupError):
            _change(table, wanted, single, what=what)
            return True
    try:
        _refill(table, wanted, what=what)
    except SetupError:
        if nft.addresses(table, wanted.name, what=what) is None:
            return False
        raise
    return True


def change_addresses(
    table: str, *, added: Iterable[AddressSet], removed: Iterable[AddressSet], what: str
) -> bool:
    """Add addresses to sets, and remove others, in one transaction. False if the kernel refuses it:
    the sets, or the addresses to be removed, are not there."""
    verbs = (("add", added), ("delete", removed))
    commands = [
        f"{verb} {_in_set(table, one)}\n" for verb, sets in verbs for one in sets if one.addresses
    ]
    try:
        nft.run("".join(commands), what=what)
    except SetupError:
        return False
    return True


def counts(table: str, *, what: str) -> dict[str, Count]:
    """The named counters of a table; none if it is gone. Raises SetupError."""
    return {
        entry["counter"]["name"]: Count(entry["counter"]["packets"], entry["counter"]["bytes"])
        for entry in _list(table, what=what)
        if "counter" in entry
    }


def script(table: Table, values: Mapping[str, Count]) -> str:
    """The transaction that makes or replaces a table. Pure."""
    return f"""
        add table {nft.FAMILY} {table.name}
        delete table {nft.FAMILY} {table.name}
        table {nft.FAMILY} {table.name} {{
            {" ".join(_counter(name, values.get(name, Count())) for name in table.counters)}
            {" ".join(map(declaration, table.sets))}
            {" ".join(map(_chain, table.chains))}
        }}
    """


def declaration(one: AddressSet) -> str:
    """A set with its addresses, in nft(8)'s words. Pure."""
    elements = f"elements = {_elements(one)}" if one.addresses else ""
    return f"set {one.name} {{ {ADDRESS[one.version]}; {elements} }}\n"


def compare(table: Table, listed: Listing, sets: Sets) -> list[Difference]:
    """How a table differs from its outline (nft_outline.py) and its sets. Pure."""
    found = _read(listed)
    where = f"of nftables table {table.name}"
    differing: list[Difference] = []
    if found.dormant:
        return [Difference(f"nftables table {nft.FAMILY} {table.name}", "switched off")]
    for chain in table.chains:
        name = f"chain {chain.name} {where}"
        if chain.name not in found.chains:
            differing.append(Difference(name, "gone"))
        elif found.chains[chain.name] != _as_listed(chain):
            differing.append(Difference(name, "changed"))
    own = {chain.name for chain in table.chains}
    differing += [
        Difference(f"chain {name} {where}", "one that pycni did not make")
        for name in found.chains
        if name not in own
    ]
    return differing + [
        Difference(f"set {one.name} {where}", "changed")
        for one in table.sets
        if sets.get(one.name) != len(one.addresses)
    ]


def digest(rule: str) -> str:
    """The comment of a rule."""
    return hashlib.sha256(rule.encode()).hexdigest()[:12]


@dataclass
class _ListedChain:
    hook: Hook | None
    policy: str
    comments: list[str] = field(default_factory=list)


@dataclass
class _Listed:
    dormant: bool = False
    chains: dict[str, _ListedChain] = field(default_factory=dict)


def _list(name: str, *, what: str) -> Listing:
    """Without elements of sets. Nothing if there is no table of that name, or it has flags, which
    ours have not."""
    if nft.table_flags(name, what=what) != 0:
        return []
    try:
        question = [{"list": {"table": {"family": nft.FAMILY, "name": name}}}]
        return nft.run(question, what=what, elements=False)
    except SetupError:
        if nft.table_exists(name, what=what):
            raise
        return []


def _read(listed: Listing) -> _Listed:
    found = _Listed()
    for entry in listed:
        for kind, one in entry.items():
            if kind == "table":
                found.dormant = bool(one.get("flags"))
            elif kind == "chain":
                found.chains[one["name"]] = _ListedChain(_hook(one), one.get("policy", ""))
            elif kind == "rule":
                found.chains[one["chain"]].comments.append(one.get("comment", ""))
    return found


def _hook(chain: dict[str, Any]) -> Hook | None:
    return Hook(chain["type"], chain["hook"], chain["prio"]) if "hook" in chain else None


def _as_listed(chain: Chain) -> _ListedChain:
    policy = "accept" if chain.hook else ""
    return _ListedChain(chain.hook, policy, [digest(rule) for rule in chain.rules])


def _counter(name: str, value: Count) -> str:
    return f"counter {name} {{ packets {value.packets} bytes {value.bytes} }}\n"


def _elements(one: AddressSet) -> str:
    return f"{{ {', '.join(map(str, sorted(one.addresses)))} }}"


def _in_set(table: str, one: AddressSet) -> str:
    return f"element {nft.FAMILY} {table} {one.name} {_elements(one)}"


def _pieces(addresses: list[IPAddress]) -> Iterator[list[IPAddress]]:
    for at in range(0, len(addresses), PIECE):
        yield addresses[at : at + PIECE]


def _change(table: str, wanted: AddressSet, known: frozenset[IPAddress], *, what: str) -> None:
    """Add what is missing among `known`, and delete what is too much. Raises SetupError."""
    verbs = (("add", wanted.addresses - known), ("delete", known - wanted.addresses))
    for verb, those in verbs:
        for piece in _pieces(sorted(those, key=int)):
            one = replace(wanted, addresses=frozenset(piece))
            nft.run(f"{verb} {_in_set(table, one)}", what=what)


def _refill(table: str, wanted: AddressSet, *, what: str) -> None:
    """Write a set whatever is in it. Raises SetupError."""
    commands = f"flush set {nft.FAMILY} {table} {wanted.name}\n"
    if wanted.addresses:
        commands += f"add {_in_set(table, wanted)}\n"
    nft.run(commands, what=what)


def _chain(chain: Chain) -> str:
    hook = chain.hook
    head = f"type {hook.kind} hook {hook.name} priority {hook.priority}; " if hook else ""
    rules = "".join(f'{rule} comment "{digest(rule)}"\n' for rule in chain.rules)
    return f"chain {chain.name} {{ {head}\n{rules} }}\n"
