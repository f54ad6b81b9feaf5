# SPDX-License-Identifier: Apache-2.0
"""Node setup: from a bare host to a node that forwards. Its undo is undoing.py.

It is idempotent and is also the upgrade: it changes only what differs, and a failure leaves the
host as it was. Runs in the node's network namespace.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import loader
from loader import Callbacks, attach, pins, probe
from loader.compile import compile_programs
from pycni import cluster, locks
from pycni.attachments import restore
from pycni.cluster import IPAddress
from pycni.errors import (
    FileError,
    NameTaken,
    NotAvailable,
    PlaceLost,
    PycniError,
    SetupError,
    StoreError,
    TryAgain,
)
from pycni.ipam import delegation, delegation_records
from pycni.kernel import mounts
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node import (
    claim,
    directory,
    firewall_accepts,
    host_clients,
    last_list,
    masquerade,
    modes,
    next_hops,
    old_rules,
    overlay,
    overlay_guard,
    path_mtus,
    peers,
    underlay,
    uplink,
)
from pycni.node.directory import Directory
from pycni.node.record import Node, record_path
from pycni.node.uplink import Wish
from pycni.pods import port_records, port_table
from pycni.pods.lease import leases
from pycni.settings import Settings, make_directories
from pycni.setup import new_directories, plan
from pycni.setup.plan import Host
from pycni.setup.refill import Facts, refill
from pycni.stores import (
    Former,
    NodeRecord,
    Reach,
    Store,
    machine_identity,
    machine_instance,
    open_store,
)
from pycni.upkeep import book, hooks, host_ports, lost_leases, pods
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

log = logging.getLogger(__name__)

Report = Callable[[str], object]
"""Told of each step, a phrase, before it begins."""


def _silent(_: str) -> None:
    """The default report: tells nobody."""


@dataclass(frozen=True)
class Outcome:
    """What setup did."""

    node: Node
    changed: bool
    fingerprint: str
    unregistered: PycniError | None = None
    """Why the store does not know of it: then the other nodes are those of the last list. None: it
    does."""


@dataclass(frozen=True)
class Mending:
    """A setup by the agent, of a node that it serves."""

    known: Sequence[NodeRecord]
    """All nodes, for a store that does not answer: a node must be mended without it, too. None, if
    the agent has not heard of them yet: then they are those of the pinned maps."""


def setup(
    settings: Settings,
    *,
    report: Report = _silent,
    mending: Mending | None = None,
    needs_store: bool = True,
) -> Outcome:
    """Make this host a node, or bring a node up to date. Raises PycniError or LoaderError.

    Without `needs_store`, a host that was this node before is set up by the list that it heard last
    (node/last_list.py) if the store does not answer, or has no place for it any more.
    """
    with new_directories.taken_back(settings):
        return _setup(settings, report, mending=mending, needs_store=needs_store)


def _setup(
    settings: Settings, report: Report, *, mending: Mending | None, needs_store: bool
) -> Outcome:
    if mending is None:  # what an agent mounts lasts as long as the agent
        refuse_hidden_mount(settings)
    report("probing the kernel")
    features = probe.probe()
    probe.require(features)
    plan.choose_encap(settings, features)  # refuses before anything is compiled
    objects = compile_programs(
        settings.cache_dir, before_build=lambda: report("compiling the programs")
    )
    make_directories(settings)
    with locks.network_lock(settings.run_dir), Rtnl() as ipr, ExitStack() as undo:
        if mending is not None:
            _refuse_torn_down(settings)
        claim.rename_back(settings, ipr)
        host = look(settings, ipr, features)
        provisioning = Provisioning(
            settings,
            host,
            ipr=ipr,
            undo=undo,
            report=report,
            mending=mending,
            needs_store=needs_store and mending is None,
        )
        report("joining the cluster")
        target = provisioning.join_and_decide()
        provisioning.write_record(target.node)  # before any change: killed after it, we can restore
        report("making the overlay device")
        provisioning.mount_bpffs()
        device = provisioning.make_device(target.node)
        provisioning.make_port_table(target)
        report("comparing the programs with those loaded")
        loaded = provisioning.load(target, device, objects=objects)
        provisioning.mend_pods(target)
        undo.pop_all()
        provisioning.tell_the_rest(target)
        provisioning.leave_former_uplinks()
        if mending is None:
            book.close(settings)
    delegation.release_orphans(settings)
    return Outcome(
        target.node, loaded.changed, loaded.fingerprint, unregistered=target.unregistered
    )


@dataclass(frozen=True)
class Target:
    """What this host is to be, and the cluster around it."""

    node: Node
    record: NodeRecord
    """The node's, in the store."""
    others: list[NodeRecord]
    nodes: Directory
    """All nodes, by their addresses."""
    parameters: dict[str, str]
    """Kernel parameters, see overlay.plan_forwarding."""
    unregistered: PycniError | None
    """Why the store does not have the record; None: it has."""


@dataclass(frozen=True)
class Provisioning:
    """One setup that is under way. Each step pushes its undo on `undo`, before or right after its
    change; callers hold the network lock."""

    settings: Settings
    host: Host
    ipr: Rtnl
    undo: ExitStack
    report: Report
    mending: Mending | None
    needs_store: bool

    def join_and_decide(self) -> Target:
        """Join the cluster, which tells what else there is to do."""
        settings = self.settings
        record, others, unregistered = self.join()
        host = plan.towards(settings, self.host, record, others)
        parameters = overlay.plan_forwarding(
            [link.ifname for link in host.around.outer], ipv6=settings.cluster.has_family(6)
        )
        sysctls = overlay.parameters_before(parameters)
        node = plan.node(settings, host, record, sysctls, now=time.time())
        own = replace(record, addresses=tuple(self._addresses()))
        nodes = Directory(record.name, [own, *others])
        return Target(node, record, others, nodes, parameters, unregistered)

    def join(self) -> tuple[NodeRecord, list[NodeRecord], PycniError | None]:
        """Register in the store; this node's record, those of the others, and why the store does
        not have it.

        A node that was set up before never makes a new store: in an empty one it would take pod
        CIDRs that other nodes have.
        """
        settings, before = self.settings, self.host.before
        try:
            store = open_store(settings.store_url, settings.cluster, create=before is None)
            known = {node.name: node for node in store.nodes()}
        except (StoreError, TryAgain, FileError) as error:
            return self._stay(error)
        for text in store.warnings():
            log.warning("store is not safe found=%s", quoted(text))
        try:
            return *self._register(store, known), None
        except PlaceLost as error:
            return self._stay(error)
        except NameTaken:
            raise
        except (StoreError, TryAgain) as error:  # it may answer, and refuse what is written
            if self.mending is None:
                raise
            return self._stay(error)

    def _stay(self, error: PycniError) -> tuple[NodeRecord, list[NodeRecord], PycniError]:
        """As `join`, for a node that stays what it was because of an error, which is raised if it
        cannot."""
        former = self._places_before()
        if former is None:
            raise error
        if self.mending is None:
            log.warning("set up without the store, by the last list nodes=%d error=%s",
                        len(former[1]), quoted(error.message))  # fmt: skip
        return *former, error

    def _places_before(self) -> tuple[NodeRecord, list[NodeRecord]] | None:
        """What the node was, and the other nodes as its agent knows them, or as they are in the
        last list; None if the store is needed, or the node has another address now, which the store
        would have to be told."""
        before, vtep = self.host.before, self.host.uplink.vtep
        if self.needs_store or before is None or before.vtep != vtep:
            return None
        nodes: Sequence[NodeRecord] = self.mending.known if self.mending else ()
        if not nodes:
            nodes = last_list.load(self.settings) if self.mending is None else ()
        nodes = nodes or peers.pinned(self.settings.pin_root)
        known = {node.name: node for node in nodes}
        addresses = tuple(self._addresses())
        own = NodeRecord(before.name, before.node_id, vtep, before.pod_cidrs, addresses=addresses)
        # its own place this host knows better: a list may be older than the record
        own = replace(
            known.pop(before.name, own),
            node_id=before.node_id,
            vtep=vtep,
            pod_cidrs=before.pod_cidrs,
            blocks=before.blocks,
        )
        return own, list(known.values())

    def _register(
        self, store: Store, known: dict[str, NodeRecord]
    ) -> tuple[NodeRecord, list[NodeRecord]]:
        settings, before = self.settings, self.host.before
        identity, instance = machine_identity(), machine_instance()
        vtep = self.host.uplink.vtep
        former = known.pop(settings.node_name, None)
        addresses = self._addresses()
        accepts: tuple[str, ...] = ()
        if former is not None:
            addresses = [one for one in former.addresses if one in addresses]
            accepts = modes.still_accepts(settings, former.accepts)
        had = self._had()
        record = store.register(
            settings.node_name,
            vtep,
            identity=identity,
            instance=instance,
            reach=Reach(tuple(addresses), accepts),
            had=had,
        )
        if former is None and before is None and not had.stays:
            # of a node of before, the store may have lost the record: nobody may get its place
            self.undo.callback(store.remove, record.name)
        elif former is not None and former.vtep != record.vtep:
            self.undo.callback(
                store.register,
                former.name,
                former.vtep,
                identity=identity,
                instance=instance,
                reach=Reach(former.addresses, former.accepts),
            )
        own = {address.ip for address in self.ipr.addresses()}
        others = [node for node in known.values() if not peers.unfit(node, own)]
        plan.refuse_mixed_underlay(record, others)
        return record, others

    def _had(self) -> Former:
        """What this host was. While its agent serves, a pod may come at any moment."""
        serves = self.mending is not None
        given = self.settings.given_pod_cidrs
        return plan.former(self.host.before, leases(self.ipr), serves=serves, given=given)

    def _addresses(self) -> list[IPAddress]:
        """All that this node has, for the store."""
        vtep = self.host.uplink.vtep
        return self.host.around.own_addresses(self.settings.cluster.cidrs, vtep)

    def tell_the_rest(self, target: Target) -> None:
        """Tell the store of addresses that a node of before did not have, and of what it accepts
        now. Other nodes send to them, and send that, from then on, which programs of before do not
        expect: so this is last.
        """
        record, accepts = target.record, modes.accepts(target.node)
        if tuple(record.addresses) == tuple(self._addresses()) and record.accepts == accepts:
            return
        try:
            open_store(self.settings.store_url, self.settings.cluster, create=False).register(
                record.name,
                record.vtep,
                identity=machine_identity(),
                instance=machine_instance(),
                reach=Reach(tuple(self._addresses()), accepts),
                had=Former(record.pod_cidrs, record.blocks, stays=True),
            )
        except (StoreError, TryAgain, FileError) as error:
            log.warning("addresses not told, the agent will error=%s", quoted(error.message))

    def write_record(self, node: Node) -> None:
        if node == self.host.before:
            return  # a full disk keeps no node from being mended
        if self.host.before is None:
            self.undo.callback(record_path(self.settings).unlink, missing_ok=True)
        else:
            self.undo.callback(self.host.before.save, self.settings)
        node.save(self.settings)

    def mount_bpffs(self) -> None:
        if pins.ensure_bpffs(self.settings.bpffs):
            self.undo.callback(pins.unmount_bpffs, self.settings.bpffs)

    def make_device(self, node: Node) -> int:
        """The ifindex of the overlay device, which is down if it is new."""
        former = overlay.find(self.ipr)
        ifindex = overlay.setup(self.ipr, port=node.port, mtu=node.mtu)
        if former is not None and former.ifindex == ifindex:
            self.undo.callback(self.ipr.set_mtu, ifindex, former.mtu)
        else:
            self.undo.callback(overlay.teardown, self.ipr)
        claim.setup(self.settings, self.ipr, ifindex)
        return ifindex

    def load(self, target: Target, device: int, *, objects: loader.Objects) -> loader.Loaded:
        """Load the programs, and attach them to all interfaces; then the overlay may open."""
        settings, ipr = self.settings, self.ipr
        clients = self.host.clients
        features = self.host.features
        config = plan.config(settings, target.node, features, device=device, clients=clients)
        facts = Facts(settings, target.node, target.record, target.others, ipr)
        sizes = plan.map_sizes(target.others) | plan.service_sizes(
            settings,
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            processors=os.sysconf("SC_NPROCESSORS_CONF"),
        )
        return loader.load(
            settings.pin_root,
            replace(objects, sizes=sizes),
            config=config.pack(),
            callbacks=Callbacks(
                hooks=lambda: hooks.wanted(ipr, device, self.host.around.outer),
                refill=lambda new: refill(new, facts),
                confirm=lambda _: self.open_overlay(target, device),
            ),
            ipr=ipr,
            cgroup=None if clients is None else clients.cgroup,
        )

    def open_overlay(self, target: Target, device: int) -> None:
        """Let packets in: the programs are attached by now."""
        self.report("opening the overlay")
        node = target.node
        self.write_maps(node, target.others)
        directory.write(self.settings.pin_root, target.nodes.entries)
        self.write_parameters(target.parameters)
        overlay.bring_up(
            self.ipr,
            device,
            port=self.settings.port,
            gateways=node.gateways,
            clusters=node.cluster_cidrs,
        )
        self.make_tables(node, target.others)
        old_rules.remove(self.ipr)  # which the table of ipMasq stands for now
        path_mtus.mend(self.settings)  # the overlay's MTU may be another one now

    def write_maps(self, node: Node, others: list[NodeRecord]) -> None:
        """This node's own address, and where the other nodes are."""
        before = self.host.before
        if before is not None and before.vtep != node.vtep:
            self.undo.callback(next_hops.write_vtep, self.settings.pin_root, before.vtep)
        next_hops.write_vtep(self.settings.pin_root, node.vtep)
        peers.write(self.settings.pin_root, others, synced=True)

    def write_parameters(self, parameters: dict[str, str]) -> None:
        """Kernel parameters, see overlay.plan_forwarding."""
        self.undo.callback(overlay.write_parameters, overlay.parameters_before(parameters))
        overlay.write_parameters(parameters)

    def make_port_table(self, target: Target) -> None:
        """The nftables table of host ports, which knows other nodes by their addresses. It suits
        programs of before, too, and those to come need it."""
        if not port_table.exists():
            self.undo.callback(port_table.teardown)
        host_ports.setup(self.settings, target.node)
        port_table.write_nodes(target.nodes.others)

    def make_tables(self, node: Node, others: list[NodeRecord]) -> None:
        """The nftables tables of ipMasq and the overlay's guard, and what packets of pods need in
        other people's."""
        for table in (masquerade, overlay_guard):
            if not table.exists():
                self.undo.callback(table.teardown)
        overlay_guard.setup(self.settings, node, overlay_guard.addresses_of(others))
        masquerade.setup(self.settings, node)  # in an earlier release with rules of the guard's
        if self.host.before is None:
            self.undo.callback(firewall_accepts.teardown)
        firewall_accepts.setup(node)

    def mend_pods(self, target: Target) -> None:
        """Links and entries of the pods that are here, and the records of what was lent to them."""
        node = target.node
        lost_leases.mend(Description(self.settings, node), Seen(self.ipr))
        restore.restore(
            self.ipr,
            self.settings,
            node,
            needs_store=self.needs_store,
            published_before=None if target.unregistered else target.record.extra,
        )
        pods.mend(Description(self.settings, node), Seen(self.ipr))
        delegation_records.setup(self.settings)
        port_records.setup(self.settings)

    def leave_former_uplinks(self) -> None:
        """Detach from interfaces by which packets of other machines no longer come in."""
        outer = {link.ifindex for link in self.host.around.outer}
        for ifindex in self.host.around.links.keys() - outer:
            if hooks.OUTSIDE in attach.attached(self.ipr, ifindex):
                loader.detach(self.settings.pin_root, self.ipr, ifindex)


def look(settings: Settings, ipr: Rtnl, features: list[probe.Feature]) -> Host:
    """The host as it is. Raises SetupError without a usable uplink, ClusterError if the cluster's
    networks overlap with others of this host."""
    before = Node.load_if_any(settings)
    claim.refuse_others(settings, ipr)
    claim.refuse_strangers(settings, ipr, before)
    claim.refuse_renaming(settings, before)
    around = underlay.look(ipr)
    link = uplink.choose(around, Wish.of(settings, before))
    plan.overlay_mtu(settings, link)
    if before is None or before.cluster_cidrs != settings.cluster.cidrs:
        # a node that is there is kept up: upkeep/routes.py tells of what overrules its routes
        cluster.check_underlay(settings.cluster, overlay.underlay_networks(ipr))
        cluster.check_routes(settings.cluster, overlay.routed_networks(ipr))
    needs_bpffs = pins.needs_bpffs(settings.bpffs)
    clients = host_clients.look(settings)
    return Host(features, link, around, needs_bpffs=needs_bpffs, before=before, clients=clients)


def refuse_hidden_mount(settings: Settings) -> None:
    """SetupError if pins would end with this command, and no other process would see them."""
    if pins.needs_bpffs(settings.bpffs) and (why := mounts.why_hidden(settings.bpffs)):
        raise SetupError(
            f"no BPF file system is at {settings.bpffs}, and one that this command mounts would "
            "be hidden from all others",
            details=why,
            hint=f"mount it for all first: mount -t bpf bpffs {settings.bpffs}; enter a network "
            "namespace with nsenter --net=/run/netns/NAME, which leaves the mounts alone",
        )


def _refuse_torn_down(settings: Settings) -> None:
    """Raise NotAvailable if the agent's socket is gone: then a teardown was faster."""
    if not settings.socket_path.exists():
        raise NotAvailable(
            "this node was torn down, and is not mended any more",
            hint="to make it a node again: pycni setup",
        )
