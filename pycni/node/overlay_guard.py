# SPDX-License-Identifier: Apache-2.0
"""The doors of the overlay that are in the host's stack: an nftables table of our own, which drops
and counts.

The programs guard what they see: pods' links, the uplink, the overlay device. The rest comes by the
stack: from other interfaces, from processes of the node, and by NAT. Packets on the fast paths
never meet this table. It names no pod; its sets follow the nodes of the cluster. Runs in the
network namespace of the calling thread.

Its chain at `prerouting` also has the rules about what comes from pods by the stack, and about
routers' errors: each packet of the kernel's VXLAN passes there, and a second chain would cost it as
much as all rules that it meets in this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.faults import Fault, Weight
from pycni.kernel import nft, nft_table
from pycni.kernel.nft_table import AddressSet, Chain, Count, Hook, Table
from pycni.names import NAME_HEAD
from pycni.node import path_mtus, peers, rejection
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord

TABLE = "pycni_guard"
WHAT = "pycni's table that guards the overlay"
PART = "guard"

ELSEWHERE = "vxlan_elsewhere"
"""VXLAN to another address of this node than its VTEP."""
OF_POD = "vxlan_of_pod"
"""VXLAN of a pod to somebody who is no pod."""
OF_PROCESS = "vxlan_of_process"
"""VXLAN that a process of this node made, and not the kernel."""
BY_NAT = "vxlan_by_nat"
"""VXLAN of somebody else that NAT gave this node's VTEP as source."""
POD_SOURCE = "plain_pod_source"
"""A packet outside of the overlay with a source in the cluster's networks."""
NODE_SOURCE = "plain_node_source"
"""A packet outside of the overlay as this node itself, or to a pod as any node."""
IPIP_NOT_TAKEN = "ipip_not_taken"
"""IPIP to this node's VTEP that no program took: in fragments, or by another interface."""
IPIP_OF_POD = "ipip_of_pod"
"""IPIP of a pod to somebody who is no pod."""
IPIP_OF_PROCESS = "ipip_of_process"
"""IPIP to another node, of this node's stack: only programs send it."""
IPIP_BY_NAT = "ipip_by_nat"
"""IPIP of somebody else to another node, to which NAT gave this node's VTEP as source."""
COUNTERS = (
    ELSEWHERE, OF_POD, OF_PROCESS, BY_NAT, POD_SOURCE, NODE_SOURCE,
    IPIP_NOT_TAKEN, IPIP_OF_POD, IPIP_OF_PROCESS, IPIP_BY_NAT,
)  # fmt: skip

IPIP_PROTOCOLS = (4, 41)
"""Of IP, with IPv4 and with IPv6 inside."""

RAW, FILTER, AFTER_SRCNAT = -300, 0, 110
"""Priorities (nft(8)). Fragments are put together at -400, connections are tracked at -200."""

POD_LINKS = f"{NAME_HEAD}*"
OF_PODS = (DEVICE, POD_LINKS)
"""Interfaces by which packets of pods come."""


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    return nft.table_exists(TABLE, what=WHAT)


def wanted(settings: Settings, node: Node, nodes: frozenset[IPAddress]) -> Table:
    """What the table must be; `nodes` are addresses that only other nodes may have. Pure."""
    return Table(
        TABLE,
        chains=(
            Chain("prerouting", tuple(_prerouting(node)), Hook("filter", "prerouting", RAW)),
            Chain("from_pods", tuple(_from_pods(settings, node))),
            Chain("input", tuple(_input(node)), Hook("filter", "input", FILTER)),
            Chain("forward", tuple(_forward(node)), Hook("filter", "forward", FILTER)),
            Chain(
                "postrouting",
                tuple(_postrouting(settings, node)),
                Hook("filter", "postrouting", AFTER_SRCNAT),
            ),
            Chain("vxlan_input", tuple(_vxlan_input(node))),
            Chain("vxlan_forward", tuple(_vxlan_forward())),
            Chain("bridged", tuple(_plain(node, "", f'oifname "{DEVICE}" ct status ! dnat'))),
            *_ipip_chains(node),
        ),
        counters=COUNTERS,
        sets=tuple(_node_sets(nodes)),
    )


def setup(settings: Settings, node: Node, nodes: frozenset[IPAddress] | None = None) -> None:
    """Write the table unless it is as it must be. Raises SetupError.

    `nodes` as in `wanted`; None: those of the pinned maps, if there are any. The rule about
    processes asks for a mark that packets on their way do not have yet. So the table is first
    written without it.
    """
    known = known_nodes(settings.pin_root) if nodes is None else nodes
    table = wanted(settings, node, known or frozenset())
    if nft_table.differences(table, what=WHAT):
        chains = (
            replace(one, rules=tuple(rule for rule in one.rules if OF_PROCESS not in rule))
            for one in table.chains
        )
        nft_table.write(replace(table, chains=tuple(chains)), what=WHAT)
        nft_table.write(table, what=WHAT)


def teardown() -> None:
    """Delete the table; no error if it is gone."""
    nft.delete_table(TABLE, what=WHAT)


def faults(settings: Settings, node: Node) -> list[Fault]:
    """What `setup` would mend, with the nodes of the pinned maps. Raises SetupError.

    Where a map is not pinned, nothing is said of the sets: what they must have is not known.
    """
    known = known_nodes(settings.pin_root)
    table = wanted(settings, node, known or frozenset())
    if known is None:
        table = replace(table, sets=())
    return [
        Fault(PART, one.thing, one.found, weight=Weight.DEGRADED)
        for one in nft_table.differences(table, what=WHAT)
    ]


def follow_all(others: Iterable[NodeRecord]) -> None:
    """Make the sets agree with the other nodes; nothing if the table is gone. Raises SetupError."""
    for one in _node_sets(addresses_of(others)):
        nft_table.write_addresses(TABLE, one, what=WHAT)


def follow_changes(before: Iterable[NodeRecord], after: Iterable[NodeRecord]) -> bool:
    """As `follow_all`, for the nodes that changed, as they were and as they are: a join costs the
    same in a cluster of any size. False if the sets were not as said. Raises SetupError."""
    was, now = addresses_of(before), addresses_of(after)
    added, removed = tuple(_node_sets(now - was)), tuple(_node_sets(was - now))
    return nft_table.change_addresses(TABLE, added=added, removed=removed, what=WHAT)


def drops() -> dict[str, Count]:
    """What the table dropped, by the names above; nothing if it is gone. Raises SetupError."""
    return nft_table.counts(TABLE, what=WHAT)


def known_nodes(root: Path) -> frozenset[IPAddress] | None:
    """The addresses of `addresses_of`, as the pinned maps have them. None if one is not pinned."""
    try:
        with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
            behind = (prefix for prefix, _ in remotes.stream())
            return _single((vtep for vtep, _ in vteps.stream()), behind)
    except NotAvailable:
        return None


def addresses_of(nodes: Iterable[NodeRecord]) -> frozenset[IPAddress]:
    """The VTEPs of other nodes, and the single addresses that these published."""
    known = list(nodes)
    return _single(peers.wanted_vteps(known), peers.wanted_remotes(known))


def _single(vteps: Iterable[IPAddress], prefixes: Iterable[IPNetwork]) -> frozenset[IPAddress]:
    alone = (one.network_address for one in prefixes if one.prefixlen == one.max_prefixlen)
    return frozenset(chain(vteps, alone))


def _prerouting(node: Node) -> Iterator[str]:
    """Before routing and connection tracking, so that no connection of a pod is disturbed.

    What comes by a bridge may only pass through it (br_netfilter), which is none of our business;
    that is known at the hooks input and forward. A VRF receives again what its interfaces received.
    """
    yield from path_mtus.untracked_errors(node)
    yield f"{_from_node(node)} accept"
    yield 'iifname "lo" accept'
    for ifname in OF_PODS:
        yield f'iifname "{ifname}" goto from_pods'
    elsewhere = 'meta iifkind != "bridge" meta iifkind != "vrf"'
    yield from _plain(node, elsewhere, f'fib daddr oifname "{DEVICE}"')


def _from_pods(settings: Settings, node: Node) -> Iterator[str]:
    """What nobody takes is rejected (rejection.py), and packets to the cluster are not tracked.

    Only pods with an ingress qdisc of somebody else send such packets through the host's stack, and
    by their own links (link_changes.py). The answers bypass the stack. So connection tracking would
    call the further packets invalid, and kube-proxy drops invalid packets. Packets to the node
    itself are tracked, because answers of host ports are among them.
    """
    yield from rejection.rules(settings)
    for cluster in node.cluster_cidrs:
        to_cluster = f"{_family(cluster)} daddr {cluster} fib daddr type != local"
        yield f'iifname "{POD_LINKS}" {to_cluster} notrack'


def _plain(node: Node, when: str, to_pod: str) -> Iterator[str]:
    """Drop what comes from outside with a source that only packets inside of the overlay, or none
    from outside, can have. To a pod, the same holds for addresses of other nodes: those send to
    pods through the overlay, and to host ports beside it. `to_pod` tells packets that were sent to
    a pod, also to one whose address is outside of the cluster's networks.

    The kernel knows this node's own addresses as martian sources in IPv4, but not in IPv6. A
    multicast packet that the node itself sent comes back by the interface (ip_mc_output).
    """
    for cluster in node.cluster_cidrs:
        yield f"{_family(cluster)} saddr {cluster} {when} {_drop(POD_SOURCE)}"
    vtep = node.vtep
    yield f"{_family(vtep)} saddr {vtep} meta pkttype host {when} {_drop(NODE_SOURCE)}"
    for version in sorted({one.version for one in node.cluster_cidrs}):
        family = "ip" if version == 4 else "ip6"
        yield f"{family} saddr @{_set(version)} {to_pod} {when} {_drop(NODE_SOURCE)}"
        if version == 6:
            local = "meta nfproto ipv6 fib saddr type local"
            yield f"{local} {to_pod} {when} {_drop(NODE_SOURCE)}"


def _from_node(node: Node) -> str:
    """Of another node to this node's VTEP: no rule behind this one would match. It is asked early,
    since that is every packet of the kernel's VXLAN, and each further rule costs time.

    The sets also have single addresses of pods that their nodes published. Those in the cluster's
    networks are no nodes' own, and come through the overlay only."""
    vtep, family = node.vtep, _family(node.vtep)
    clusters = [str(one) for one in node.cluster_cidrs if one.version == vtep.version]
    pods = "".join(f" {family} saddr != {one}" for one in clusters)
    return f"{family} daddr {vtep} {family} saddr @{_set(vtep.version)}{pods}"


def _input(node: Node) -> Iterator[str]:
    yield from (f"{kind} jump ipip_input" for kind in _ipip(node))
    yield f"{_to_vxlan(node)} jump vxlan_input"
    yield 'meta iifkind "bridge" jump bridged'


def _forward(node: Node) -> Iterator[str]:
    yield f"{_to_vxlan(node)} jump vxlan_forward"
    yield 'meta iifkind "bridge" meta oifkind != "bridge" jump bridged'
    yield from (f"{kind} jump ipip_forward" for kind in _ipip(node))


def _postrouting(settings: Settings, node: Node) -> Iterator[str]:
    """After NAT: its other rules do not see the mark on the way into the overlay.

    The kernel's own packets belong to the socket that sent what is inside of them, so the owner
    alone does not tell them from a process's. What is inside has passed here before. The terms that
    are false for most packets come first.
    """
    vtep, family = node.vtep, _family(node.vtep)
    if settings.vxlan_by_kernel_only:
        mark = f"{settings.masquerade_mark:#x}"
        yield f'oifname "{DEVICE}" meta mark set meta mark | {mark}'
        yield (
            f'meta skuid >= 0 {_to_vxlan(node)} oifname != "{DEVICE}" meta mark & {mark} == 0 '
            f"{_drop(OF_PROCESS)}"
        )
    yield (
        f"ct status snat,dnat {_to_vxlan(node)} {family} saddr {vtep} "
        f"ct original {family} saddr != {vtep} {_drop(BY_NAT)}"
    )
    for kind in _ipip(node):
        yield (
            f"{kind} {_to_nodes(node)} {family} saddr {vtep} ct original {family} saddr != {vtep} "
            f"{_drop(IPIP_BY_NAT)}"
        )


def _vxlan_input(node: Node) -> Iterator[str]:
    for ifname in OF_PODS:
        yield f'iifname "{ifname}" {_drop(OF_POD)}'
    yield f"{_family(node.vtep)} daddr {node.vtep} return"
    yield _drop(ELSEWHERE)


def _vxlan_forward() -> Iterator[str]:
    yield f'oifname "{DEVICE}" return'
    for ifname in OF_PODS:
        yield f'iifname "{ifname}" {_drop(OF_POD)}'


def _ipip(node: Node) -> Iterator[str]:
    """What is IPIP, where nodes send it to each other."""
    if node.takes_ipip:
        yield from (f"meta l4proto {protocol}" for protocol in IPIP_PROTOCOLS)


def _ipip_chains(node: Node) -> Iterator[Chain]:
    """The programs take IPIP before it gets here, and send it past the stack. What others do with
    other addresses of this node is none of our business."""
    if not node.takes_ipip:
        return
    to_nodes = (f"{kind} {_to_nodes(node)} {_drop(IPIP_OF_PROCESS)}" for kind in _ipip(node))
    yield Chain("output", tuple(to_nodes), Hook("filter", "output", FILTER))
    of_pod = [f'iifname "{ifname}" {_drop(IPIP_OF_POD)}' for ifname in OF_PODS]
    to_vtep = f"{_family(node.vtep)} daddr {node.vtep} {_drop(IPIP_NOT_TAKEN)}"
    yield Chain("ipip_input", (*of_pod, to_vtep))
    yield Chain("ipip_forward", (f'oifname "{DEVICE}" return', *of_pod))


def _to_nodes(node: Node) -> str:
    """To another node itself, and not to a pod whose address it published."""
    version = node.vtep.version
    return f'oifname != "{DEVICE}" {_family(node.vtep)} daddr @{_set(version)}'


def _node_sets(nodes: frozenset[IPAddress]) -> Iterator[AddressSet]:
    for version in (4, 6):
        others = any(one.version != version for one in nodes)
        addresses = frozenset(one for one in nodes if one.version == version) if others else nodes
        yield AddressSet(_set(version), version, addresses)


def _set(version: int) -> str:
    return f"nodes{version}"


def _to_vxlan(node: Node) -> str:
    return f"meta l4proto udp th dport {node.port}"


def _family(what: IPAddress | IPNetwork) -> str:
    return "ip" if what.version == 4 else "ip6"


def _drop(counter: str) -> str:
    return f"counter name {counter} drop"
