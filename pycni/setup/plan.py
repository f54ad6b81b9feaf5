# SPDX-License-Identifier: Apache-2.0
"""What a host becomes as a node: decided from the settings, the kernel, the uplink and the store.

Decides, and changes nothing: provision.py applies it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from loader.probe import Feature
from pycni import cluster
from pycni.cluster import IPNetwork
from pycni.dataplane.maps import Config
from pycni.errors import InvalidSettings, SetupError
from pycni.node import direct, host_clients, ipip, modes, rejection, uplink
from pycni.node.record import Node
from pycni.node.underlay import Underlay
from pycni.node.uplink import Uplink, Wish
from pycni.pods.lease import Lease
from pycni.settings import Settings
from pycni.stores import Former, NodeRecord

SERVICE_SIZES = {"services": 1 << 16, "slots": 1 << 19, "backends": 1 << 18, "affinity": 1 << 16}
"""Entries for 10,000 Services with 100,000 endpoints, and more."""
FLOWS_PER_8_GIB, FLOWS_LEAST, FLOWS_MOST = 1 << 17, 1 << 14, 1 << 19
FLOWS_PER_PROCESSOR = 1024


@dataclass(frozen=True)
class Host:
    """What setup found before its first change."""

    features: list[Feature]
    uplink: Uplink
    around: Underlay
    needs_bpffs: bool
    """Whether no BPF file system is there."""
    before: Node | None
    """The node as the last setup left it; None if there was none."""
    clients: host_clients.Place | None = None
    """Where programs for the node's own sockets go; None: there are to be none."""


def towards(settings: Settings, host: Host, record: NodeRecord, others: list[NodeRecord]) -> Host:
    """The host with the uplink that packets to the other nodes take. Raises SetupError, or
    ClusterError or InvalidSettings if its MTU is too small."""
    wanted = Wish(settings.uplink, settings.vtep, record.vtep)
    link = uplink.choose(host.around, wanted, others=[other.vtep for other in others])
    overlay_mtu(settings, link)
    return replace(host, uplink=link)


def node(
    settings: Settings, host: Host, record: NodeRecord, sysctls: dict[str, str], *, now: float
) -> Node:
    """The node's record. `sysctls` are the kernel parameters that setup is about to change, as they
    are now; what an earlier setup found goes before. `now` is a Unix time in seconds."""
    before = host.before
    return Node(
        name=record.name,
        node_id=record.node_id,
        vtep=record.vtep,
        pod_cidrs=record.pod_cidrs,
        cluster_cidrs=settings.cluster.cidrs,
        uplink=host.uplink.ifname,
        mtu=overlay_mtu(settings, host.uplink),
        port=settings.port,
        encap=choose_encap(settings, host.features),
        sysctls=sysctls | (before.sysctls if before else {}),
        mounted_bpffs=host.needs_bpffs or bool(before and before.mounted_bpffs),
        blocks=record.blocks,
        direct=direct.is_wanted(settings),
        direct_until=direct.lingers_until(settings, before, now),
        routed=direct.is_routed(settings),
        routed_until=direct.routed_until(settings, before, now),
        ipip=ipip.is_wanted(settings),
        ipip_until=ipip.lingers_until(settings, before, now),
    )


def overlay_mtu(settings: Settings, link: Uplink) -> int:
    """The settings' MTU, or the largest that fits. InvalidSettings if the settings' does not."""
    overhead = modes.overhead(settings, link.vtep.version)
    largest = cluster.overlay_mtu(link.mtu, overhead, settings.cluster)
    if settings.mtu > largest:
        raise InvalidSettings(
            f"mtu = {settings.mtu} does not fit the uplink {link.ifname}",
            details=f"its MTU of {link.mtu} leaves {largest} bytes for pods",
            hint="lower `mtu` in the settings, or set it to 0 for the largest that fits",
        )
    return settings.mtu or largest


def choose_encap(settings: Settings, features: list[Feature]) -> str:
    """Who makes VXLAN on this kernel. SetupError if the settings insist on what it cannot do."""
    able = _has(features, "own_encap")
    if settings.encap == "ebpf" and not able:
        (feature,) = (f for f in features if f.name == "own_encap")
        raise SetupError(
            'encap = "ebpf": this kernel does not let programs encapsulate',
            details=feature.reason,
            hint='set encap to "auto" or "kernel"; it takes Linux 5.13',
        )
    return "ebpf" if able and settings.encap != "kernel" else "kernel"


def config(
    settings: Settings,
    node: Node,
    features: list[Feature],
    *,
    device: int,
    clients: host_clients.Place | None = None,
) -> Config:
    """What the programs are told; `device` is the ifindex of the overlay device, `clients` as in
    `Host`."""
    return Config(
        vni=settings.vni,
        port=settings.port,
        stack_ifindex=device,  # one device has both parts
        vxlan_ifindex=device,
        overlay_mtu=node.mtu,
        masquerade_mark=settings.masquerade_mark,
        tunnel_key_local=_has(features, "tunnel_key_local"),
        own_encap=node.encap == "ebpf",
        decap_l3=_has(features, "decap_l3"),
        netkit=_has(features, "netkit"),
        direct=node.takes_direct,
        routed=node.takes_routed,
        ipip=node.takes_ipip,
        gateways=node.gateways,
        clusters=node.cluster_cidrs,
        pod_cidrs=node.pod_cidrs,
        link_local_services=settings.link_local_services,
        dead_end_mark=rejection.NOBODY if settings.answer_unreachable else 0,
        services=settings.services != "off",
        reject_mark=rejection.UNTAKEN if settings.services != "off" else 0,
        set_retval=clients is not None and _has(features, "set_retval"),
        netns=clients.netns if clients is not None else 0,
    )


def map_sizes(others: list[NodeRecord]) -> dict[str, int]:
    """Entries that the maps of other nodes need, twice what there are: so a cluster that grows
    needs larger ones rarely. Maps are never smaller than the programs declare them."""
    nodes, prefixes = len(others), sum(len(one.networks) + len(one.extra) for one in others)
    counts = {"vteps": nodes, "nexthops": nodes, "remotes": prefixes}
    return {name: 1 << (2 * count).bit_length() for name, count in counts.items()}


def service_sizes(settings: Settings, *, memory: int, processors: int) -> dict[str, int]:
    """Entries of the maps of Services, on a host with so many bytes of memory; 0 where they are
    off.

    Each processor keeps up to 128 entries of `flows` free for itself, and the kernel evicts living
    ones when those are not enough (kernel/bpf/bpf_lru_list.c).
    """
    if settings.services == "off":
        return dict.fromkeys((*SERVICE_SIZES, "flows"), 0)
    flows = FLOWS_PER_8_GIB * memory // (8 << 30)
    least = max(FLOWS_LEAST, FLOWS_PER_PROCESSOR * processors)
    return SERVICE_SIZES | {"flows": max(least, min(flows, FLOWS_MOST))}


def former(
    before: Node | None,
    pods: Iterable[Lease],
    *,
    serves: bool = False,
    given: tuple[IPNetwork, ...] = (),
) -> Former:
    """The place that a host had, for the store. `before` is the node as the last setup left it;
    `serves` says that pods may come at any moment. `given` are the pod CIDRs that the settings give
    the node, if they do. Raises InvalidSettings if it has others."""
    here = list(pods)
    if before and given and set(before.pod_cidrs) != set(given):
        raise InvalidSettings(
            f"bgp.pod_cidrs = {' '.join(map(str, given))}: this node has "
            f"{' '.join(map(str, before.pod_cidrs))}",
            hint="to change them, drain the node, run `pycni teardown` and `pycni setup`",
        )
    return Former(
        before.pod_cidrs if before else given,
        before.blocks if before else (),
        tuple(address for pod in here for address in pod.addresses),
        stays=serves or bool(here),
    )


def refuse_mixed_underlay(record: NodeRecord, others: list[NodeRecord]) -> None:
    """SetupError if another node's VTEP is of the other IP version."""
    for other in others:
        if other.vtep.version != record.vtep.version:
            raise SetupError(
                f"this node's VTEP is {record.vtep}, that of node {other.name} is {other.vtep}: "
                "they cannot reach each other",
                hint="set `vtep` to an address of the same IP version on all nodes",
            )


def _has(features: list[Feature], name: str) -> bool:
    return any(feature.name == name and feature.available for feature in features)
