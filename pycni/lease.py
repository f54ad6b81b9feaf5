"""Leases: what the host ends of the veths say about who has which address.

The kernel is the database (docs/architecture.md, D4): a lease is the existence of a link whose name
is derived from the attachment and whose alias describes it. There are no lease files; what deletes
the link, be it a DEL, the end of the pod's namespace or a reboot, ends the lease. This module reads
links and makes none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute

from pycni.cluster import IPAddress
from pycni.links import find_link
from pycni.maps import GATEWAY_MAC

ALIAS_HEAD = "pycni:1"
"""First word of the alias of a link that is ours; the number is the alias format's version."""

ALIAS_LIMIT = 254
"""Bytes of an alias: the kernel takes less than IFALIASZ (256, linux/if.h), with a closing zero."""

NAME_HEAD = "pcn"


@dataclass(frozen=True)
class AttachmentKey:
    """What a runtime names an attachment by: unique on a node (CNI spec, "Attachment")."""

    network: str
    container_id: str
    ifname: str

    @property
    def digest(self) -> str:
        """52 bits in hex: enough for a name, and the alias holds the whole key."""
        text = "\0".join((self.network, self.container_id, self.ifname))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def host_ifname(self) -> str:
        """Deterministic name of the host end: 15 bytes, the kernel's limit."""
        return NAME_HEAD + self.digest[:12]

    @property
    def mac(self) -> str:
        """Deterministic, locally administered unicast MAC of the pod's end."""
        return ":".join(["02", *(self.digest[i : i + 2] for i in range(12, 22, 2))])


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
    host_ifname: str = ""
    ifindex: int = 0

    def alias(self) -> str:
        """Text for the link's alias. A container ID that would not fit is cut; the digest is
        not."""
        fixed = [
            ALIAS_HEAD,
            f"key={self.key_digest[:32]}",
            f"net={self.network[:48]}",
            f"if={self.ifname}",
            f"mac={self.mac}",
            *(f"ip={address}" for address in self.addresses),
            *(["masq"] if self.masquerade else []),
        ]
        room = ALIAS_LIMIT - len(" ".join(fixed).encode()) - len(" id=")
        return " ".join([*fixed, f"id={self.container_id[:room]}"])


def leases(ipr: IPRoute) -> Iterator[Lease]:
    """Every lease of this node, of any network, as its links say."""
    for link in ipr.get_links():
        lease = read_lease(link)
        if lease is not None:
            yield lease


def find_lease(ipr: IPRoute, key: AttachmentKey) -> Lease | None:
    """The lease of one attachment, or None."""
    link = find_link(ipr, key.host_ifname)
    lease = None if link is None else read_lease(link)
    return lease if lease is not None and key.digest.startswith(lease.key_digest) else None


def is_ours(link: Any) -> bool:
    """Whether a link is a host end of ours, its alias written, not yet written or edited."""
    return bool(
        link.get("ifname", "").startswith(NAME_HEAD)
        and link.get(("linkinfo", "kind")) == "veth"
        and link.get("address") == GATEWAY_MAC
    )


def read_lease(link: Any) -> Lease | None:
    """What a link message's alias says; None for a link that is not ours."""
    head, *words = (link.get("ifalias") or "").split(" ")
    if head != ALIAS_HEAD or not link.get("ifname", "").startswith(NAME_HEAD):
        return None
    pairs = [word.partition("=") for word in words]
    fields = {name: value for name, _, value in pairs}
    try:
        return Lease(
            key_digest=fields["key"],
            network=fields["net"],
            container_id=fields["id"],
            ifname=fields["if"],
            mac=fields["mac"],
            addresses=tuple(ip_address(value) for name, _, value in pairs if name == "ip"),
            masquerade="masq" in fields,
            host_ifname=link.get("ifname"),
            ifindex=link["index"],
        )
    except (KeyError, ValueError):  # somebody edited the alias: no longer a lease we can trust
        return None
