# SPDX-License-Identifier: Apache-2.0
"""Firewalls of others that drop what they do not know: found and named, never changed.

A packet that is forwarded must be accepted in every table. iptables' chains get rules of ours
(firewall_accepts.py); of other tables this module says which may drop pods' packets, and how to
open them. Looks only, in the network namespace of the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel import nft_chains
from pycni.kernel.nft_chains import BaseChain
from pycni.node import firewall_accepts
from pycni.node.overlay import DEVICE
from pycni.node.record import Node

WHAT = "other firewalls' chains"
PART = firewall_accepts.PART
FIREWALLD = "firewalld"
OWN = "pycni"
"""Names of our tables begin so."""


def faults(node: Node) -> list[Fault]:
    """The chains that drop or reject in the end, in tables that do not name the overlay device or
    the cluster. Raises SetupError.

    Only the words of the rules are compared: whether a packet passes depends on all its fields.
    """
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
