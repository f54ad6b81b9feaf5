# SPDX-License-Identifier: Apache-2.0
"""Delegation: another IPAM plugin gives an attachment its addresses, and takes them back.

A record (delegation_records.py) is written before the plugin's ADD and removed after its DEL, so
the addresses can be released even if the ADD is killed in between. Callers hold the attachment's
lock and pass its descriptor `lock` on to the plugin.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from pycni import locks
from pycni.cni.call import Call
from pycni.cni.netconf import DHCP
from pycni.errors import (
    DelegateError,
    InvalidConfig,
    InvalidParameter,
    MissingPlugin,
    PycniError,
    TryAgain,
)
from pycni.ipam import delegation_records, ipam_plugin
from pycni.ipam.delegation_records import Delegation
from pycni.ipam.ipam_result import IpamResult
from pycni.kernel.rtnl import Rtnl
from pycni.lan import leases as lan_leases
from pycni.logfmt import quoted
from pycni.names import AttachmentKey
from pycni.pods.lease import leases
from pycni.settings import Settings

RELEASE_SECONDS = 10.0
"""For the DEL of an IPAM plugin outside of a call."""

log = logging.getLogger(__name__)


def teardown(settings: Settings) -> None:
    """Release the delegations that have no link; remove the records' directory if none is left."""
    release_orphans(settings)
    delegation_records.teardown(settings)


def add(call: Call, lock: int, undo: ExitStack) -> IpamResult:
    """The addresses from the plugin that the configuration names; its DEL goes onto `undo`.

    The attachment must not exist yet: the DEL would free its addresses. Raises PycniError.
    """
    delegation = Delegation(call.key, call.conf.delegate, call.env, call.stdin)
    delegation_records.record(call.settings, delegation)  # first: we may be killed at any time
    try:
        given = ipam_plugin.add(
            delegation.plugin,
            call.conf.cni_version,
            env=call.env,
            stdin=call.stdin,
            lock=lock,
            timeout=call.left(),
        )
    except (DelegateError, InvalidConfig, InvalidParameter):  # it gave nothing, or did not run
        delegation_records.forget(call.settings, call.key.digest)
        raise
    except BaseException:
        _take_back(call, delegation, lock)
        raise
    undo.callback(_take_back, call, delegation, lock)
    return IpamResult(given.ips, given.routes, given.dns)


def delete(call: Call, known: Delegation | None, lock: int) -> None:
    """The plugin's DEL for the runtime's DEL; with what its ADD got, if that is `known`.

    Raises PycniError.
    """
    if known is not None:
        release(call.settings, known, env=call.env, lock=lock, timeout=call.left())
    elif call.conf.delegate:
        with suppress(MissingPlugin):  # nothing was recorded, so it has nothing to take back
            forward("DEL", call, lock=lock)
        # a half-written record of an ADD that was killed
        delegation_records.forget(call.settings, call.key.digest)


def forward(command: str, call: Call, *, lock: int | None = None) -> None:
    """Run the configured plugin, if there is one, with the runtime's own call.

    Raises what the plugin reports, and as ipam_plugin.execute does.
    """
    if call.conf.delegate:
        ipam_plugin.execute(
            command,
            call.conf.delegate,
            env=call.env,
            stdin=call.stdin,
            lock=lock,
            timeout=call.left(),
        )


def release(
    settings: Settings,
    delegation: Delegation,
    *,
    env: Mapping[str, str],
    lock: int,
    timeout: float = RELEASE_SECONDS,
) -> None:
    """The plugin's DEL, then forget the record. Raises PycniError and keeps it if the DEL failed.

    TryAgain says that the plugin is not installed, or no longer.
    """
    try:
        ipam_plugin.execute(
            "DEL", delegation.plugin, env=env, stdin=delegation.stdin, lock=lock, timeout=timeout
        )
    except MissingPlugin as error:
        raise TryAgain(
            f"the addresses of {delegation.key.ifname} cannot be released: {error.message}",
            details=error.details,
            hint="install the IPAM plugin again",
        ) from error
    delegation_records.forget(settings, delegation.key.digest)


def in_order(detach: Callable[[], object], release: Callable[[], None], *, plugin: str) -> None:
    """Both steps of a DEL; the second runs even if the first fails. Raises what fails.

    An address is free once no packet can have it, so the link goes first; except with `dhcp`,
    whose plugin needs the link to release the address.
    """
    first, second = (release, detach) if plugin == DHCP else (detach, release)
    with ExitStack() as later:
        later.callback(second)
        first()


def release_orphans(settings: Settings) -> int:
    """Release the delegations that have no link, or on the LAN no lease; returns how many there
    were.

    Their attachments ended without a DEL: by a reboot, or with their namespace. An attachment whose
    lock somebody holds is skipped. Failures are logged. Half-written records go, too.
    """
    released = 0
    for delegation in delegation_records.recorded(settings):
        key = delegation.key
        if _has_link(key) or lan_leases.find(settings.run_dir, key.digest):
            continue
        try:
            with locks.attachment_lock(settings.run_dir, key.digest, timeout=0) as lock:
                again = delegation_records.find(settings, key.digest)
                held = lan_leases.find(settings.run_dir, key.digest)
                if again is None or held or _has_link(key) or _is_renamed(key.digest):
                    continue
                release(settings, again, env=again.env_of_del, lock=lock)
                released += 1
        except PycniError as error:
            _log_failure(delegation, error)
    for digest in delegation_records.half_written(settings):
        _forget_half_written(settings, digest)
    return released


def _forget_half_written(settings: Settings, digest: str) -> None:
    """Of an ADD that was killed before it called the plugin."""
    with (
        suppress(PycniError),
        locks.attachment_lock(settings.run_dir, digest, timeout=0),
    ):
        if delegation_records.find(settings, digest) is None:
            delegation_records.forget(settings, digest)


def _take_back(call: Call, delegation: Delegation, lock: int) -> None:
    """The plugin's DEL as an undo. If it fails the record stays, for the runtime's DEL or the
    agent."""
    try:
        release(call.settings, delegation, env=call.env, lock=lock)
    except PycniError as error:
        _log_failure(delegation, error)


def _log_failure(delegation: Delegation, error: PycniError) -> None:
    log.warning(
        "not released plugin=%s container=%s error=%s",
        quoted(delegation.plugin),
        quoted(delegation.key.container_id),
        quoted(error),
    )


def _has_link(key: AttachmentKey) -> bool:
    try:
        return socket.if_nametoindex(key.host_ifname) > 0
    except OSError:
        return False


def _is_renamed(digest: str) -> bool:
    """Whether the link exists under another name; looks at all links."""
    with Rtnl() as ipr:
        return any(lease.key_digest == digest for lease in leases(ipr))
