"""Node setup and its undo: from a bare host to a node that forwards, and back.

`setup` is idempotent and is also the upgrade: it changes only what differs, and a failure leaves
the host as it was. `teardown` restores what the node's record says was there before. Both run in
the node's network namespace.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from pyroute2 import IPRoute

import loader
from loader import Callbacks, Hook, Loaded, pins, probe
from loader.compile import compile_programs
from loader.places import PLACES, Device
from loader.probe import Feature
from pycni import cluster, locks
from pycni.attachments import upkeep
from pycni.dataplane.maps import Config
from pycni.errors import InvalidSettings, PycniError, SetupError
from pycni.ipam import delegation_records
from pycni.kernel.links import delete_link, find_link
from pycni.names import NAME_HEAD
from pycni.node import (
    masquerade,
    next_hops,
    overlay,
    peers,
    uplink,
)
from pycni.node.record import Node, record_path
from pycni.node.uplink import Uplink
from pycni.pods import port_table
from pycni.pods.lease import is_ours, leases
from pycni.settings import Settings, make_directories
from pycni.setup.refill import Facts, refill
from pycni.stores import NodeRecord, machine_identity, open_store

Report = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What setup did."""

    node: Node
    changed: bool
    fingerprint: str


def setup(settings: Settings, *, report: Report = lambda _: None) -> Outcome:
    """Make this host a node, or bring a node up to date. Raises PycniError or LoaderError."""
    report("probing the kernel")
    features = probe.probe()
    probe.require(features)
    encap = choose_encap(settings, features)
    report("compiling the programs")
    objects = compile_programs(settings.cache_dir)
    make_directories(settings)
    with locks.network_lock(settings.run_dir), IPRoute() as ipr, ExitStack() as undo:
        before = Node.load_if_any(settings)
        link = uplink.find(ipr, ifname=settings.uplink, vtep=settings.vtep)
        mtu = _overlay_mtu(settings, link)
        cluster.check_underlay(settings.cluster, overlay.underlay_networks(ipr))
        cluster.check_routes(settings.cluster, overlay.routed_networks(ipr))

        report("joining the cluster")
        record, others = _join(settings, ipr, link, before, undo)
        node = _node(settings, record, link, mtu=mtu, before=before)
        node = replace(node, encap=encap)
        parameters = overlay.plan_forwarding(link.ifname, ipv6=settings.cluster.has_family(6))
        node = replace(node, sysctls=overlay.parameters_before(parameters) | node.sysctls)
        _record(settings, node, before, undo)  # before the first change: killed, we can restore

        report("loading the dataplane")
        if pins.ensure_bpffs(settings.bpffs):
            undo.callback(pins.unmount_bpffs, settings.bpffs)
        ifindex = _make_device(settings, ipr, mtu, undo)

        facts = Facts(settings, node, others, ipr)

        def open_up(_: Loaded) -> None:
            report("opening the overlay")
            if before is not None and before.vtep != node.vtep:
                undo.callback(next_hops.write_vtep, settings.pin_root, before.vtep)
            next_hops.write_vtep(settings.pin_root, node.vtep)
            peers.write(settings.pin_root, others, synced=True)
            overlay.bring_up(
                ipr,
                ifindex,
                port=settings.port,
                gateways=node.gateways,
                clusters=node.cluster_cidrs,
            )
            undo.callback(overlay.write_parameters, overlay.parameters_before(parameters))
            overlay.write_parameters(parameters)
            _make_tables(settings, node, undo)

        loaded = loader.load(
            settings.pin_root,
            objects,
            config=_config(settings, node, ifindex, features).pack(),
            callbacks=Callbacks(
                hooks=lambda: hooks(ipr, ifindex, link.ifindex),
                refill=lambda new: refill(new, facts),
                confirm=open_up,
            ),
            ipr=ipr,
        )
        upkeep.restore(ipr, settings, node)
        delegation_records.setup(settings)
        undo.pop_all()
        _leave_former_uplink(settings, ipr, before, link)
    delegation_records.release_orphans(settings)
    return Outcome(node, loaded.changed, loaded.fingerprint)


def teardown(settings: Settings, *, report: Report = lambda _: None) -> None:
    """Return the host to what it was, pods' links included; right on a half set up node too.

    The node leaves the cluster, so the others stop sending to it; an agent that serves it ends. The
    compile cache and the embedded store stay: they are the administrator's. Raises PycniError or
    LoaderError.
    """
    node = Node.load_if_any(settings)
    with locks.network_lock(settings.run_dir), IPRoute() as ipr:
        report("leaving the cluster")
        _leave_cluster(settings, node, report)
        report("removing the pods' links")
        for name in [link.get("ifname") for link in ipr.get_links() if is_ours(link)]:
            delete_link(ipr, name)
        report("unloading the dataplane")
        loader.unload(settings.pin_root, ipr)
        overlay.teardown(ipr)
        masquerade.teardown()
        port_table.teardown()
        if node is not None:
            overlay.write_parameters(node.sysctls)
            if node.mounted_bpffs:
                pins.unmount_bpffs(settings.bpffs)
    delegation_records.teardown(settings)
    record_path(settings).unlink(missing_ok=True)
    _remove_runtime_files(settings)


def hooks(ipr: IPRoute, overlay_ifindex: int, uplink_ifindex: int) -> list[Hook]:
    """Where programs belong on this node now: the overlay device, the uplink, every pod's veth."""
    devices = {
        Device.ENDPOINT: [lease.ifindex for lease in leases(ipr)],
        Device.OVERLAY: [overlay_ifindex],
        Device.UPLINK: [uplink_ifindex],
    }
    return [
        Hook(ifindex, place.program)
        for place in PLACES
        for ifindex in devices[place.device]
        if ifindex
    ]


def _join(
    settings: Settings, ipr: IPRoute, link: Uplink, before: Node | None, undo: ExitStack
) -> tuple[NodeRecord, list[NodeRecord]]:
    """This node's record and those of the others.

    A node that was set up never makes a new store: in an empty one it would take another's CIDRs.
    """
    store = open_store(settings.store_url, settings.cluster, create=before is None)
    known = {node.name: node for node in store.nodes()}
    identity = machine_identity()
    record = store.register(settings.node_name, link.vtep, identity=identity)
    former = known.pop(record.name, None)
    if former is None:
        undo.callback(store.remove, record.name)
    elif former.vtep != record.vtep:
        undo.callback(store.register, former.name, former.vtep, identity=identity)
    others = list(known.values())
    _refuse_renumbering(ipr, before, record)
    _refuse_mixed_underlay(record, others)
    return record, others


def _refuse_renumbering(ipr: IPRoute, before: Node | None, record: NodeRecord) -> None:
    if before is not None and before.pod_cidrs != record.pod_cidrs and any(leases(ipr)):
        have, given = (" ".join(map(str, node.pod_cidrs)) for node in (before, record))
        raise SetupError(
            f"the cluster store gives this node {given}, but its pods have addresses of {have}",
            hint="restore the store from before, or drain the node, then pycni teardown and setup",
        )


def _refuse_mixed_underlay(record: NodeRecord, others: list[NodeRecord]) -> None:
    for other in others:
        if other.vtep.version != record.vtep.version:
            raise SetupError(
                f"this node's VTEP is {record.vtep}, that of node {other.name} is {other.vtep}: "
                "they cannot reach each other",
                hint="set `vtep` to an address of the same IP version on all nodes",
            )


def _record(settings: Settings, node: Node, before: Node | None, undo: ExitStack) -> None:
    if before is None:
        undo.callback(record_path(settings).unlink, missing_ok=True)
    else:
        undo.callback(before.save, settings)
    node.save(settings)


def _make_device(settings: Settings, ipr: IPRoute, mtu: int, undo: ExitStack) -> int:
    former = overlay.find(ipr)
    ifindex = overlay.setup(ipr, port=settings.port, mtu=mtu)
    if former is not None and former["index"] == ifindex:
        undo.callback(overlay.set_mtu, ipr, ifindex, former.get("mtu"))
    else:
        undo.callback(overlay.teardown, ipr)
    return ifindex


def _make_tables(settings: Settings, node: Node, undo: ExitStack) -> None:
    mark = settings.masquerade_mark
    if not masquerade.exists():
        undo.callback(masquerade.teardown)
    masquerade.setup(mark, overlay=overlay.DEVICE, pods=NAME_HEAD, clusters=node.cluster_cidrs)
    if not port_table.exists():
        undo.callback(port_table.teardown)
    port_table.setup(mark, overlay=overlay.DEVICE, clusters=node.cluster_cidrs)


def _node(
    settings: Settings, record: NodeRecord, link: Uplink, *, mtu: int, before: Node | None
) -> Node:
    return Node(
        name=record.name,
        node_id=record.node_id,
        vtep=record.vtep,
        pod_cidrs=record.pod_cidrs,
        cluster_cidrs=settings.cluster.cidrs,
        uplink=link.ifname,
        mtu=mtu,
        port=settings.port,
        sysctls=before.sysctls if before else {},
        mounted_bpffs=pins.needs_bpffs(settings.bpffs) or bool(before and before.mounted_bpffs),
    )


def _overlay_mtu(settings: Settings, link: Uplink) -> int:
    """The settings' MTU if it fits the uplink, or else the largest that does."""
    largest = cluster.overlay_mtu(link.mtu, link.vtep.version, settings.cluster)
    if settings.mtu > largest:
        raise InvalidSettings(
            f"mtu = {settings.mtu} does not fit the uplink {link.ifname}",
            details=f"its MTU of {link.mtu} leaves {largest} bytes for pods",
            hint="lower `mtu` in the settings, or set it to 0 for the largest that fits",
        )
    return settings.mtu or largest


def choose_encap(settings: Settings, features: list[Feature]) -> str:
    """Who makes VXLAN on this kernel. SetupError if the settings insist on what it cannot."""
    able = _has(features, "own_encap")
    if settings.encap == "ebpf" and not able:
        (feature,) = (f for f in features if f.name == "own_encap")
        raise SetupError(
            'encap = "ebpf": this kernel does not let programs encapsulate',
            details=feature.reason,
            hint='set encap to "auto" or "kernel"; it takes Linux 5.13',
        )
    return "ebpf" if able and settings.encap != "kernel" else "kernel"


def _has(features: list[Feature], name: str) -> bool:
    return any(feature.name == name and feature.available for feature in features)


def _config(
    settings: Settings, node: Node, overlay_ifindex: int, features: list[Feature]
) -> Config:
    return Config(
        vni=settings.vni,
        port=settings.port,
        stack_ifindex=overlay_ifindex,  # one device has both parts
        vxlan_ifindex=overlay_ifindex,
        overlay_mtu=node.mtu,
        masquerade_mark=settings.masquerade_mark,
        tunnel_key_local=_has(features, "tunnel_key_local"),
        own_encap=node.encap == "ebpf",
        decap_l3=_has(features, "decap_l3"),
        netkit=_has(features, "netkit"),
        gateways=node.gateways,
        clusters=node.cluster_cidrs,
        pod_cidrs=node.pod_cidrs,
    )


def _leave_former_uplink(
    settings: Settings, ipr: IPRoute, before: Node | None, link: Uplink
) -> None:
    """Detach from the interface that was the uplink at the last setup, if another is now."""
    if before is not None and before.uplink != link.ifname:
        former = find_link(ipr, before.uplink)
        if former is not None:
            loader.detach(settings.pin_root, ipr, former["index"])


def _leave_cluster(settings: Settings, node: Node | None, report: Report) -> None:
    """Take this node out of the store; an absent or broken store must not keep a node up."""
    name = settings.node_name if node is None else node.name
    try:
        open_store(settings.store_url, settings.cluster, create=False).remove(name)
    except PycniError as error:
        report(f"the store keeps node {name}: {error.message}")


def _remove_runtime_files(settings: Settings) -> None:
    """The run directory holds locks and the socket of an agent: nothing outlives a teardown."""
    shutil.rmtree(settings.run_dir / locks.LOCK_DIRECTORY, ignore_errors=True)
    settings.socket_path.unlink(missing_ok=True)
    with suppress(OSError):
        settings.run_dir.rmdir()
