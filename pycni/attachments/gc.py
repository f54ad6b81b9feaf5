# SPDX-License-Identifier: Apache-2.0
"""GC: remove every attachment of one network that the runtime does not list as valid.

Goes on after an error and reports all errors at the end. Comes last to an attachment whose lock
somebody holds, and waits for it: the agent may be about to try the same, and fail. Source: CNI spec
1.1.0, section 2 "GC".
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack

from pycni import locks
from pycni.attachments import reclaim, refresh
from pycni.attachments.delete import detach
from pycni.attachments.on_lan import detaching
from pycni.cni.call import Call
from pycni.errors import GarbageLeft, PycniError, TryAgain
from pycni.ipam import delegation, delegation_records
from pycni.kernel.rtnl import Rtnl
from pycni.lan import leases as lan_leases
from pycni.names import AttachmentKey, host_ifname
from pycni.pods.lease import leases

PATIENCE = 5.0
"""Seconds that one GC waits, in all, for others that are at work on attachments to remove."""


def collect(call: Call) -> None:
    """Detach what is not valid, then have the IPAM plugin do the same.

    Some runtimes send no list: then only what has no link any more is removed. Raises GarbageLeft,
    or what the IPAM plugin reported.
    """
    valid = call.conf.valid_attachments()
    problems = []
    with Rtnl() as ipr:
        if valid is not None:
            kept = {AttachmentKey(call.conf.name, *one).digest for one in valid}
            problems += _remove_all(call, ipr, _attached(call, ipr) - kept)
        reclaim.sweep(ipr, call.settings, forget=call.forgetting.soon)
        detaching.sweep(ipr, call.settings)
        problems += refresh.refresh_all(ipr, call.settings)
    delegation.release_orphans(call.settings)
    try:
        delegation.forward("GC", call)
    except PycniError as error:
        if not problems:
            raise
        problems.append(f"{call.conf.delegate}: {error}")
    if problems:
        raise GarbageLeft(
            "not all that is no longer valid could be removed",
            details="; ".join(problems),
            hint="mend what the details name; the next GC tries again",
        )


def _attached(call: Call, ipr: Rtnl) -> set[str]:
    """Digests of all attachments to the network: those with a link, and those with a delegation."""
    network = call.conf.name
    linked = {lease.key_digest for lease in leases(ipr) if lease.is_of(network)}
    linked |= {
        lease.key.digest
        for lease in lan_leases.leases(call.settings.run_dir)
        if lease.network == network
    }
    recorded = delegation_records.recorded(call.settings)
    return linked | {one.key.digest for one in recorded if one.key.network == network}


def _remove_all(call: Call, ipr: Rtnl, digests: Iterable[str]) -> list[str]:
    """What could not be removed, and why. Those whose lock somebody holds come last."""
    problems, busy = [], []
    for digest in digests:
        try:
            if not _remove(call, ipr, digest, timeout=0):
                busy.append(digest)
        except (PycniError, OSError) as error:
            problems.append(f"{host_ifname(digest)}: {error}")
    end = time.monotonic() + min(PATIENCE, call.left())
    for digest in busy:
        try:
            if not _remove(call, ipr, digest, timeout=max(0.0, end - time.monotonic())):
                problems.append(f"{host_ifname(digest)}: another process is at work on it")
        except (PycniError, OSError) as error:
            problems.append(f"{host_ifname(digest)}: {error}")
    return problems


def _remove(call: Call, ipr: Rtnl, digest: str, *, timeout: float) -> bool:
    """False if somebody holds the attachment's lock for longer than `timeout` seconds."""
    settings = call.settings
    with ExitStack() as held:
        try:
            lock = held.enter_context(
                locks.attachment_lock(settings.run_dir, digest, timeout=timeout)
            )
        except TryAgain:
            return False
        known = delegation_records.find(settings, digest)

        def release() -> None:
            if known is not None:
                delegation.release(
                    settings, known, env=known.env_of_del, lock=lock, timeout=call.left()
                )

        delegation.in_order(
            lambda: detach(ipr, settings, digest, forget=call.forgetting.soon),
            release,
            plugin="" if known is None else known.plugin,
        )
    return True
