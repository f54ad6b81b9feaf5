# SPDX-License-Identifier: Apache-2.0
"""The node's kernel at one moment: each thing is asked for once, when a part needs it.

Belongs to the network namespace of the Rtnl. Only one thread at a time may use it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from pycni.dataplane import maps
from pycni.kernel import nft_tables
from pycni.kernel.addresses import Address
from pycni.kernel.links import FarEnd, Link
from pycni.kernel.routes import Route
from pycni.kernel.rtnl import Rtnl
from pycni.node import underlay
from pycni.node.underlay import Underlay
from pycni.pods.lease import Lease, held_by


class Seen:
    """What the kernel has now. Properties raise NetlinkError.

    `only`: of the pods' links, look at those with these indexes; None: at all. `aliases`: what an
    agent remembers of them, by the links' indexes; what is seen now is added.
    """

    def __init__(
        self,
        ipr: Rtnl,
        *,
        only: Collection[int] | None = None,
        aliases: dict[int, str] | None = None,
    ) -> None:
        self.ipr = ipr
        self.aliases = aliases
        self._only = only
        self._named: dict[str, Link | None] = {}
        self._digests: dict[str, bytes] = {}

    def link(self, ifname: str) -> Link | None:
        """The link of that name, or None."""
        if ifname not in self._named:
            self._named[ifname] = self.ipr.link(ifname)
        return self._named[ifname]

    @cached_property
    def links(self) -> list[Link]:
        """All links of the node."""
        return self.ipr.links()

    @cached_property
    def addresses(self) -> list[Address]:
        """All addresses of the node."""
        return self.ipr.addresses()

    @cached_property
    def routes(self) -> list[Route]:
        """All routes of all tables."""
        return list(self.ipr.routes())

    @cached_property
    def around(self) -> Underlay:
        """Links, addresses and routes that are not pycni's."""
        return underlay.look(self.ipr, links=self.links, routes=self.routes)

    @cached_property
    def pods_links(self) -> list[Link]:
        """The links that may be host ends of pods."""
        if self._only is None:
            return self.links
        links = (self.ipr.link_at(ifindex) for ifindex in self._only)
        return [link for link in links if link is not None]

    @cached_property
    def pods(self) -> list[tuple[Link, Lease]]:
        """The host ends of pods, each with its lease."""
        held = ((link, held_by(link)) for link in self.pods_links)
        found = [(link, lease) for link, lease in held if lease is not None]
        if self.aliases is not None:
            for link, lease in found:
                before = self.remembered(link)
                if before is None or before.key_digest == lease.key_digest:
                    self.aliases[link.ifindex] = link.alias
            if self._only is None:
                present = {link.ifindex for link in self.links}
                for gone in self.aliases.keys() - present:
                    del self.aliases[gone]
        return found

    def remembered(self, link: Link) -> Lease | None:
        """The lease that a link had when its alias was seen first, or None. An index belongs to one
        attachment."""
        alias = (self.aliases or {}).get(link.ifindex)
        return None if alias is None else held_by(link._replace(alias=alias))

    @cached_property
    def pods_ends(self) -> list[FarEnd]:
        """The pods' ends, in the order of `pods`; empty where one is gone."""
        ends = [(link.peer_ifindex, link.peer_netnsid) for link, _ in self.pods]
        return self.ipr.ends(ends)

    @cached_property
    def _ingress(self) -> dict[int, str]:
        return self.ipr.ingress_qdiscs()

    @cached_property
    def nft_generation(self) -> int:
        """Changes with every transaction of nftables. Raises OSError."""
        return nft_tables.generation()

    def digest(self, root: Path, name: str) -> bytes:
        """What only changes when entries of a pinned map do; `root` is the pin directory. Raises
        NotAvailable or OSError."""
        if name not in self._digests:
            with maps.open_table(root, name) as table:
                self._digests[name] = table.digest()
        return self._digests[name]

    def is_queued(self, lease: Lease) -> bool:
        """Whether the pod's packets pass an ingress qdisc of somebody else (link_changes.py)."""
        return self._ingress.get(lease.ifindex) == "ingress"
