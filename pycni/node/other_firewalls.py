# SPDX-License-Identifier: Apache-2.0
"""Firewalls of others that drop what they do not know: found and named, never changed.

A packet that is forwarded must be accepted in every table. iptables' chains get rules of ours
(firewall_accepts.py); of other tables this module says which may drop pods' packets, or the VXLAN
that the programs leave to the kernel, and how to open them. What a single rule stops for sure, at
any hook and in any chain, is stopping_rules.py's. Looks only, in the network namespace of the
calling thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pycni.faults import Fault, Weight
from pycni.kernel import nft, nft_chains, nft_tables
from pycni.kernel.nft_chains import BaseChain
from pycni.node import firewall_accepts, legacy_firewalls, stopping_rules
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.node.stopping_rules import Readers, Stopping

WHAT = "other firewalls' chains"
PART = "firewalls"
CLOSED_AT = ("forward", "input")
"""Hooks whose chains are judged as a whole here."""
FIREWALLD, PANIC = "firewalld", "firewalld_policy_drop"
"""firewalld's table, and the one by which its panic mode drops all."""
OTHER_FAMILY = {4: "ip6", 6: "ip"}
"""Of tables, by the IP version of a VTEP: VXLAN to it never meets them."""
OWN = "pycni"
"""Names of our tables begin so."""


def faults(node: Node, ways: Collection[str] = ()) -> list[Fault]:
    """The chains that drop or reject in the end, in tables that do not name the overlay device or
    the cluster, unless they accept all that a node needs before; for packets to the host, the port
    of VXLAN. And the rules that stop all packets of a kind. Raises SetupError.

    `ways`: names of the interfaces by which packets may leave for the world; none: the uplink. Of a
    chain's end only the words of the table are compared: whether a packet passes depends on all its
    fields. Where sets of others keep our own tables from being written, the first of them is all
    that is said of tables.
    """
    ways = ways or (node.uplink,)
    legacy = legacy_firewalls.faults(node, ways, PART)
    return [*legacy, *(_unreadable() or _of_tables(node, ways))]


def state() -> object:
    """What differs if others changed their firewalls: cheap. Raises SetupError or OSError."""
    return nft_tables.generation(), legacy_firewalls.state()


def _of_tables(node: Node, ways: Collection[str]) -> list[Fault]:
    chains = nft_chains.base_chains(*stopping_rules.HOOKS, what=WHAT)
    others = [one for one in chains if not one.table.startswith(OWN)]
    readers = Readers(WHAT)
    found = stopping_rules.judge(node, ways, others, readers)
    closed = [
        one
        for one in others
        if one.hook in CLOSED_AT and one not in found.letting and _is_closed(one, readers)
    ]
    told = [*_tables(node, closed), *_inputs(node, closed)]
    return [*told, *_rules(node, found.stopping, {one.thing for one in told})]


def _rules(node: Node, stopping: Iterable[Stopping], told: Collection[str]) -> Iterator[Fault]:
    """What comes to the end of a chain that is told needs no second row."""
    for one in stopping:
        if one.stop.names or not (str(one.base) in told or _is_opened(one)):
            yield Fault(PART, one.thing, one.found, _rule_todo(one, node.port), Weight.DEGRADED)


def _is_opened(one: Stopping) -> bool:
    """Whether rules of ours at the head of iptables' chains are for all that it stops."""
    is_forward = one.base.hook == "forward"
    is_ours = is_forward or list(stopping_rules.matches(one)) == ["udp"]
    return firewall_accepts.is_iptables(one.base) and is_ours


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


def _tables(node: Node, closed: Iterable[BaseChain]) -> list[Fault]:
    return [
        Fault(
            PART,
            str(chain),
            f"dropping what it does not know, and does not name {DEVICE}",
            todo=_todo(chain),
            weight=Weight.DEGRADED,
        )
        for chain in closed
        if chain.hook == "forward"
        and not _names(chain, DEVICE, *(str(cidr.network_address) for cidr in node.cluster_cidrs))
    ]


def _inputs(node: Node, closed: Iterable[BaseChain]) -> list[Fault]:
    """Most VXLAN is taken before a firewall sees it, but not fragments, what comes for pods with
    limits, or by a tunnel without Ethernet headers."""
    return [
        Fault(
            PART,
            str(chain),
            f"dropping what it does not know, and does not name VXLAN's port {node.port}",
            todo=_input_todo(chain, node.port),
            weight=Weight.DEGRADED,
        )
        for chain in closed
        if chain.hook == "input"
        and chain.family != OTHER_FAMILY[node.vtep.version]
        and not _names(chain, node.port)
    ]


def _is_closed(chain: BaseChain, readers: Readers) -> bool:
    """Whether it stops all that comes to its end; iptables' chains are not judged here."""
    if firewall_accepts.is_iptables(chain):
        return False
    if chain.policy == "drop":
        return True
    rules = readers.of(chain).rules(chain.name)
    return bool(rules and rules[-1].stops_all)


def _names(chain: BaseChain, *words: str | int) -> bool:
    return nft_chains.table_names(chain, *words, what=WHAT)


def _todo(chain: BaseChain) -> str:
    if chain.table == FIREWALLD:
        command = "firewall-cmd --permanent --zone=trusted --change-interface=" + DEVICE
        return f"run: {command} && firewall-cmd --reload"
    place = f"{chain.family} {chain.table} {chain.name}"
    return (
        f"let it accept pods: nft insert rule {place} iifname {DEVICE} accept; "
        f"nft insert rule {place} oifname {DEVICE} accept"
    )


def _rule_todo(one: Stopping, port: int) -> str:
    base, stop = one.base, one.stop
    if base.table == PANIC:
        return "run: firewall-cmd --panic-off"
    if base.table != FIREWALLD:
        return stopping_rules.todo(one, port=port)
    todo = _input_todo(base, port) if base.hook == "input" else _todo(base)
    place = f"{base.family} {base.table} {stop.chain}"
    see = f"see which zone, policy or rich rule made it: nft list chain {place}; change it, or "
    return f"{see if stop.names else ''}{todo}"


def _input_todo(chain: BaseChain, port: int) -> str:
    if chain.table == FIREWALLD:
        command = f"firewall-cmd --permanent --add-port={port}/udp"
        return f"run: {command} && firewall-cmd --reload"
    place = f"{chain.family} {chain.table} {chain.name}"
    return f"let VXLAN in: nft insert rule {place} udp dport {port} accept"
