# SPDX-License-Identifier: Apache-2.0
"""Sessions and routes in BIRD's answers, by the codes of the lines and the names of the fields.

Lines of another code, and fields that are not named here, are passed over. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from pycni.bgp.bird import Line
from pycni.cluster import V4_MAPPED, IPAddress, IPNetwork

PROTOCOL, DETAILS = 1002, 1006
STATUS = 1011
ROUTE, ATTRIBUTES = 1007, 1012
"""Codes of lines (BIRD 2, doc/reply_codes)."""
ESTABLISHED = "Established"
"""RFC 4271, section 8.2.2."""

CHANNEL_STATE = "State"
"""A field of each kind of routes that a session exchanges."""
_BOOT = "Last reboot on"
_ROUTE = re.compile(r"(?P<net>[0-9a-f.:]+/\d+)?\s+[a-z]+ \[(?P<protocol>\S+) [^]]*\](?P<best> \*)?")
_FIELD = re.compile(r"\s+([A-Za-z][A-Za-z._ ]*):\s*(.*)")


@dataclass(frozen=True)
class Session:
    """One session, as BIRD has it."""

    name: str
    """Of BIRD's protocol."""
    neighbour: str
    asn: str
    state: str
    """RFC 4271's word, such as "Established" or "Active"."""
    since: str
    """When that began, as BIRD writes times."""
    error: str = ""
    """Why it ended last; empty if it did not."""
    tells: bool = False
    """Whether it exchanges routes of any kind: it is up a moment earlier."""

    @property
    def is_up(self) -> bool:
        """Whether both ends have agreed to exchange routes."""
        return self.state == ESTABLISHED


@dataclass(frozen=True)
class Route:
    """One route in BIRD's tables."""

    prefix: IPNetwork
    protocol: str
    """The session, or another protocol of BIRD's that made it."""
    is_best: bool
    next_hop: IPAddress | None
    """As the speaker said it; None for a route of this node's own."""
    as_path: str
    communities: tuple[str, ...]
    """As "64512:100", large ones as "64512:1:2"."""


@dataclass
class _Found:
    """A route while its lines are read."""

    prefix: IPNetwork
    protocol: str
    is_best: bool
    fields: dict[str, str] = field(default_factory=dict)


def boot(lines: Iterable[Line]) -> str:
    """When BIRD started, as it writes times, in the answer to `show status`."""
    return next((one.text for one in lines if one.code == STATUS and _BOOT in one.text), "")


def sessions(lines: Iterable[Line]) -> Iterator[Session]:
    """The sessions in the answer to `show protocols all`."""
    heads: list[tuple[list[str], dict[str, str]]] = []
    for line in lines:
        if line.code == PROTOCOL:
            heads.append((line.text.split(), {}))
        elif line.code == DETAILS and heads and (found := _FIELD.fullmatch(line.text)):
            heads[-1][1].setdefault(found[1], found[2].strip())
            if (found[1], found[2].strip()) == (CHANNEL_STATE, "UP"):
                heads[-1][1][CHANNEL_STATE] = "UP"
    for words, fields in heads:
        if len(words) >= 5 and words[1] == "BGP":
            yield Session(
                words[0],
                fields.get("Neighbor address", ""),
                fields.get("Neighbor AS", ""),
                fields.get("BGP state", words[3]),
                words[4],
                fields.get("Last error", ""),
                fields.get(CHANNEL_STATE) == "UP",
            )


def routes(lines: Iterable[Line]) -> Iterator[Route]:
    """The routes in the answer to `show route all`. A further route to one prefix does not repeat
    that. Raises ValueError for networks and next hops that are none."""
    prefix: IPNetwork | None = None
    last: _Found | None = None
    for line in lines:
        if line.code == ROUTE and (found := _ROUTE.match(line.text)):
            prefix = ip_network(found["net"]) if found["net"] else prefix
            if last is not None:
                yield _made(last)
            if prefix is None:
                raise ValueError("a route without a network")
            last = _Found(prefix, found["protocol"], found["best"] is not None)
        elif line.code == ATTRIBUTES and last and (attribute := _FIELD.fullmatch(line.text)):
            last.fields[attribute[1]] = attribute[2].strip()
    if last is not None:
        yield _made(last)


def _made(found: _Found) -> Route:
    said = " ".join(found.fields.get(name, "") for name in ("BGP.community", "BGP.large_community"))
    return Route(
        found.prefix,
        found.protocol,
        found.is_best,
        _next_hop(found.fields.get("BGP.next_hop", "")),
        found.fields.get("BGP.as_path", ""),
        tuple(re.sub(r",\s*", ":", one) for one in re.findall(r"\(([^)]*)\)", said)),
    )


def _next_hop(text: str) -> IPAddress | None:
    """The first address: a second one is link-local (RFC 2545, section 3)."""
    if not text:
        return None
    address = ip_address(text.split()[0])
    if address.version == 6 and address in V4_MAPPED and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
