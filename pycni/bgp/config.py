# SPDX-License-Identifier: Apache-2.0
"""The configuration of BIRD 2, out of the settings and what the store lists. Pure.

What is announced are static routes of BIRD's that lead nowhere: no protocol gives them to the
kernel, whose tables stay as they are. Each session lets nothing in but what the settings name; a
network that is this node's own may come in to be seen, and loses to the static route. To find the
way to next hops BIRD reads the kernel's routes into tables of their own, `igp4` and `igp6`.

Language: BIRD 2.0, doc/bird.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from pycni.bgp.neighbours import Neighbour, mark
from pycni.bgp_settings import FABRIC, PODS, PUBLISHED, Bgp
from pycni.cluster import IPNetwork
from pycni.node.record import Node

RESTART_TIME = 120
"""Seconds for which routes stay while their speaker starts again: BIRD's own default."""
RECOVERY = 10
"""Seconds for which BIRD, started again, waits for all speakers before it announces: one that is
down must not keep the others waiting longer."""
MARK = 7079
"""The middle of the large community (RFC 8092) that says which node announces a network."""
VERSIONS = (4, 6)


@dataclass(frozen=True)
class Speaker:
    """All that a node's configuration is made of."""

    bgp: Bgp
    node: Node
    node_prefixes: Mapping[int, int]
    """Lengths of pod CIDRs by IP version."""
    neighbours: tuple[Neighbour, ...]
    passwords: Mapping[Path, str]
    published: tuple[IPNetwork, ...] = ()
    """Addresses of pods outside of the node's networks."""
    services: tuple[IPNetwork, ...] = ()
    """Addresses of Services."""
    announces: bool = True
    """Whether it announces anything: not before its maps are written, and not once they empty."""

    @property
    def announced(self) -> tuple[IPNetwork, ...]:
        """The networks that it tells of."""
        if not self.announces:
            return ()
        own = self.node.networks if PODS in self.bgp.announce else ()
        published = self.published if PUBLISHED in self.bgp.announce else ()
        return (*own, *published, *self.services)

    @property
    def router_id(self) -> IPv4Address:
        """Four bytes that no other speaker of the system has."""
        if self.bgp.router_id is not None:
            return self.bgp.router_id
        if isinstance(self.node.vtep, IPv4Address):
            return self.node.vtep
        return IPv4Address(hashlib.sha256(self.node.name.encode()).digest()[:4])


def render(speaker: Speaker) -> str:
    """The file's text. It may have passwords in it: for root alone."""
    lines = [
        "# Written by pycni, whose next change overwrites others'.",
        "log stderr all;",
        f"router id {speaker.router_id};",
        f"graceful restart wait {RECOVERY};",
        *_tables(speaker),
        *_own(speaker),
    ]
    for neighbour in speaker.neighbours:
        lines += [*_filters(speaker, neighbour), *_session(speaker, neighbour)]
    return "\n".join(lines) + "\n"


def _tables(speaker: Speaker) -> Iterator[str]:
    is_fabric = FABRIC in speaker.bgp.learn
    yield "protocol device { }"
    if any(one.bfd for one in speaker.neighbours):
        yield "protocol bfd { }"
    if is_fabric:
        yield from _block("filter fabric", [
            *(f"if net ~ [ {cidr}+ ] then reject;" for cidr in speaker.node.cluster_cidrs),
            "if source = RTS_BGP then accept;",
            "reject;",
        ])  # fmt: skip
    out = "filter fabric" if is_fabric else "none"
    for version in VERSIONS:
        family, igp = f"ipv{version}", f"igp{version}"
        yield f"{family} table {igp};"
        yield f"protocol direct direct{version} {{ {family} {{ table {igp}; }}; }}"
        channel = f"{family} {{ table {igp}; import all; export {out}; }};"
        yield f"protocol kernel kernel{version} {{ learn; graceful restart on; {channel} }}"
        if is_fabric:
            yield (
                f"protocol pipe fabric{version} {{ table master{version}; peer table {igp}; "
                "import none; export filter fabric; }"
            )


def _own(speaker: Speaker) -> Iterator[str]:
    for version in VERSIONS:
        own = [one for one in speaker.announced if one.version == version]
        routes = [f"route {network} unreachable;" for network in sorted(own, key=str)]
        if routes:
            yield from _block(f"protocol static own{version}", [f"ipv{version};", *routes])


def _filters(speaker: Speaker, neighbour: Neighbour) -> Iterator[str]:
    bgp, node = speaker.bgp, speaker.node
    claims = f"({bgp.asn}, {MARK}, {mark(node.name, node.vtep)})"
    written = [f"bgp_large_community.add({claims});"]
    for community in dict.fromkeys(neighbour.communities):
        parts = community.split(":")
        kind = "bgp_community" if len(parts) == 2 else "bgp_large_community"
        written.append(f"{kind}.add(({', '.join(parts)}));")
    pods = [
        f"if net ~ [ {cidr}{{{length},{length}}} ] then accept;"
        for cidr in node.cluster_cidrs
        for length in [speaker.node_prefixes[cidr.version]]
    ]
    reflects = _reflects(speaker)
    yield from _block(f"filter to_{neighbour.name}", [
        'if proto = "own4" || proto = "own6" then {', *written, "accept;", "}",
        *(f"if source = RTS_BGP then {{ {one} }}" for one in pods if reflects),
        "reject;",
    ])  # fmt: skip
    taken = [f"if net ~ [ {network} ] then accept;" for network in node.networks]
    if PODS in bgp.learn or reflects:
        taken += pods
    if FABRIC in bgp.learn and not neighbour.is_node:
        # other nodes announce Services as well, and who forwards to them is no route
        foreign = (*node.cluster_cidrs, *bgp.service_networks)
        taken += [f"if net ~ [ {cidr}+ ] then reject;" for cidr in foreign]
        taken.append("accept;")
    yield from _block(f"filter from_{neighbour.name}", [*taken, "reject;"])


def _reflects(speaker: Speaker) -> bool:
    return any(one.client for one in speaker.neighbours)


def _session(speaker: Speaker, neighbour: Neighbour) -> Iterator[str]:
    bgp, vtep = speaker.bgp, speaker.node.vtep
    source = f"{vtep} " if vtep.version == neighbour.address.version else ""
    restart = "on" if bgp.graceful_restart else "off"
    lines = [
        f"local {source}as {bgp.asn};",
        f"neighbor {neighbour.address} as {neighbour.asn};",
        f"hold time {bgp.hold_time};",
        "connect delay time 1;",
        "connect retry time 5;",
        "error wait time 1, 30;",
        f"graceful restart {restart};",
        f"graceful restart time {RESTART_TIME};",
    ]
    if neighbour.multihop:
        lines.append(f"multihop {neighbour.multihop};")
    if neighbour.password_file is not None:
        lines.append(f'password "{speaker.passwords[neighbour.password_file]}";')
    if neighbour.bfd:
        lines.append("bfd on;")
    if neighbour.client:
        lines.append("rr client;")
    if neighbour.asn != bgp.asn and PODS in bgp.learn:
        # nodes of one system behind one router: it passes the one's routes on to the other
        lines.append("allow local as 1;")
    lines += [_channel(neighbour, version) for version in _versions(speaker)]
    yield from _block(f"protocol bgp {neighbour.name}", lines)


def _versions(speaker: Speaker) -> list[int]:
    """Of the routes that sessions carry."""
    if FABRIC in speaker.bgp.learn:
        return list(VERSIONS)
    return sorted({cidr.version for cidr in speaker.node.cluster_cidrs})


def _channel(neighbour: Neighbour, version: int) -> str:
    """Routes of the other IP version have next hops of the session's (RFC 8950, RFC 4798)."""
    words = [f"import filter from_{neighbour.name};", f"export filter to_{neighbour.name};"]
    if neighbour.address.version == version:
        words.append(f"igp table igp{version};")
    else:
        words += ["extended next hop on;", "igp table igp4;", "igp table igp6;"]
    return f"ipv{version} {{ {' '.join(words)} }};"


def _block(head: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"{head} {{"
    yield from (f"\t{line}" for line in lines)
    yield "}"
