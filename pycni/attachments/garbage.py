"""GC: everything of one network goes that the runtime does not list as valid.

Goes on after an error and tells of all at the end. An attachment that somebody is working on is
left to them. Source: CNI spec 1.1.0, section 2 "GC".
"""

from __future__ import annotations

from contextlib import ExitStack

from pycni import locks
from pycni.attachments import lifecycle, upkeep
from pycni.cni.call import Call
from pycni.errors import GarbageLeft, PycniError, TryAgain
from pycni.ipam import delegate, delegation_records
from pycni.kernel.rtnl import Rtnl
from pycni.names import AttachmentKey, host_ifname
from pycni.pods.lease import leases


def collect(call: Call) -> None:
    """Detach what is not valid, then have the IPAM plugin do the same.

    Without a list (some runtimes send none) only what has no link any more is cleared away. Raises
    GarbageLeft, or what the IPAM plugin reported.
    """
    valid = call.conf.valid_attachments()
    problems = []
    with Rtnl() as ipr:
        if valid is not None:
            kept = {AttachmentKey(call.conf.name, *one).digest for one in valid}
            for digest in _attached(call, ipr) - kept:
                try:
                    _remove(call, ipr, digest)
                except (PycniError, OSError) as error:
                    problems.append(f"{host_ifname(digest)}: {error}")
        upkeep.sweep(ipr, call.settings)
        problems += upkeep.follow_all(ipr, call.settings)
    delegation_records.release_orphans(call.settings)
    refused = _forward(call)
    if problems:
        if refused is not None:
            problems.append(f"{call.conf.delegate}: {refused}")
        raise GarbageLeft(
            "not all that is no longer valid could be removed", details="; ".join(problems)
        )
    if refused is not None:
        raise refused


def _attached(call: Call, ipr: Rtnl) -> set[str]:
    """Digests of all attachments to the network: those with a link, and those with a delegation."""
    network = call.conf.name
    linked = {lease.key_digest for lease in leases(ipr) if lease.is_of(network)}
    recorded = delegation_records.recorded(call.settings)
    return linked | {one.key.digest for one in recorded if one.key.network == network}


def _remove(call: Call, ipr: Rtnl, digest: str) -> None:
    settings = call.settings
    with ExitStack() as held:
        try:
            lock = held.enter_context(locks.attachment_lock(settings.run_dir, digest, timeout=0))
        except TryAgain:
            return  # an ADD or DEL is at work, and knows better
        known = delegation_records.find(settings, digest)

        def release() -> None:
            if known is not None:
                delegation_records.release(
                    settings, known, env=known.env_of_del, lock=lock, timeout=call.left()
                )

        delegation_records.in_order(
            lambda: lifecycle.detach(ipr, settings, digest),
            release,
            plugin="" if known is None else known.plugin,
        )


def _forward(call: Call) -> PycniError | None:
    """The IPAM plugin's GC; what it reports is returned, to be raised after our own."""
    if not call.conf.delegate:
        return None
    try:
        delegate.execute(
            "GC",
            call.conf.delegate,
            env=call.env,
            stdin=call.stdin,
            lock=None,
            timeout=call.left(),
        )
    except PycniError as error:
        return error
    return None
