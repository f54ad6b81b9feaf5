# SPDX-License-Identifier: Apache-2.0
"""The packets that must pass the host's firewall hooks, in kinds: what is known of all packets of
a kind at a hook.

Packets between pods meet no hook: the programs take them before. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

from pycni.cluster import IPNetwork
from pycni.kernel.nft_chains import BaseChain
from pycni.node.overlay import DEVICE
from pycni.node.record import Node

TRACKED, NAT_SOURCE = -200, 100
"""Priorities (nft(8)): where connections are tracked, and where sources are rewritten."""
NEW, ESTABLISHED = "new", "established"


@dataclass(frozen=True)
class Addresses:
    """All addresses of some networks; or, `outside`, all others of their IP version."""

    networks: tuple[IPNetwork, ...]
    outside: bool = False


@dataclass(frozen=True)
class Packets:
    """A kind of packets at a hook. Empty: not known."""

    what: str
    """In words, for a person."""
    hook: str
    version: int
    """Of IP."""
    iifs: frozenset[str] = frozenset()
    """Names of the interfaces by which they come; each is that of some of them."""
    oifs: frozenset[str] = frozenset()
    source: Addresses | None = None
    destination: Addresses | None = None
    state: str = ""
    """Of their connection, as nft(8) has it."""
    port: int = 0
    """They are UDP to this port; 0: of any protocol."""

    def at(self, chain: BaseChain) -> Packets | None:
        """What is known of them in a base chain; None if they do not meet it."""
        if chain.hook != self.hook or chain.family == ("ip6" if self.version == 4 else "ip"):
            return None
        if chain.hook in ("ingress", "egress"):
            ifnames = self.iifs if chain.hook == "ingress" else self.oifs
            return self if ifnames and ifnames <= set(chain.devices) else None
        now = self
        if chain.hook in ("prerouting", "output") and chain.priority <= TRACKED:
            now = replace(now, state="")
        if chain.hook == "postrouting" and chain.priority >= NAT_SOURCE and not self.port:
            now = replace(now, source=None)
        return now


def kinds(node: Node, ways: Collection[str]) -> Iterator[Packets]:
    """All that a node needs. `ways`: names of the interfaces by which pods' packets may leave for
    the world."""
    for version in sorted({cidr.version for cidr in node.pod_cidrs}):
        yield from _of_pods(node, version, frozenset(ways))
    yield from _vxlan(node)


def _of_pods(node: Node, version: int, ways: frozenset[str]) -> Iterator[Packets]:
    device = frozenset({DEVICE})
    pods = Addresses(tuple(one for one in node.pod_cidrs if one.version == version))
    clusters = tuple(one for one in node.cluster_cidrs if one.version == version)
    world = Addresses(clusters, outside=True)

    out = Packets(f"pods' IPv{version} packets to the world", "", version, source=pods,
                  destination=world)  # fmt: skip
    yield replace(out, hook="ingress", iifs=device)
    yield replace(out, hook="prerouting", iifs=device, state=NEW)
    yield replace(out, hook="forward", iifs=device, oifs=ways, state=NEW)
    yield replace(out, hook="postrouting", oifs=ways, state=NEW)
    yield replace(out, hook="egress", oifs=ways, source=None)

    back = Packets(f"the world's IPv{version} answers to pods", "", version, source=world)
    yield replace(back, hook="ingress", iifs=ways)
    yield replace(back, hook="prerouting", iifs=ways, state=ESTABLISHED)
    back = replace(back, destination=pods, oifs=device, state=ESTABLISHED)
    yield replace(back, hook="forward", iifs=ways)
    yield replace(back, hook="postrouting")

    host = Packets(f"this node's IPv{version} packets to pods", "", version, oifs=device,
                   destination=pods)  # fmt: skip
    yield replace(host, hook="output", state=NEW)
    yield replace(host, hook="postrouting", state=NEW)
    yield replace(host, hook="egress")

    home = Packets(f"pods' IPv{version} answers to this node", "", version, iifs=device,
                   source=pods)  # fmt: skip
    yield replace(home, hook="prerouting", state=ESTABLISHED)
    yield replace(home, hook="input", state=ESTABLISHED)


def _vxlan(node: Node) -> Iterator[Packets]:
    """What the programs leave to the kernel: that of pods with limits, of the kernel's own device,
    fragments."""
    uplink, version = frozenset({node.uplink}), node.vtep.version
    own = Addresses((ip_network(node.vtep),))
    come = Packets("VXLAN of other nodes", "", version, iifs=uplink, destination=own,
                   port=node.port)  # fmt: skip
    yield replace(come, hook="ingress")
    yield replace(come, hook="prerouting", state=NEW)
    yield replace(come, hook="input", state=NEW)
    leave = Packets("VXLAN to other nodes", "", version, oifs=uplink, source=own, port=node.port)
    yield replace(leave, hook="output", state=NEW)
    yield replace(leave, hook="postrouting", state=NEW)
    yield replace(leave, hook="egress")
