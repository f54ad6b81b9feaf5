"""The endpoints table as the allocator: an address belongs to the link that its entry leads to.

An entry is inserted atomically (bpf(2), BPF_NOEXIST), so of all processes that want an address one
gets it, and no lock is held meanwhile. An entry lives as long as its link, the host end of a veth;
one without a link is swept by whoever comes first, under the lock of that address only, and what
else belongs to an address (`Belongings`) goes before its entry does. The kernel gives the number of
a link to no other before all numbers were used (dev_index_reserve, net/core/dev.c).

Works in the node's namespace; callers share the network lock while a table is open.
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
from pycni.names import NAME_HEAD

Endpoints = Table[IPAddress, Endpoint]

Belongings = Callable[[IPAddress], None]
"""Takes away what belongs to an address besides its entry; no error if there is nothing."""

log = logging.getLogger(__name__)


def reserve(table: Endpoints, address: IPAddress, endpoint: Endpoint) -> bool:
    """Take an address for a link; False if another has it. Raises DataplaneError if it is full."""
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
    belongings: Belongings,
) -> bool:
    """Give an address back; False, and nothing happens, if it is not this link's (any more)."""
    with locks.address_lock(run_dir, address):
        entry = table.get(address)
        if entry is None or entry.ifindex != ifindex:
            return False
        belongings(address)
        table.remove(address)
        return True


def sweep(table: Endpoints, *, run_dir: Path, belongings: Belongings) -> int:
    """Release every address whose link is gone; returns how many there were.

    What cannot be released is logged, and is left for the next time.
    """
    alive = {index for index, _ in socket.if_nameindex()}
    released = 0
    for address, entry in table.items():
        if entry.ifindex in alive or _is_alive(entry.ifindex):
            continue
        try:
            released += release(
                table, address, entry.ifindex, run_dir=run_dir, belongings=belongings
            )
        except PycniError as error:
            log.warning("address=%s not released error=%s", address, error)
    return released


def restore(
    table: Endpoints, addresses: Sequence[IPAddress], now: Endpoint, *, run_dir: Path
) -> int:
    """Write entries that a link has and the table has not; returns how many were wrong."""
    inserted = 0
    for address in addresses:
        with locks.address_lock(run_dir, address):
            inserted += table.insert(address, now)
    return inserted + update(table, addresses, now, run_dir=run_dir)


def update(
    table: Endpoints, addresses: Sequence[IPAddress], now: Endpoint, *, run_dir: Path
) -> int:
    """Change entries of a link to what it is now; returns how many were not so."""
    updated = 0
    for address in addresses:
        with locks.address_lock(run_dir, address):
            entry = table.get(address)
            if entry is not None and entry.ifindex == now.ifindex and entry != now:
                table.put(address, now)
                updated += 1
    return updated


def renamed(table: Endpoints) -> set[int]:
    """Links that have addresses, but no longer the name of a pod's link."""
    others = {index for index, name in socket.if_nameindex() if not name.startswith(NAME_HEAD)}
    return {entry.ifindex for _, entry in table.items()} & others


def _is_alive(ifindex: int) -> bool:
    """Asked once more: a list of links may lack one while others come and go."""
    try:
        return bool(socket.if_indextoname(ifindex))
    except OSError:
        return False
