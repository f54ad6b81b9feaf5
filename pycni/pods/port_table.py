# SPDX-License-Identifier: Apache-2.0
"""The nftables table of host ports: its rules belong to the node, its elements to the pods.

The node's setup writes the rules once. They look up a packet to an address of the node in four
maps, which lead to the pod; a pod's ADD and DEL only change elements. host_ports.py decides which
pod may have which port. Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import NotAvailable, SetupError
from pycni.faults import Fault, Weight
from pycni.kernel import nft, nft_table
from pycni.kernel.nft_elements import Elements
from pycni.kernel.nft_table import AddressSet

TABLE = "pycni_ports"
WHAT = "pycni's table of host ports"
PART = "host ports"
"""Of faults: the row of `pycni status`."""
OWNER_LIMIT = 128
"""Bytes of an element's comment, NFTNL_UDATA_COMMENT_MAXLEN of libnftnl."""

MAPS = {(4, True): "host4", (4, False): "any4", (6, True): "host6", (6, False): "any6"}
"""Names of the maps, by IP version and by whether the node's address is part of the key."""

PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
"""A listing has numbers where no /etc/protocols (Debian's netbase) names the protocols."""

NODES = {4: "nodes4", 6: "nodes6"}
"""Names of the sets of other nodes' addresses, by IP version."""

LOOPBACK: dict[int, IPNetwork] = {4: ip_network("127.0.0.0/8"), 6: ip_network("::1/128")}
DSTNAT, SRCNAT = -100, 100
"""Priorities by number: nft(8) knows the name `dstnat` only in the prerouting hook."""
CHAINS = {
    "ports": "",
    "prerouting": f"type nat hook prerouting priority {DSTNAT}; policy accept;",
    "output": f"type nat hook output priority {DSTNAT}; policy accept;",
    "postrouting": f"type nat hook postrouting priority {SRCNAT}; policy accept;",
}
MARK = "pycni:"
MARK_DIGITS = 16
"""Each rule has a comment with a hash of its text: so a look finds the rules that are there as they
were written, and an upgrade the ones that it must write again."""

Rules = Mapping[str, Sequence[str]]
"""By chain, each rule as nft(8) takes it, in their order."""


SWITCHED_OFF = "switched off"
SET_UP = "run: pycni setup (the agent does it when it starts)"


@dataclass(frozen=True)
class Forward:
    """One element: a port of the node, at one of its addresses or all (None), leads to a pod."""

    protocol: str
    host_ip: IPAddress | None
    host_port: int
    pod: IPAddress
    pod_port: int
    owner: str = field(default="", compare=False)
    """For messages; at most OWNER_LIMIT bytes."""

    @property
    def key(self) -> tuple[str, IPAddress | None, int, int]:
        """What the table has once."""
        return self.protocol, self.host_ip, self.host_port, self.pod.version

    def overlaps(self, other: Forward) -> bool:
        """Whether a packet could match both; two sockets could not be bound so either."""
        return (
            (self.protocol, self.host_port, self.pod.version)
            == (other.protocol, other.host_port, other.pod.version)
        ) and (None in (self.host_ip, other.host_ip) or self.host_ip == other.host_ip)


def rules(mark: int, *, overlay: str, clusters: Iterable[IPNetwork]) -> Rules:
    """What the rules of a node are. Pure.

    Answers to some clients would bypass this node's connection tracking: to pods, to other nodes
    (their addresses are in the sets `nodes4` and `nodes6`) and to loopback addresses. The rules
    masquerade these clients behind the gateway, even if kube-proxy or somebody else rewrote the
    destination. So they do with packets that have `mark`, which pods outside of `clusters` send.
    Pods see all other clients' own addresses.

    A packet from outside to a loopback address is invalid (RFC 1122, 3.2.1.3). The routing would
    drop it, but these rules come before the routing, so they must not rewrite it.
    """
    near = {version: [str(network)] for version, network in LOOPBACK.items()}
    for cluster in clusters:
        near[cluster.version].append(str(cluster))
    to_pod = f'oifname "{overlay}" ct status dnat'
    return {
        "ports": [
            "dnat ip to meta l4proto . ip daddr . th dport map @host4",
            "dnat ip6 to meta l4proto . ip6 daddr . th dport map @host6",
            "dnat ip to meta l4proto . th dport map @any4",
            "dnat ip6 to meta l4proto . th dport map @any6",
        ],
        "prerouting": [
            f"ip daddr {LOOPBACK[4]} return",
            f"ip6 daddr {LOOPBACK[6]} return",
            "fib daddr type local jump ports",
        ],
        "output": ["fib daddr type local jump ports"],
        "postrouting": [
            f"{to_pod} ip saddr {{ {', '.join(near[4])} }} masquerade",
            f"{to_pod} ip6 saddr {{ {', '.join(near[6])} }} masquerade",
            f"{to_pod} ip saddr @nodes4 masquerade",
            f"{to_pod} ip6 saddr @nodes6 masquerade",
            f"{to_pod} meta mark & {mark:#x} == {mark:#x} masquerade",
        ],
    }


def setup(wanted: Rules) -> None:
    """Write the rules in one transaction; elements stay. Raises SetupError.

    Sets that only a newer nft can read, as earlier releases of ours had them, are made again.
    """
    again = _demanding()
    sets = "".join(_sets(again))
    deletions = " ".join(f"delete set inet {TABLE} {name};" for name in again)
    chains = "\n".join(f"chain {name} {{ {hook} }}" for name, hook in CHAINS.items())
    flushes = " ".join(f"flush chain inet {TABLE} {name};" for name in CHAINS)
    filled = "\n".join(
        f"chain {name} {{ {' '.join(map(_marked, lines))} }}" for name, lines in wanted.items()
    )
    nft.run(
        f"""
        table inet {TABLE} {{
            map any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
            map any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
            map host4 {{ type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }}
            map host6 {{ type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; }}
            {chains}
        }}
        {flushes}
        {deletions}
        table inet {TABLE} {{
            {sets}
            {filled}
        }}
        """,
        what=WHAT,
    )


def teardown() -> None:
    """Delete the table with everybody's ports; no error if it is gone."""
    nft.delete_table(TABLE, what=WHAT)


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    return nft.table_exists(TABLE, what=WHAT)


@dataclass(frozen=True)
class Contents:
    """The table as it is."""

    forwards: tuple[Forward, ...]
    marks: Mapping[str, Sequence[str]]
    """By chain, the comment of each rule, "" if it has none."""
    closed: frozenset[str] = frozenset()
    """The chains that drop by their policy."""
    demanding: frozenset[str] = frozenset()
    """The sets of nodes' addresses that only a newer nft can read."""


def look() -> Contents | str:
    """The table, without other nodes' addresses; or what follows "it is" if `setup` has to make it:
    gone, switched off (the flag `dormant` of nft(8)), without a map. Raises SetupError."""
    try:
        flags = nft.table_flags(TABLE, what=WHAT)
        if flags is None:
            return "gone"
        return SWITCHED_OFF if flags else _look()
    except NotAvailable:  # gone since
        return "gone"


def read() -> Contents:
    """The table, without other nodes' addresses. Raises SetupError, and NotAvailable with what
    `look` says."""
    found = look()
    if isinstance(found, str):
        raise NotAvailable(f"the table of host ports, inet {TABLE}, is {found}", hint=SET_UP)
    return found


def _look() -> Contents | str:
    listed = nft.outline(TABLE, what=WHAT)
    if not listed:
        return "gone"
    marks: dict[str, list[str]] = {}
    maps, closed = set(), set()
    for entry in listed:
        if entry.get("chain", {}).get("policy", "accept") != "accept":
            closed.add(entry["chain"]["name"])
        if "map" in entry:
            maps.add(entry["map"]["name"])
        if "rule" in entry:
            rule = entry["rule"]
            marks.setdefault(rule["chain"], []).append(rule.get("comment", ""))
    if lost := set(MAPS.values()) - maps:
        return f"without its map {', '.join(sorted(lost))}"
    return Contents(_forwards(), marks, frozenset(closed), _demanding())


def forwards() -> tuple[Forward, ...]:
    """All elements. Raises as `read`."""
    _refuse_switched_off()
    try:
        return _forwards()
    except SetupError:
        return read().forwards  # which knows why


def has_nodes(addresses: Collection[IPAddress]) -> bool:
    """Whether the rules know just these addresses of other nodes. Raises SetupError."""
    counts = [nft.count_among(TABLE, name, addresses, what=WHAT) for name in NODES.values()]
    return None not in counts and sum(filter(None, counts)) == len(addresses)


def nodes() -> Elements:
    """The addresses of other nodes that the rules know, and what else is among them. Raises as
    `read`."""
    _refuse_switched_off()
    found = [nft.addresses(TABLE, name, what=WHAT) for name in NODES.values()]
    if None in found:
        raise _not_set_up()
    return frozenset(address for addresses in found for address in addresses or ())


def faults(found: Contents | str, wanted: Rules) -> list[Fault]:
    """What is not as `setup` wrote it, of what `look` found. Pure: elements are not compared."""
    if isinstance(found, str):
        return [Fault(PART, f"nftables table inet {TABLE}", found)]
    where = f"of nftables table {TABLE}"
    return [
        *(Fault(PART, f"chain {name} {where}", "dropping all packets by its policy")
          for name in sorted(found.closed & CHAINS.keys())),
        *(Fault(PART, f"set {name} {where}", nft_table.FOR_NEWER, weight=Weight.DEGRADED)
          for name in sorted(found.demanding)),
        *(Fault(PART, f"chain {name} {where}", "without rules of ours")
          for name, lines in wanted.items()
          if not _is_subsequence([_mark(one) for one in lines], found.marks.get(name, ()))),
    ]  # fmt: skip


def change(*, create: Sequence[Forward] = (), delete: Sequence[Forward] = ()) -> None:
    """Delete elements and create others, in one transaction.

    Raises SetupError, also if an element to create exists or one to delete does not.
    """
    nft.run([*_commands("delete", delete), *_commands("create", create)], what=WHAT)


def write_nodes(addresses: Iterable[IPAddress]) -> None:
    """Make `addresses` the other nodes'.

    Raises SetupError; NotAvailable if the node was set up without the table.
    """
    for one in _of_nodes(frozenset(addresses)):
        if not nft_table.write_addresses(TABLE, one, what=WHAT):
            raise _not_set_up()


def change_nodes(*, create: Iterable[IPAddress] = (), delete: Iterable[IPAddress] = ()) -> None:
    """Add and remove other nodes' addresses in one transaction, whether or not they are there.

    Raises NotAvailable if the sets are not there.
    """
    gone = frozenset(delete)
    added = _of_nodes(gone.union(create))  # what is not there cannot be deleted
    if not nft_table.change_addresses(TABLE, added=added, removed=_of_nodes(gone), what=WHAT):
        raise _not_set_up()


def _demanding() -> frozenset[str]:
    return nft.demanding_sets(TABLE, what=WHAT) & {*NODES.values()}


def _sets(again: Collection[str]) -> Iterator[str]:
    """The sets as `setup` declares them, with their elements if they are made again."""
    for version, name in NODES.items():
        known = nft.addresses(TABLE, name, what=WHAT) if name in again else None
        single = frozenset(one for one in known or () if not isinstance(one, bytes))
        yield nft_table.declaration(AddressSet(name, version, single))


def _of_nodes(addresses: frozenset[IPAddress]) -> Iterator[AddressSet]:
    for version, name in NODES.items():
        some = frozenset(one for one in addresses if one.version == version)
        yield AddressSet(name, version, some)


def _refuse_switched_off() -> None:
    """Raise NotAvailable if the table has flags: libnftables must not list it (nft_tables.py)."""
    if nft.table_flags(TABLE, what=WHAT):
        raise NotAvailable(f"the table inet {TABLE} is {SWITCHED_OFF}", hint=SET_UP)


def _forwards() -> tuple[Forward, ...]:
    """Each map by itself: libnftables then leaves out the sets, which take it 30 ms for 5,000
    nodes. Raises NotAvailable without the table, SetupError without one of the maps."""
    return tuple(_forward(*element) for name in MAPS.values() for element in _elements_of(name))


def _elements_of(name: str) -> list[Any]:
    listed = _run([{"list": {"map": {"family": nft.FAMILY, "table": TABLE, "name": name}}}])
    return [one for entry in listed if "map" in entry for one in entry["map"].get("elem", [])]


def _run(commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As nft.run, but NotAvailable if there is no table."""
    try:
        return nft.run(commands, what=WHAT)
    except SetupError:
        if exists():
            raise
        raise _not_set_up() from None


def _not_set_up() -> NotAvailable:
    return NotAvailable("this node is not set up for host ports", hint=SET_UP)


def _commands(verb: str, elements: Sequence[Forward]) -> Iterator[dict[str, Any]]:
    """One command for each map: the time of a command grows with the map, not with what it says."""
    by_map: dict[str, list[Any]] = {}
    for one in elements:
        address = [] if one.host_ip is None else [str(one.host_ip)]
        key = {"concat": [one.protocol, *address, one.host_port]}
        value = {"concat": [str(one.pod), one.pod_port]}
        named = [{"elem": {"val": key, "comment": one.owner}}, value]
        name = MAPS[one.pod.version, one.host_ip is not None]
        by_map.setdefault(name, []).append(named if verb == "create" else key)
    for name, listed in by_map.items():
        place = {"family": nft.FAMILY, "table": TABLE, "name": name, "elem": listed}
        yield {verb: {"element": place}}


def _marked(rule: str) -> str:
    return f'{rule} comment "{_mark(rule)}";'


def _mark(rule: str) -> str:
    return MARK + hashlib.sha256(rule.encode()).hexdigest()[:MARK_DIGITS]


def _is_subsequence(wanted: Sequence[str], found: Iterable[str]) -> bool:
    """Whether all of `wanted` is in `found`, in this order; others' rules may stand between."""
    rest = iter(found)
    return all(one in rest for one in wanted)


def _forward(left: dict[str, Any], right: dict[str, Any]) -> Forward:
    """An element as listed: {"elem": {"val": KEY, "comment": OWNER}}, VALUE. Without a comment, as
    an administrator may add one, it is KEY, VALUE."""
    element = left.get("elem", {"val": left})
    protocol, *host_ip, host_port = element["val"]["concat"]
    pod, pod_port = right["concat"]
    return Forward(
        protocol=PROTOCOLS.get(protocol, protocol),
        host_ip=ip_address(host_ip[0]) if host_ip else None,
        host_port=host_port,
        pod=ip_address(pod),
        pod_port=pod_port,
        owner=element.get("comment", "somebody"),
    )
