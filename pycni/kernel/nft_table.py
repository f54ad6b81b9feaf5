# SPDX-License-Identifier: Apache-2.0
"""Tables of ours in nftables, described once: written as a whole, and compared with the kernel's.

The kernel lists a rule in other words than those it was written in. So each rule carries a digest
of its text as its comment, and a table is compared by these. Everything runs in the network
namespace of the calling thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel import nft

Listing = list[dict[str, Any]]

ADDRESS = {4: "typeof ip saddr", 6: "typeof ip6 saddr"}
"""What a set of addresses is declared by. Declared by their types, one that a newer nft has written
would make an older one crash (nft_sets.py)."""
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
    listed = _list(table.name, what=what)
    if listed is None:
        return [Difference(f"nftables table {nft.FAMILY} {table.name}", "gone")]
    demanding = nft.demanding_sets(table.name, what=what) if table.sets else ()
    return compare(table, listed) + [
        Difference(f"set {one.name} of nftables table {table.name}", FOR_NEWER)
        for one in table.sets
        if one.name in demanding
    ]


def write_addresses(table: str, changed: AddressSet, *, what: str) -> bool:
    """Give a set its addresses, in one transaction. False if the table or the set is gone.

    Raises SetupError.
    """
    place = f"{nft.FAMILY} {table} {changed.name}"
    commands = f"flush set {place}\n"
    if changed.addresses:
        commands += f"add element {place} {_elements(changed)}\n"
    try:
        nft.run(commands, what=what)
    except SetupError:
        listed = _list(table, what=what, elements=False)
        if listed is not None and changed.name in _read(listed).sets:
            raise
        return False
    return True


def change_addresses(
    table: str, *, added: Iterable[AddressSet], removed: Iterable[AddressSet], what: str
) -> bool:
    """Add addresses to sets, and remove others, in one transaction. False if the kernel refuses it:
    the sets, or the addresses to be removed, are not there."""
    verbs = (("add", added), ("delete", removed))
    commands = [
        f"{verb} element {nft.FAMILY} {table} {one.name} {_elements(one)}\n"
        for verb, sets in verbs
        for one in sets
        if one.addresses
    ]
    try:
        nft.run("".join(commands), what=what)
    except SetupError:
        return False
    return True


def counts(table: str, *, what: str) -> dict[str, Count]:
    """The named counters of a table; none if it is gone. Raises SetupError."""
    listed = _list(table, what=what, elements=False) or []
    return {
        entry["counter"]["name"]: Count(entry["counter"]["packets"], entry["counter"]["bytes"])
        for entry in listed
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


def compare(table: Table, listed: Listing) -> list[Difference]:
    """How a table differs from its listing (libnftables-json(5)). Pure."""
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
    return differing + [
        Difference(f"set {one.name} {where}", "changed")
        for one in table.sets
        if found.sets.get(one.name) != one.addresses
    ]


def addresses(elements: list[Any]) -> Iterator[IPAddress]:
    """Of a listed set's elements; one to which an administrator gave a comment is an object."""
    for element in elements:
        yield ip_address(element["elem"]["val"] if isinstance(element, dict) else element)


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
    sets: dict[str, frozenset[IPAddress]] = field(default_factory=dict)


def _list(name: str, *, what: str, elements: bool = True) -> Listing | None:
    """None if there is no table of that name. Of one with flags, which ours have not, only that."""
    flags = nft.table_flags(name, what=what)
    if flags is None:
        return None
    if flags:
        return [{"table": {"family": nft.FAMILY, "name": name, "flags": flags}}]
    try:
        question = [{"list": {"table": {"family": nft.FAMILY, "name": name}}}]
        return nft.run(question, what=what, elements=elements)
    except SetupError:
        if nft.table_exists(name, what=what):
            raise
        return None


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
            elif kind == "set":
                found.sets[one["name"]] = frozenset(addresses(one.get("elem", [])))
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


def _chain(chain: Chain) -> str:
    hook = chain.hook
    head = f"type {hook.kind} hook {hook.name} priority {hook.priority}; " if hook else ""
    rules = "".join(f'{rule} comment "{digest(rule)}"\n' for rule in chain.rules)
    return f"chain {chain.name} {{ {head}\n{rules} }}\n"
