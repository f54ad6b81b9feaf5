# SPDX-License-Identifier: Apache-2.0
"""The endpoints table as the allocator: an address belongs to the link that its entry names.

An entry is inserted atomically (bpf(2), BPF_NOEXIST): if several processes want an address, one of
them gets it, and no lock is needed. An entry lives as long as its link. If the link is gone, any
process may remove the entry, under the lock of that address only; first goes whatever depends on
the address (`Cleanup`). An address that was given back rests for a while (resting.py). The kernel
does not reuse an interface index before it has used all others (dev_index_reserve,
net/core/dev.c).

Runs in the node's network namespace; callers share the network lock while a table is open.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import islice
from pathlib import Path

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane.maps import Endpoint, Table
from pycni.errors import DataplaneError, PycniError, TryAgain
from pycni.logfmt import quoted
from pycni.names import NAME_HEAD
from pycni.pods import resting

Endpoints = Table[IPAddress, Endpoint]

Cleanup = Callable[[Sequence[IPAddress]], None]
"""Removes what depends on addresses besides their entries; no error if there is nothing."""
Claims = Callable[[int, IPAddress], bool]
"""Whether a link, by its index, may have an address."""

BATCH = 64
"""Addresses that a sweep releases at once: what depends on them is looked for once. A batch takes
some 20 ms."""
FEW_LINKS = 32

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
    owners: Mapping[IPAddress, int],
    *,
    run_dir: Path,
    clean_up: Cleanup,
    timeout: float = locks.DEADLINE,
) -> int:
    """Give addresses back, each of the link with that index; returns how many there were.

    An address that its link does not have (any more) stays as it is. So does one whose lock is not
    to be had within `timeout` seconds, if that is 0; else TryAgain is raised.
    """
    with ExitStack() as held:
        own = []
        for address in sorted(owners, key=lambda one: one.packed):  # all wait in the same order
            try:
                held.enter_context(locks.address_lock(run_dir, address, timeout=timeout))
            except TryAgain:
                if timeout:
                    raise
                continue
            entry = table.get(address)
            if entry is not None and entry.ifindex == owners[address]:
                own.append(address)
        if own:
            clean_up(own)
            resting.rest(run_dir, own)
            for address in own:
                table.remove(address)
        return len(own)


def orphans(table: Endpoints, limit: int | None = None) -> dict[IPAddress, int]:
    """The addresses whose link is gone, up to `limit`, each with the index of that link."""
    alive = {index for index, _ in socket.if_nameindex()}
    is_alive = cache(_is_alive)
    found = (
        (address, entry.ifindex)
        for address, entry in table.items()
        if entry.ifindex not in alive and not is_alive(entry.ifindex)
    )
    return dict(islice(found, limit))


def owned(table: Endpoints, ifindex: int) -> dict[IPAddress, int]:
    """The addresses of the link with that index, each with the index."""
    return {address: ifindex for address, entry in table.items() if entry.ifindex == ifindex}


def sweep(
    table: Endpoints, owners: Mapping[IPAddress, int], *, run_dir: Path, clean_up: Cleanup
) -> int:
    """Release orphans, and wait for nobody; returns how many there were.

    If they cannot be released together, each is tried; one that cannot be released is logged and
    left for the next sweep.
    """
    try:
        return release(table, owners, run_dir=run_dir, clean_up=clean_up, timeout=0)
    except PycniError as error:
        if len(owners) > 1:
            parts = ({address: index} for address, index in owners.items())
            return sum(sweep(table, one, run_dir=run_dir, clean_up=clean_up) for one in parts)
        for address in owners:
            log.warning("not released address=%s error=%s", quoted(address), quoted(error))
        return 0


def sweep_all(table: Endpoints, *, run_dir: Path, clean_up: Cleanup) -> int:
    """Release all orphans; returns how many there were."""
    released = 0
    for batch in batches(orphans(table)):
        released += sweep(table, batch, run_dir=run_dir, clean_up=clean_up)
    return released


def batches(owners: Mapping[IPAddress, int]) -> Iterator[dict[IPAddress, int]]:
    """Parts of at most BATCH addresses."""
    rest = list(owners.items())
    for start in range(0, len(rest), BATCH):
        yield dict(rest[start : start + BATCH])


def restore(
    table: Endpoints,
    addresses: Sequence[IPAddress],
    now: Endpoint,
    *,
    run_dir: Path,
    may_have: Claims,
) -> int:
    """Write the entries of a link as they should be now; returns how many were missing or wrong.

    An entry of another link stays if that link `may_have` the address.
    """
    restored = 0
    for address in addresses:
        with locks.address_lock(run_dir, address):
            if table.insert(address, now):
                restored += 1
                continue
            entry = table.get(address)
            if entry is None or entry == now:
                continue
            if entry.ifindex == now.ifindex or not may_have(entry.ifindex, address):
                table.put(address, now)
                restored += 1
    return restored


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
    """Indexes of links that do not have the name of a pod's link: if they are many, of those with
    addresses. To ask the kernel for a few links is cheaper than to read a table of thousands."""
    others = {index for index, name in socket.if_nameindex() if not name.startswith(NAME_HEAD)}
    if len(others) <= FEW_LINKS:
        return others
    return {entry.ifindex for _, entry in table.items()} & others


def _is_alive(ifindex: int) -> bool:
    """Asks the kernel again: a list of links may miss one while others come and go."""
    try:
        return bool(socket.if_indextoname(ifindex))
    except OSError:
        return False
