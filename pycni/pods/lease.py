# SPDX-License-Identifier: Apache-2.0
"""Leases: which attachment has which addresses, as the links of the pods say.

The kernel is the database (docs/decisions.md, D4). A lease is the existence of a link: its name
is derived from the attachment, its alias describes it. There are no lease files. Whatever deletes
the link (a DEL, the end of the pod's namespace, a reboot) ends the lease. This module only reads
links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from ipaddress import ip_address

from pycni.cluster import IPAddress
from pycni.dataplane.abi import EndpointFlag
from pycni.dataplane.maps import Endpoint
from pycni.dataplane.records import flags
from pycni.errors import InvalidConfig
from pycni.kernel.links import ALIAS_MAX, Link, link_local
from pycni.kernel.netlink import CACHED
from pycni.kernel.rtnl import Rtnl
from pycni.names import ALIAS_HEAD, GATEWAY_MAC, NAME_HEAD, NETKIT, VETH, host_ifname

CUT = "~"
"""In an alias: stands between the beginning of a name that is too long and a hash of the whole
name. No name contains this character."""
CUT_DIGITS = 16
NETWORK_ROOM = 48
"""Bytes of an alias that the network's name may take, as far as the addresses leave room."""


@dataclass(frozen=True)
class Lease:
    """One attachment as the kernel holds it: read back from the host end's alias."""

    key_digest: str
    network: str
    container_id: str
    ifname: str
    mac: str
    addresses: tuple[IPAddress, ...]
    masquerade: bool
    ports: bool = False
    """Whether ports of the node lead to it."""
    shaped: bool = False
    """Whether the host end limits the rate of what is sent to it."""
    forwards: bool = False
    """Whether it forwards packets of others."""
    dhcp: bool = False
    """Whether it gets its addresses by DHCP, and renews them."""
    rules: tuple[int, ...] = ()
    """IP versions whose addresses have a routing table of their own in the pod."""
    host_ifname: str = ""
    ifindex: int = 0
    kind: str = VETH
    """Of the link, a key of link_kinds.KINDS."""

    @property
    def entries(self) -> tuple[IPAddress, ...]:
        """Its keys in the endpoints table: its addresses, and for a DHCP client the link-local
        address that belongs to its MAC."""
        return (*self.addresses, *([link_local(self.mac)] if self.dhcp else []))

    @property
    def endpoint(self) -> Endpoint:
        """The value in the endpoints table for each of the entries."""
        shared = {name: getattr(self, name) for name in FLAGS if name in ENDPOINT_FLAGS}
        return Endpoint(self.ifindex, self.mac, **shared)

    @property
    def ruled(self) -> list[IPAddress]:
        """The addresses that have a routing table of their own in the pod."""
        return [address for address in self.addresses if address.version in self.rules]

    def alias(self) -> str:
        """Text for the link's alias. Names that do not fit are shortened, the digest never is.

        Raises InvalidConfig if there are more addresses than fit.
        """
        fixed = [
            ALIAS_HEAD,
            f"key={self.key_digest}",
            f"if={self.ifname}",
            f"mac={self.mac}",
            *(f"ip={address}" for address in self.addresses),
            *(WORDS.get(name, name) for name in FLAGS if getattr(self, name)),
            *([f"rules={''.join(map(str, self.rules))}"] if self.rules else []),
        ]
        room = ALIAS_MAX - len(" ".join([*fixed, "net=", "id="]).encode())
        least = len(CUT) + CUT_DIGITS
        if room < 2 * least:
            raise InvalidConfig(
                f"an interface cannot have {len(self.addresses)} addresses",
                details=", ".join(map(str, self.addresses)),
                hint="the alias of its link must hold them all: attach a second interface",
            )
        network = _cut(self.network, min(NETWORK_ROOM, room - least))
        container = _cut(self.container_id, room - len(network))
        return " ".join([*fixed, f"net={network}", f"id={container}"])

    def is_of(self, network: str) -> bool:
        """Whether the attachment is of that network."""
        if CUT in self.network:
            network = _cut(network, len(self.network))
        return self.network == network


FLAGS = tuple(field.name for field in fields(Lease) if field.type == "bool")
"""What a lease is or is not; a word of its alias says that it is."""
WORDS = {"masquerade": "masq"}
"""The words that are not the name of the flag."""
ENDPOINT_FLAGS = frozenset(name for name, _ in flags(EndpointFlag))


def leases(ipr: Rtnl) -> Iterator[Lease]:
    """Every lease of this node, of any network, those of renamed links included."""
    for link in ipr.links():
        lease = held_by(link)
        if lease is not None:
            yield lease


@lru_cache(maxsize=CACHED)
def held_by(link: Link) -> Lease | None:
    """The lease of a link, which somebody may have renamed; None if it has none."""
    return _read_alias(link) if link.kind in (VETH, NETKIT) else None


def is_held(ipr: Rtnl, digest: str) -> bool:
    """Whether the attachment whose key has that digest has its link: also one that somebody
    renamed, or whose alias somebody edited."""
    link = ipr.link(host_ifname(digest))
    if link is not None and is_ours(link):
        return True
    return any(lease.key_digest == digest for lease in leases(ipr))


def find_lease(ipr: Rtnl, digest: str) -> Lease | None:
    """The lease of the attachment whose key has that digest, or None."""
    link = ipr.link(host_ifname(digest))
    lease = None if link is None else read_lease(link)
    return lease if lease is not None and lease.key_digest == digest else None


def find_lease_at(ipr: Rtnl, ifindex: int) -> Lease | None:
    """The lease of the link with that index, which somebody may have renamed, or None."""
    link = ipr.link_at(ifindex)
    return None if link is None else held_by(link)


def find_renamed(ipr: Rtnl, digest: str, ifindexes: Iterable[int]) -> Lease | None:
    """Like find_lease, for a link that somebody renamed: looks at the links with these indexes."""
    for ifindex in ifindexes:
        link = ipr.link_at(ifindex)
        lease = None if link is None or not is_ours(link) else _read_alias(link)
        if lease is not None and lease.key_digest == digest:
            return lease
    return None


def is_ours(link: Link) -> bool:
    """Whether pycni made a link as the host end of a pod.

    Its alias says so, even if it was renamed or given another MAC. If the alias is not written yet,
    or was edited, its name and MAC say so.
    """
    named = link.ifname.startswith(NAME_HEAD) and link.mac == GATEWAY_MAC
    return link.kind in (VETH, NETKIT) and (named or _read_alias(link) is not None)


def read_lease(link: Link) -> Lease | None:
    """The lease in the alias of a link; None for a link that is not ours."""
    return _read_alias(link) if link.ifname.startswith(NAME_HEAD) else None


def _read_alias(link: Link) -> Lease | None:
    head, *words = link.alias.split(" ")
    if head != ALIAS_HEAD:
        return None
    pairs = [word.partition("=") for word in words]
    found = {name: value for name, _, value in pairs}
    try:
        return Lease(
            key_digest=found["key"],
            network=found["net"],
            container_id=found["id"],
            ifname=found["if"],
            mac=found["mac"],
            addresses=tuple(ip_address(value) for name, _, value in pairs if name == "ip"),
            **{name: WORDS.get(name, name) in found for name in FLAGS},
            rules=tuple(map(int, found.get("rules", ""))),
            host_ifname=link.ifname,
            ifindex=link.ifindex,
            kind=link.kind or VETH,
        )
    except (KeyError, ValueError):  # somebody edited the alias, so it cannot be trusted
        return None


def _cut(name: str, room: int) -> str:
    """A name in at most `room` bytes (names are ASCII): whole, or its beginning and a hash."""
    if len(name) <= room:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:CUT_DIGITS]
    return name[: room - CUT_DIGITS - len(CUT)] + CUT + digest
