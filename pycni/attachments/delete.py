# SPDX-License-Identifier: Apache-2.0
"""DEL: detach a pod."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from pycni import locks
from pycni.attachments import lookup, reclaim
from pycni.attachments.on_lan import detaching
from pycni.attachments.reclaim import Forget
from pycni.cni.call import Call
from pycni.cni.plugin import SECONDS
from pycni.errors import FileError
from pycni.ipam import delegation, delegation_records
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.names import host_ifname
from pycni.pods import host_end, port_records, source_rules
from pycni.settings import Settings

log = logging.getLogger(__name__)


def delete(call: Call) -> None:
    """Detach a pod. Works without agent, namespace and prevResult, and any number of times.

    The IPAM plugin's DEL comes last, when no packet can have the address any more, unless the
    plugin needs the link. What it reports is raised after everything of pycni's is gone.
    """
    settings, digest = call.settings, call.key.digest
    with Rtnl() as ipr:
        with locks.attachment_lock(settings.run_dir, digest, timeout=call.patience()) as lock:
            attached = _delete(call, ipr, lock)
        if not attached:  # its namespace may have ended, and no agent was there
            reclaim.sweep(ipr, settings, limit=reclaim.FEW, forget=call.forgetting.soon)
            detaching.sweep(ipr, settings)


def take_back(call: Call, ifindex: int) -> None:
    """Undo a whole ADD whose caller is gone, by the index of its link. Raises PycniError.

    Nothing is done if the attachment has another link by now, or none.
    """

    def is_same(ipr: Rtnl) -> bool:
        lease = lookup.find(ipr, call.settings, call.key.digest)
        return lease is not None and lease.ifindex == ifindex

    take_back_if(call, is_same)


def take_back_if(call: Call, is_same: Callable[[Rtnl], bool]) -> None:
    """Undo a whole ADD whose caller is gone, if the attachment is the same still.

    `is_same` is asked under the attachment's lock. Raises PycniError.
    """
    late = replace(call, end=time.monotonic() + SECONDS[b"DEL"])
    with (
        locks.attachment_lock(call.settings.run_dir, call.key.digest) as lock,
        Rtnl() as ipr,
    ):
        if is_same(ipr):
            _delete(late, ipr, lock)


def detach(
    ipr: Rtnl,
    settings: Settings,
    digest: str,
    *,
    netns_fd: int = -1,
    forget: Forget = reclaim.AT_ONCE,
) -> bool:
    """Remove the link, then everything its addresses have; False if there was no lease. A pod on
    the LAN has a lease of another kind.

    Callers hold the attachment's lock. `netns_fd` is the pod's namespace, -1 if it is gone: source
    rules do not go with the link.
    """
    if detaching.detach(ipr, settings, digest, netns_fd=netns_fd):
        return True
    lease = lookup.find(ipr, settings, digest)
    if lease is None:
        if ifindex := host_end.teardown(ipr, host_ifname(digest)):
            reclaim.release_link(ipr, settings, ifindex)
        _forget_ports(settings, digest)
        return False
    if lease.ruled and netns_fd >= 0:
        source_rules.teardown(netns_fd, lease.ruled)
    host_end.teardown(ipr, lease.host_ifname)
    reclaim.release(ipr, settings, lease, forget=forget)
    if lease.ports:
        _forget_ports(settings, digest)
    return True


def _delete(call: Call, ipr: Rtnl, lock: int) -> bool:
    """False if there was no lease."""
    settings, digest = call.settings, call.key.digest
    known = delegation_records.find(settings, digest)
    detached: list[bool] = []
    delegation.in_order(
        lambda: detached.append(
            detach(ipr, settings, digest, netns_fd=call.netns_fd, forget=call.forgetting.soon)
        ),
        lambda: delegation.delete(call, known, lock),
        plugin=call.conf.delegate if known is None else known.plugin,
    )
    return any(detached)


def _forget_ports(settings: Settings, digest: str) -> None:
    """The ports are closed. A file that cannot be removed is no reason to fail: it means nothing
    without the lease, and the agent tries again."""
    try:
        port_records.forget(settings, digest)
    except FileError as error:
        log.warning("record of host ports stays error=%s", quoted(error.message))
