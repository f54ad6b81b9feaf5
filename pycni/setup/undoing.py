# SPDX-License-Identifier: Apache-2.0
"""The undo of setup: from a node, also a half made or half lost one, back to a bare host.

One list of steps is what a teardown does and what `teardown --dry-run` says. Runs in the node's
network namespace.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import loader
from loader import attach, pins
from pycni import locks
from pycni.attachments.on_lan import detaching
from pycni.bgp import file as bird_file
from pycni.directories import refuse_unwritable
from pycni.errors import PycniError
from pycni.files import remove_file
from pycni.ipam import delegation
from pycni.ipam.pools import Rotation
from pycni.kernel.rtnl import Rtnl
from pycni.lan import host_child
from pycni.lan import leases as lan_leases
from pycni.names import AWAY_NOTE
from pycni.node import (
    claim,
    firewall_accepts,
    first_services,
    masquerade,
    old_rules,
    overlay,
    overlay_guard,
)
from pycni.node.last_list import list_path
from pycni.node.record import Node, record_path
from pycni.node.report import report_path
from pycni.pods import port_records, port_table, resting
from pycni.pods.lease import is_ours, read_lease
from pycni.settings import Settings
from pycni.stores import open_store
from pycni.upkeep import book, installed

Report = Callable[[str], object]
"""Told of each step, a phrase, before it begins."""


class Step(NamedTuple):
    """One thing that setup or an ADD made, and that is there."""

    words: str
    """Its undo as a phrase that follows "would"."""
    undo: Callable[[], object]


def words(settings: Settings) -> list[str]:
    """Each step of a teardown in words; none: nothing of pycni is there. Changes nothing.

    Raises SetupError if this host is the node of other settings, FileError if a teardown could not
    write to the state or run directory.
    """
    with Rtnl() as ipr:
        steps = [*_look(settings, ipr, lambda _: None), *_last(settings)]
    if steps:
        refuse_unwritable(settings.state_dir)
        refuse_unwritable(settings.run_dir)
    return [step.words for step in steps]


def teardown(settings: Settings, *, report: Report) -> bool:
    """Return the host to what it was, pods' links included; right on a half set up node too.

    The node leaves the cluster, so the others stop sending to it; an agent that serves it ends. The
    compile cache and the embedded store stay: they are the administrator's. False if nothing of
    pycni was there. Raises PycniError or LoaderError.
    """
    with locks.network_lock(settings.run_dir), Rtnl() as ipr:
        claim.refuse_others(settings, ipr)
        settings.socket_path.unlink(missing_ok=True)  # first: an agent mends what it misses
        steps = _look(settings, ipr, report)
        _do(steps, report)
    delegation.teardown(settings)  # the links of its addresses are gone by now
    _do(_last(settings), report)
    _remove_runtime_files(settings)
    return bool(steps)


def _do(steps: Iterable[Step], report: Report) -> None:
    for step in steps:
        report(step.words)
        step.undo()


def _look(settings: Settings, ipr: Rtnl, report: Report) -> list[Step]:
    claim.refuse_others(settings, ipr)
    node = Node.load_if_any(settings)
    found = [
        *_links(ipr),
        *_on_lan(settings, ipr),
        *_dataplane(settings, ipr),
        *_tables(),
        *_rules(ipr),
        *_files(settings),
        *_host(settings, node),
    ]
    if not found and node is None:  # the name in the store is another machine's
        return []
    return [*_bird(settings), _leave(settings, node, report), *found]


def _bird(settings: Settings) -> Iterator[Step]:
    """First: nobody shall send to pods that go."""
    if bird_file.config_path(settings).exists():
        phrase = "have BIRD withdraw what this node announces, and remove its configuration"
        yield Step(phrase, partial(bird_file.withdraw, settings))


def _leave(settings: Settings, node: Node | None, report: Report) -> Step:
    name = settings.node_name if node is None else node.name

    def leave() -> None:
        try:
            open_store(settings.store_url, settings.cluster, create=False).remove(name)
        except PycniError as error:  # a teardown goes on without a store that answers
            report(f"the store keeps node {name}: {error.message}")

    return Step(f"take node {name} out of the store {settings.store_url}", leave)


def _links(ipr: Rtnl) -> Iterator[Step]:
    for link in ipr.links():
        if is_ours(link):
            lease = read_lease(link)
            of = f" of the pod {lease.container_id}" if lease else ""
            yield Step(f"delete the link {link.ifname}{of}", partial(ipr.delete_link, link.ifindex))


def _on_lan(settings: Settings, ipr: Rtnl) -> Iterator[Step]:
    """The pods on the LAN, and what is left of the node's own links beside them."""
    for lease in lan_leases.leases(settings.run_dir):
        phrase = f"delete the {lease.device} {lease.ifname} of the pod {lease.container_id}"
        yield Step(phrase, partial(detaching.detach, ipr, settings, lease.key.digest))
    for digest in lan_leases.unreadable(settings.run_dir):
        phrase = f"remove the lease {digest} of a pod on the LAN, which cannot be read"
        yield Step(phrase, partial(detaching.detach, ipr, settings, digest))
    for link in ipr.links():
        if host_child.is_ours(link):
            yield Step(f"delete the link {link.ifname}", partial(ipr.delete_link, link.ifindex))


def _dataplane(settings: Settings, ipr: Rtnl) -> Iterator[Step]:
    root = settings.pin_root
    unload = partial(loader.unload, root, ipr)
    if root.exists():
        yield Step(f"detach the programs, and remove the pins in {root}", unload)
    elif holders := [link.ifname for link in ipr.links() if attach.attached(ipr, link.ifindex)]:
        yield Step(f"detach the programs from {', '.join(holders)}", unload)
    if overlay.find(ipr) is not None:
        phrase = f"delete the device {overlay.DEVICE}, with its addresses and routes"
        yield Step(phrase, partial(overlay.teardown, ipr))
    if (link := claim.renamed(settings, ipr.links())) is not None:
        phrase = f"delete the device {link.ifname}, which was {overlay.DEVICE}"
        yield Step(phrase, partial(ipr.delete_link, link.ifindex))


def _tables() -> Iterator[Step]:
    if firewall_accepts.exist():
        phrase = "delete the rules for packets of pods from iptables' chains"
        yield Step(phrase, firewall_accepts.teardown)
    for table in (overlay_guard, masquerade, port_table):
        if table.exists():
            yield Step(f"delete the nftables table {table.TABLE}", table.teardown)


def _rules(ipr: Rtnl) -> Iterator[Step]:
    if old_rules.versions(ipr):
        phrase = "delete the rules of an earlier release for packets to addresses of nobody"
        yield Step(phrase, partial(old_rules.remove, ipr))


def _files(settings: Settings) -> Iterator[Step]:
    if port_records.read_all(settings).leftovers:
        yield Step("remove the records of host ports", partial(port_records.teardown, settings))


def _host(settings: Settings, node: Node | None) -> Iterator[Step]:
    if node is None:
        return
    for name, value in node.sysctls.items():
        yield Step(f"write {value} to {name}", partial(overlay.write_parameters, {name: value}))
    if node.mounted_bpffs and not pins.needs_bpffs(settings.bpffs):
        yield Step(f"unmount {settings.bpffs}", partial(pins.unmount_bpffs, settings.bpffs))


def _last(settings: Settings) -> Iterator[Step]:
    """The record says what was there before setup: a teardown that was killed can go on."""
    path = record_path(settings)
    if path.exists():
        yield Step(f"remove {path}", partial(remove_file, path))


def _remove_runtime_files(settings: Settings) -> None:
    """The run directory holds locks and sockets of an agent: nothing outlives a teardown."""
    shutil.rmtree(settings.run_dir / locks.LOCK_DIRECTORY, ignore_errors=True)
    note = settings.run_dir / AWAY_NOTE
    for path in (settings.socket_path, settings.event_socket_path, book.path_of(settings), note):
        path.unlink(missing_ok=True)
    resting.teardown(settings.run_dir)
    installed.close(settings)
    Rotation(settings.state_dir).forget()
    first_services.teardown(settings)
    remove_file(report_path(settings))
    remove_file(list_path(settings))
    with suppress(OSError):
        settings.run_dir.rmdir()
