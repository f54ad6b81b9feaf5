"""DEL: detach a pod."""

from __future__ import annotations

from pycni import locks
from pycni.attachments import lookup, reclaim
from pycni.cni.call import Call
from pycni.ipam import delegation, delegation_records
from pycni.kernel.rtnl import Rtnl
from pycni.names import host_ifname
from pycni.pods import host_end, source_rules
from pycni.pods.lease import find_lease
from pycni.settings import Settings


def delete(call: Call) -> None:
    """Detach a pod. Works without agent, namespace and prevResult, and any number of times.

    The IPAM plugin's DEL comes last, when no packet can have the address any more, unless the
    plugin needs the link. What it reports is raised after everything of pycni's is gone.
    """
    with (
        locks.attachment_lock(
            call.settings.run_dir, call.key.digest, timeout=call.patience()
        ) as lock,
        Rtnl() as ipr,
    ):
        known = delegation_records.find(call.settings, call.key.digest)
        delegation.in_order(
            lambda: detach(ipr, call.settings, call.key.digest, netns_fd=call.netns_fd),
            lambda: delegation.delete(call, known, lock),
            plugin=call.conf.delegate if known is None else known.plugin,
        )


def detach(ipr: Rtnl, settings: Settings, digest: str, *, netns_fd: int = -1) -> None:
    """Remove the link, then everything its addresses have. Callers hold the attachment's lock.

    `netns_fd` is the pod's namespace, -1 if it is gone: source rules do not go with the link.
    """
    lease = find_lease(ipr, digest) or lookup.find_renamed(ipr, settings, digest)
    if lease is None:
        host_end.teardown(ipr, host_ifname(digest))
        reclaim.sweep(ipr, settings)
        return
    if lease.ruled and netns_fd >= 0:
        source_rules.teardown(netns_fd, lease.ruled)
    host_end.teardown(ipr, lease.host_ifname)
    reclaim.release(ipr, settings, lease)
