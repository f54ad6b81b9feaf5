# SPDX-License-Identifier: Apache-2.0
"""The endpoints table as the allocator: an address belongs to the link that its entry names.

An entry is inserted atomically (bpf(2), BPF_NOEXIST): if several processes want an address, one of
them gets it, and no lock is needed. An entry lives as long as its link. If the link is gone, any
process may remove the entry, under the lock of that address only; first goes whatever depends on
the address (`Cleanup`). The kernel does not reuse an interface index before it has used all others
(dev_index_reserve, net/core/dev.c).

Runs in the node's network namespace; callers share the network lock while a table is open.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane.maps import Endpoint, Table
from pycni.errors import DataplaneError, PycniError
from pycni.logfmt import quoted
from pycni.names import NAME_HEAD

Endpoints = Table[IPAddress, Endpoint]

Cleanup = Callable[[IPAddress], None]
"""Removes what depends on an address besides its entry; no error if there is nothing."""

log = logging.getLogger(__name__)


def reserve(table: Endpoints, address: IPAddress, endpoint: Endpoint) -> bool:
    """Take an address for a link; False if another link has it.

    Raises DataplaneError if the table is full.
    """
    try:
        return table.insert(address, endpoint)
    except OSError as error:
        if error.errno not in (errno.E2BIG, errno.ENOSPC):
            raise
        raise DataplaneError(
            "the endpoints map is full",
            details=f"adding {address}: {error.strerror}",
            hint="spread the pods over more nodes",
        ) from error


def release(
    table: Endpoints,
    address: IPAddress,
    ifindex: int,
    *,
    run_dir: Path,
    clean_up: Cleanup,
) -> bool:
    """Give an address back; False, and no change, if the link does not have it (any more)."""
    with locks.address_lock(run_dir, address):
        entry = table.get(address)
        if entry is None or entry.ifindex != ifindex:
            return False
        clean_up(address)
        table.remove(address)
        return True


def sweep(table: Endpoints, *, run_dir: Path, clean_up: Cleanup) -> int:
    """Release every address whose link is gone; returns how many there were.

    An address that cannot be released is logged and left for the next sweep.
    """
    alive = {index for index, _ in socket.if_nameindex()}
    released = 0
    for address, entry in table.items():
        if entry.ifindex in alive or _is_alive(entry.ifindex):
            continue
        try:
            released += release(table, address, entry.ifindex, run_dir=run_dir, clean_up=clean_up)
        except PycniError as error:
            log.warning("not released address=%s error=%s", quoted(address), quoted(error))
    return released


def restore(
    table: Endpoints, addresses: Sequence[IPAddress], now: Endpoint, *, run_dir: Path
) -> int:
    """Write the entries of a link as they should be now; returns how many were missing or wrong."""
    inserted = 0
    for address in addresses:
        with locks.address_lock(run_dir, address):
            inserted += table.insert(address, now)
    return inserted + update(table, addresses, now, run_dir=run_dir)


def update(
    table: Endpoints, addresses: Sequence[IPAddress], now: Endpoint, *, run_dir: Path
) -> int:
    """Change the entries that a link has to `now`; returns how many were different."""
    updated = 0
    for address in addresses:
        with locks.address_lock(run_dir, address):
            entry = table.get(address)
            if entry is not None and entry.ifindex == now.ifindex and entry != now:
                table.put(address, now)
                updated += 1
    return updated


def problems(table: Endpoints, addresses: Sequence[IPAddress], now: Endpoint) -> list[str]:
    """Which entries are not as they should be now, a sentence each; changes nothing."""
    return [
        f"the endpoints map has {table.get(address)} for {address}"
        for address in addresses
        if table.get(address) != now
    ]


def renamed(table: Endpoints) -> set[int]:
    """Indexes of links that have addresses but not the name of a pod's link."""
    others = {index for index, name in socket.if_nameindex() if not name.startswith(NAME_HEAD)}
    return {entry.ifindex for _, entry in table.items()} & others


def _is_alive(ifindex: int) -> bool:
    """Asks the kernel again: a list of links may miss one while others come and go."""
    try:
        return bool(socket.if_indextoname(ifindex))
    except OSError:
        return False
