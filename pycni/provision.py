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
from typing import Any

from pyroute2 import IPRoute

import loader
from loader import Hook, pins, probe
from loader.compile import compile_programs
from loader.probe import Feature
from pycni import cluster, locks, masquerade, membership, overlay, podnet, uplink
from pycni.errors import ClusterError, InvalidSettings, StoreError
from pycni.lease import find_link, leases
from pycni.maps import Config
from pycni.node import Node, record_path
from pycni.settings import Settings, make_directories
from pycni.stores import NodeRecord, machine_identity, open_store
from pycni.uplink import Uplink

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
    report("compiling the programs")
    objects = compile_programs(settings.cache_dir)
    make_directories(settings)
    with locks.network_lock(settings.run_dir), IPRoute() as ipr, ExitStack() as undo:
        before = Node.load_if_any(settings)
        link = uplink.find(ipr, ifname=settings.uplink, vtep=settings.vtep)
        shared = settings.cluster
        cluster.check_underlay(shared, overlay.underlay_networks(ipr))
        mtu = _overlay_mtu(settings, link)

        report("joining the cluster")
        store = open_store(settings.store_url, shared)
        known = {node.name for node in store.nodes()}
        record = store.register(settings.node_name, link.vtep, identity=machine_identity())
        if record.name not in known:
            undo.callback(store.remove, record.name)

        others = [node for node in store.nodes() if node.name != record.name]

        report("loading the dataplane")
        node = _node(settings, record, link, mtu=mtu, before=before)
        mounted = pins.ensure_bpffs(settings.bpffs)
        if mounted:
            undo.callback(pins.unmount_bpffs, settings.bpffs)
            node = replace(node, mounted_bpffs=True)
        existed = overlay.find(ipr) is not None
        ifindex = overlay.setup(ipr, port=settings.port, mtu=mtu)
        if not existed:
            undo.callback(overlay.teardown, ipr)
        _leave_former_uplink(settings, ipr, before, link)
        loaded = loader.load(
            settings.pin_root,
            objects,
            config=_config(settings, node, ifindex, features).pack(),
            hooks=lambda: hooks(ipr, ifindex, link.ifindex),
            ipr=ipr,
        )
        if before is None:
            undo.callback(loader.unload, settings.pin_root, ipr, hooks(ipr, ifindex, link.ifindex))
        membership.write(settings.pin_root, others, synced=True)

        report("opening the overlay")
        masquerade.setup(settings.masquerade_mark, overlay=overlay.DEVICE)
        if before is None:
            undo.callback(masquerade.teardown)
        overlay.bring_up(
            ipr, ifindex, port=settings.port, gateways=node.gateways, clusters=shared.cidrs
        )
        sysctls = overlay.enable_forwarding(link.ifname, ipv6=shared.has_family(6))
        undo.callback(overlay.restore_forwarding, sysctls)
        node = replace(node, sysctls=sysctls | node.sysctls)
        node.save(settings)
        undo.pop_all()
    return Outcome(node, loaded.changed, loaded.fingerprint)


def teardown(settings: Settings, *, report: Report = lambda _: None) -> None:
    """Return the host to what it was, pods' links included; right on a half set up node too.

    The node leaves the cluster, so the others stop sending to it. The compile cache and the
    embedded store stay: they are the administrator's. Raises PycniError or LoaderError.
    """
    node = Node.load_if_any(settings)
    with locks.network_lock(settings.run_dir), IPRoute() as ipr:
        report("leaving the cluster")
        _leave_cluster(settings)
        report("removing the pods' links")
        for lease in list(leases(ipr)):
            podnet.teardown(ipr, lease.host_ifname)
        report("unloading the dataplane")
        link = find_link(ipr, node.uplink) if node is not None else None
        device = overlay.find(ipr)
        places = hooks(ipr, _index(device), _index(link))
        loader.unload(settings.pin_root, ipr, places)
        overlay.teardown(ipr)
        masquerade.teardown()
        if node is not None:
            overlay.restore_forwarding(node.sysctls)
            if node.mounted_bpffs:
                pins.unmount_bpffs(settings.bpffs)
    record_path(settings).unlink(missing_ok=True)
    _remove_runtime_files(settings)


def hooks(ipr: IPRoute, overlay_ifindex: int, uplink_ifindex: int) -> list[Hook]:
    """Where programs belong on this node now: the overlay device, the uplink, every pod's veth."""
    found = [
        Hook(lease.ifindex, program)
        for lease in leases(ipr)
        for program in loader.ENDPOINT_PROGRAMS
    ]
    if overlay_ifindex:
        found += [Hook(overlay_ifindex, "from_overlay"), Hook(overlay_ifindex, "to_overlay")]
    if uplink_ifindex:
        found.append(Hook(uplink_ifindex, "from_underlay"))
    return found


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
        mounted_bpffs=before.mounted_bpffs if before else False,
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


def _config(
    settings: Settings, node: Node, overlay_ifindex: int, features: list[Feature]
) -> Config:
    return Config(
        vni=settings.vni,
        port=settings.port,
        overlay_ifindex=overlay_ifindex,
        overlay_mtu=node.mtu,
        masquerade_mark=settings.masquerade_mark,
        tunnel_key_local=any(f.name == "tunnel_key_local" and f.available for f in features),
        vtep=node.vtep,
        gateways=node.gateways,
        clusters=node.cluster_cidrs,
    )


def _leave_former_uplink(
    settings: Settings, ipr: IPRoute, before: Node | None, link: Uplink
) -> None:
    """Detach from the interface that was the uplink at the last setup, if another is now."""
    if before is not None and before.uplink != link.ifname:
        former = find_link(ipr, before.uplink)
        if former is not None:
            loader.detach(settings.pin_root, ipr, former["index"])


def _index(link: Any | None) -> int:
    return 0 if link is None else int(link["index"])


def _leave_cluster(settings: Settings) -> None:
    """Take this node out of the store; an absent or broken store must not keep a node up."""
    with suppress(StoreError, ClusterError):
        open_store(settings.store_url, settings.cluster, create=False).remove(settings.node_name)


def _remove_runtime_files(settings: Settings) -> None:
    """The run directory holds locks and the socket of an agent: nothing outlives a teardown."""
    shutil.rmtree(settings.run_dir / locks.LOCK_DIRECTORY, ignore_errors=True)
    settings.socket_path.unlink(missing_ok=True)
    with suppress(OSError):
        settings.run_dir.rmdir()
