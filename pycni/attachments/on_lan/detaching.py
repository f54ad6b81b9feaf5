# SPDX-License-Identifier: Apache-2.0
"""The end of attachments on the LAN: of one, and of all whose pods ended without a DEL.

Works without the pod's namespace, without the parent, and any number of times. Callers of `detach`
hold the attachment's lock. Runs in the node's network namespace.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from pycni import locks
from pycni.errors import FileError, PycniError, TryAgain
from pycni.kernel import namespaces
from pycni.kernel.rtnl import Rtnl
from pycni.lan import host_child, leases
from pycni.lan.leases import LanLease
from pycni.logfmt import quoted
from pycni.pods import resting, source_rules
from pycni.settings import Settings

log = logging.getLogger(__name__)


def detach(ipr: Rtnl, settings: Settings, digest: str, *, netns_fd: int = -1) -> bool:
    """Remove the pod's link, then its routes and its lease; False if there is no lease.

    `netns_fd` is the pod's namespace, -1 if it is gone: source rules do not go with the link.
    Raises PycniError, NetlinkError.
    """
    lease = leases.find(settings.run_dir, digest)
    if lease is None:
        if leases.is_left(settings.run_dir, digest):  # and cannot be read
            _remove_stray(netns_fd, digest)
            with locks.lan_lock(settings.run_dir):
                leases.forget(settings.run_dir, digest)
                _tidy(ipr, settings)
        return False
    if lease.ruled and netns_fd >= 0:
        source_rules.teardown(netns_fd, lease.ruled)
    if (link := leases.link_of(ipr, lease)) is not None:
        ipr.delete_link_in(lease.netnsid, link.ifindex)
    else:
        _remove_stray(netns_fd, digest)
    with locks.lan_lock(settings.run_dir):
        _release(ipr, settings, lease)
    return True


def sweep(ipr: Rtnl, settings: Settings) -> int:
    """Detach the pods whose link is gone; returns how many there were. What killed writers of
    leases left goes, too.

    One whose lock somebody holds is left alone. Failures are logged.
    """
    run_dir = settings.run_dir
    dead = [one.key.digest for one in leases.leases(run_dir) if not leases.is_alive(ipr, one)]
    swept = sum(_sweep_one(ipr, settings, digest) for digest in dead)
    for digest in leases.half_written(run_dir):
        _sweep_one(ipr, settings, digest)
    if leases.is_empty(run_dir):
        with suppress(TryAgain, FileError), locks.lan_lock(run_dir, timeout=0):
            leases.teardown(run_dir)
    return swept


def _sweep_one(ipr: Rtnl, settings: Settings, digest: str) -> bool:
    """Whether there was a lease of a link that is gone."""
    try:
        with locks.attachment_lock(settings.run_dir, digest, timeout=0):
            again = leases.find(settings.run_dir, digest)
            if again is None or not leases.is_alive(ipr, again):
                return detach(ipr, settings, digest)
    except TryAgain:
        pass
    except (PycniError, OSError) as error:
        log.warning("not detached lease=%s error=%s", quoted(digest), quoted(str(error)))
    return False


def _release(ipr: Rtnl, settings: Settings, lease: LanLease) -> None:
    """The routes, the lease, and the node's child after the last pod of its parent."""
    resting.rest(settings.run_dir, lease.addresses)
    child = ipr.link(host_child.name_of(lease.parent))
    if child is not None:
        host_child.remove_ways(ipr, child, lease.addresses)
    leases.forget(settings.run_dir, lease.key.digest)
    if all(one.parent != lease.parent for one in leases.leases(settings.run_dir)):
        host_child.teardown(ipr, lease.parent)
    leases.teardown(settings.run_dir)


def _remove_stray(netns_fd: int, digest: str) -> None:
    """The link in the pod by its alias, where no lease says which it is."""
    if netns_fd < 0:
        return
    with namespaces.open_rtnl(netns_fd) as pod:
        for link in pod.links():
            if link.alias == leases.alias_of(digest):
                pod.delete_link(link.ifindex)


def _tidy(ipr: Rtnl, settings: Settings) -> None:
    """Remove the node's own links of parents, and routes by them, that no lease tells of."""
    held = list(leases.leases(settings.run_dir))
    children = {host_child.name_of(one.parent) for one in held}
    pods = {address for one in held for address in one.addresses}
    for link in filter(host_child.is_ours, ipr.links()):
        if link.ifname not in children:
            ipr.delete_link(link.ifindex)
            continue
        routed = {
            route.dst.network_address
            for version in (4, 6)
            for route in ipr.routes_by(link.ifindex, version)
            if route.dst.prefixlen == route.dst.max_prefixlen
        }
        host_child.remove_ways(ipr, link, routed - pods)
    leases.teardown(settings.run_dir)
