# SPDX-License-Identifier: Apache-2.0
"""Pools of addresses for pods: which addresses there are, and which one is next.

A pool keeps no leases: the caller's `claim` takes an address, or says that it is in use. `Rotation`
remembers the last address of each pool across processes, so that a freed address is given again
only after all others. In a pool that is nearly full this may be at once, so addresses also rest
(pods/resting.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from pycni.cluster import IPAddress, IPNetwork, check_room
from pycni.errors import FileError, PoolExhausted
from pycni.files import alone_in, remove_file, replace_file
from pycni.logfmt import quoted

ROTATION_FILE = "rotation.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """The addresses of one IP version that pods may be given."""

    name: str
    """For messages; Rotation's key."""
    version: int
    spans: tuple[tuple[int, int], ...]
    """First and last address, as numbers; they do not overlap."""

    def without(self, networks: Iterable[IPNetwork]) -> Pool:
        """This pool without the addresses of some networks."""
        spans = list(self.spans)
        for network in networks:
            if network.version == self.version:
                first, last = int(network.network_address), int(network.broadcast_address)
                spans = [piece for span in spans for piece in _cut_out(span, first, last)]
        return replace(self, spans=tuple(spans))


def node_pool(cidr: IPNetwork) -> Pool:
    """A network of a node without the network address (IPv6: the subnet-router anycast address,
    RFC 4291, 2.6.1), the gateway and the IPv4 broadcast address. Raises InvalidPool."""
    check_room(cidr)
    broadcasts = 1 if cidr.version == 4 else 0
    span = (int(cidr.network_address) + 2, int(cidr.broadcast_address) - broadcasts)
    return Pool(str(cidr), cidr.version, (span,))


def ranges_pool(version: int, ranges: Iterable[tuple[IPAddress, IPAddress]]) -> Pool:
    """From the first to the last address of each range, one range after the other."""
    taken: list[tuple[int, int]] = []
    names = []
    for start, end in ranges:
        pieces = [(int(start), int(end))]
        for first, last in taken:
            pieces = [left for piece in pieces for left in _cut_out(piece, first, last)]
        taken += pieces
        names.append(f"{start}-{end}")
    return Pool(", ".join(names), version, tuple(taken))


def take(
    pool: Pool,
    last: IPAddress | None,
    claim: Callable[[IPAddress], bool],
    *,
    since: Callable[[IPAddress], int | None] = lambda _: None,
) -> IPAddress:
    """As `take_of`, of one pool; `last` is the address that was taken last."""
    return take_of([pool], lambda _: last, claim, since=since)[1]


def take_of(
    pools: Sequence[Pool],
    last: Callable[[Pool], IPAddress | None],
    claim: Callable[[IPAddress], bool],
    *,
    since: Callable[[IPAddress], int | None] = lambda _: None,
) -> tuple[Pool, IPAddress]:
    """The first address after the pool's `last` that `claim` takes, and its pool; after the pool's
    end, from its beginning, and then of the next pool.

    Addresses that rest come last, the longest-rested first: `since` tells when an address was given
    back, None if it does not rest. Tries one address after the other, so the time grows with the
    number of addresses in use. Raises PoolExhausted if `claim` takes none.
    """
    asked = 0
    resting: list[tuple[int, IPAddress, Pool]] = []
    for pool in pools:
        for address in _from(pool, last(pool)):
            given_back = since(address)
            if given_back is not None:
                resting.append((given_back, address, pool))
                continue
            if claim(address):
                return pool, address
            asked += 1
    for _, address, pool in sorted(resting, key=lambda one: one[:2]):
        if claim(address):
            return pool, address
        asked += 1
    names = ", ".join(pool.name for pool in pools)
    raise PoolExhausted(
        f"no IP addresses available in {names}: {asked} of {asked} are in use",
        hint="remove pods from this node; a shorter node_prefix gives each node more addresses",
    )


@dataclass(frozen=True)
class Rotation:
    """The last address handed out per pool, in a small file of the state directory.

    Not a lease: if the file is lost, unreadable or cannot be written, rotation begins anew and a
    warning is logged. If several processes write at once, one wins.
    """

    state_dir: Path

    def last(self, pool: Pool) -> IPAddress | None:
        """The address that was remembered last; None if unknown."""
        try:
            address = ip_address(self._read()[pool.name])
        except (KeyError, ValueError):
            return None
        return address if address.version == pool.version else None

    def remember(self, latest: Mapping[str, IPAddress]) -> None:
        """Keep the last address of each pool, by the pool's name."""
        new = {name: str(address) for name, address in latest.items()}
        try:
            with alone_in(self.state_dir) as alone:
                if alone:
                    entries = json.dumps(self._read() | new).encode()
                    replace_file(self._path, entries, durable=False)
        except FileError as error:
            log.warning("rotation not saved file=%s error=%s", quoted(self._path), quoted(error))

    def forget(self) -> None:
        """Remove the file, for a host that is no node any more. Raises FileError."""
        remove_file(self._path)

    @property
    def _path(self) -> Path:
        return self.state_dir / ROTATION_FILE

    def _read(self) -> dict[str, str]:
        try:
            entries = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("rotation begins anew file=%s error=%s", quoted(self._path), quoted(error))
            return {}
        if not isinstance(entries, dict):
            return {}
        return {cidr: address for cidr, address in entries.items() if isinstance(address, str)}


def _from(pool: Pool, latest: IPAddress | None) -> Iterator[IPAddress]:
    """Every address of the pool once, those after `latest` first."""
    last = None if latest is None else int(latest)
    factory = IPv4Address if pool.version == 4 else IPv6Address
    ordered = list(pool.spans)
    for at, (first, end) in enumerate(pool.spans):
        if last is not None and first <= last <= end:
            ordered = [(last + 1, end), *ordered[at + 1 :], *ordered[:at], (first, last)]
    for first, end in ordered:
        yield from map(factory, range(first, end + 1))


def _cut_out(span: tuple[int, int], first: int, last: int) -> Iterator[tuple[int, int]]:
    if span[0] < first:
        yield span[0], min(span[1], first - 1)
    if span[1] > last:
        yield max(span[0], last + 1), span[1]
