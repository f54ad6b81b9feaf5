# SPDX-License-Identifier: Apache-2.0
"""What a setup would change on this host, in words: for `setup --dry-run`.

Looks, decides as setup does (plan.py), and changes nothing: programs are compiled into a directory
that goes away again, and the store is read only.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import loader
from loader import pins, probe
from loader.compile import compile_programs
from pycni.errors import StoreError
from pycni.faults import SETUP
from pycni.kernel import sysctl
from pycni.kernel.rtnl import Rtnl
from pycni.node import masquerade, overlay, overlay_guard
from pycni.node.record import Node
from pycni.pods import port_table
from pycni.pods.lease import leases
from pycni.settings import Settings, refuse_directories
from pycni.setup import plan, provision
from pycni.setup.plan import Host
from pycni.stores import NodeRecord, open_store
from pycni.stores.existence import what_is_missing
from pycni.upkeep import parts, uplink
from pycni.upkeep.description import describe
from pycni.upkeep.seen import Seen

RESTORE = "restore it from a copy: a node that was set up before never makes a new store"


def steps(settings: Settings) -> list[str]:
    """Each step as a phrase that follows "would", in order; none: setup would change nothing.

    Raises what setup would raise before its first change: PycniError or LoaderError.
    """
    provision.refuse_hidden_mount(settings)
    refuse_directories(settings)
    features = probe.probe()
    probe.require(features)
    with Rtnl() as ipr:
        host = provision.look(settings, ipr, features)
        missing = what_is_missing(settings.store_url, settings.cluster)
        record = None if missing else _record(settings, host)
        found = list(_store(settings, host, missing=missing, known=record is not None))
        if record is not None:
            had = plan.former(host.before, leases(ipr), given=settings.given_pod_cidrs)
            had.refuse_renumbering(record.pod_cidrs)
            had.refuse_lost_blocks(record.networks)
        found += _device(settings, host)
        if host.before is None:
            found += _parameters(settings, host)
        node = None if record is None else plan.node(settings, host, record, {}, now=time.time())
        found += _programs(settings, host, node, ipr)
        found += _tables() if host.before is None else _mended(settings, ipr)
    return found


def _record(settings: Settings, host: Host) -> NodeRecord | None:
    """This node's record as registering would leave it; None if it would be a new one."""
    nodes = open_store(settings.store_url, settings.cluster, create=False).nodes()
    known = {node.name: node for node in nodes}
    former = known.pop(settings.node_name, None)
    record = former and replace(former, vtep=host.uplink.vtep)
    if record is not None:
        plan.refuse_mixed_underlay(record, list(known.values()))
    return record


def _store(settings: Settings, host: Host, *, missing: str, known: bool) -> Iterator[str]:
    """`missing`: what there is not of the store; `known`: whether the node is in it."""
    if missing and host.before is not None:
        raise StoreError(missing, hint=RESTORE)
    if missing:
        yield f"make a new cluster: {missing}"
    vtep = host.uplink.vtep
    if not known:
        yield f"register node {settings.node_name} with the VTEP {vtep} in {settings.store_url}"
    elif host.before is None or host.before.vtep != vtep:
        yield f"register the VTEP {vtep} of node {settings.node_name} in {settings.store_url}"


def _device(settings: Settings, host: Host) -> Iterator[str]:
    """What is not as the record of a node says, `_mended` tells."""
    if host.needs_bpffs:
        yield f"mount a BPF file system at {settings.bpffs}"
    mtu = plan.overlay_mtu(settings, host.uplink)
    if host.before is None:
        yield f"make the device {overlay.DEVICE} for UDP port {settings.port}, with MTU {mtu}"
    elif host.before.mtu != mtu:
        yield f"change the MTU of {overlay.DEVICE} from {host.before.mtu} to {mtu}"


def _parameters(settings: Settings, host: Host) -> Iterator[str]:
    ipv6 = settings.cluster.has_family(6)
    outer = [link.ifname for link in host.around.outer]
    wanted = overlay.plan_forwarding(outer, ipv6=ipv6)
    for name, value in wanted.items():
        now = sysctl.read(name)
        if now != value and f"/{overlay.DEVICE}/" not in name:
            yield f"write {value} to {name}, which is {now}"


def _programs(settings: Settings, host: Host, node: Node | None, ipr: Rtnl) -> Iterator[str]:
    current = None if host.needs_bpffs else pins.current(settings.pin_root)
    device = overlay.find(ipr)
    if current is None or node is None or device is None:
        yield f"load the programs, pin them in {settings.pin_root}, attach them to " + (
            f"{', '.join([overlay.DEVICE, *(link.ifname for link in host.around.outer)])} "
            "and the pods"
        )
        return
    with tempfile.TemporaryDirectory() as directory:
        digest = compile_programs(Path(directory)).digest
    config = plan.config(settings, node, host.features, device=device.ifindex, clients=host.clients)
    wanted, loaded = loader.identify(digest, config.pack()), pins.fingerprint(current)
    if wanted != loaded:
        yield f"replace the programs {loaded} by {wanted}, at each interface, under traffic"


def _mended(settings: Settings, ipr: Rtnl) -> Iterator[str]:
    """What is not as the node's record says."""
    description = describe(settings)
    if description is not None:
        for fault in parts.look(description, Seen(ipr)):
            if fault.todo and not fault.todo.endswith(SETUP):
                yield f"leave {fault.part} to a person: {fault.sentence}; {fault.todo}"
            elif fault.thing != uplink.OVERLAY_MTU:  # `_device` says it
                yield f"mend {fault.part}: {fault.sentence}"


def _tables() -> Iterator[str]:
    for table in (masquerade, overlay_guard, port_table):
        if not table.exists():
            yield f"make the nftables table {table.TABLE}"
