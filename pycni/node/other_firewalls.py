# SPDX-License-Identifier: Apache-2.0
"""Firewalls of others that drop what they do not know: found and named, never changed.

A packet that is forwarded must be accepted in every table. iptables' chains get rules of ours
(firewall_accepts.py); of other tables this module says which may drop pods' packets, and how to
open them. Looks only, in the network namespace of the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel import nft, nft_chains, xtables
from pycni.kernel.nft_chains import BaseChain
from pycni.node import firewall_accepts
from pycni.node.overlay import DEVICE
from pycni.node.record import Node

WHAT = "other firewalls' chains"
PART = "firewalls"
FIREWALLD = "firewalld"
LEGACY = {4: "iptables-legacy", 6: "ip6tables-legacy"}
OWN = "pycni"
"""Names of our tables begin so."""


def faults(node: Node) -> list[Fault]:
    """The chains that drop or reject in the end, in tables that do not name the overlay device or
    the cluster. Raises SetupError.

    Only the words of the rules are compared: whether a packet passes depends on all its fields.
    Where sets of others keep our own tables from being written, the first of them is all that is
    said of tables.
    """
    return [*_legacy(node), *(_unreadable() or _tables(node))]


def _unreadable() -> list[Fault]:
    return [
        Fault(
            PART,
            str(one),
            f"written by a newer nft: libnftables {nft.release()} would crash at it, so that pycni "
            "writes no table",
            todo=nft.NEWER_HINT,
            weight=Weight.DEGRADED,
        )
        for one in nft.unreadable()[:1]
    ]


def _legacy(node: Node) -> Iterator[Fault]:
    """iptables-legacy's FORWARD, which nothing shows but its own command."""
    for version in sorted({cidr.version for cidr in node.cluster_cidrs}):
        closed_at, accepted = _read_legacy(xtables.forward_rules(version) or [])
        if closed_at and not accepted >= {"in", "out"}:
            command = LEGACY[version]
            yield Fault(
                PART,
                f"chain FORWARD of {command}",
                f"dropping pods' packets ({closed_at})",
                todo=f"run: {command} -I FORWARD -i {DEVICE} -j ACCEPT; "
                f"{command} -I FORWARD -o {DEVICE} -j ACCEPT",
                weight=Weight.BROKEN,
            )


def _read_legacy(rules: list[xtables.Rule]) -> tuple[str, set[str]]:
    """What lets no packet pass, or nothing; and which directions are accepted before it."""
    accepted: set[str] = set()
    for rule in rules:
        if rule.for_all and rule.target in ("DROP", "REJECT"):
            return "policy" if rule is rules[-1] else f"a rule with {rule.target}", accepted
        if rule.target == "ACCEPT":
            accepted |= {"in"} if rule.in_ifname == DEVICE else set()
            accepted |= {"out"} if rule.out_ifname == DEVICE else set()
    return "", accepted


def _tables(node: Node) -> list[Fault]:
    return [
        Fault(
            PART,
            str(chain),
            f"dropping what it does not know, and does not name {DEVICE}",
            todo=_todo(chain),
            weight=Weight.DEGRADED,
        )
        for chain in _closed()
        if not _knows_us(chain, node)
    ]


def _closed() -> Iterator[BaseChain]:
    for chain in nft_chains.base_chains("forward", what=WHAT):
        if firewall_accepts.is_iptables(chain) or chain.table.startswith(OWN):
            continue
        rules = [] if chain.policy == "drop" else nft_chains.rules(chain, what=WHAT)
        if chain.policy == "drop" or (rules and rules[-1].stops_all):
            yield chain


def _knows_us(chain: BaseChain, node: Node) -> bool:
    words = [DEVICE, *(str(cidr.network_address) for cidr in node.cluster_cidrs)]
    return any(nft_chains.table_names(chain, word, what=WHAT) for word in words)


def _todo(chain: BaseChain) -> str:
    if chain.table == FIREWALLD:
        command = "firewall-cmd --permanent --zone=trusted --add-interface=" + DEVICE
        return f"run: {command} && firewall-cmd --reload"
    place = f"{chain.family} {chain.table} {chain.name}"
    return (
        f"let it accept pods: nft insert rule {place} iifname {DEVICE} accept; "
        f"nft insert rule {place} oifname {DEVICE} accept"
    )
