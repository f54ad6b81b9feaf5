"""Addresses for pods: which one is next, and which one was last.

`pick` decides purely, from the addresses in use; it keeps no leases, because the lease is the host
veth. `Rotation` remembers the last address of each CIDR across processes, so that a freed address
is not given to the next pod at once. Callers hold the network lock from the moment they gather
`used` until the veth is there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pycni.cluster import LONGEST_NODE_PREFIX, IPAddress, IPNetwork
from pycni.errors import FileError, InvalidPool, PoolExhausted
from pycni.files import replace_file

ROTATION_FILE = "rotation.json"

log = logging.getLogger(__name__)


def gateway(cidr: IPNetwork) -> IPAddress:
    """The pods' default gateway: the first host address of the node's pod CIDR.

    Raises InvalidPool for a CIDR with no room for a gateway and a pod.
    """
    _check_room(cidr)
    return cidr.network_address + 1


def pick(cidr: IPNetwork, used: Collection[IPAddress], last: IPAddress | None) -> IPAddress:
    """The next free address after `last`, from the first one on when the end is reached.

    Never the network address (IPv6: the subnet-router anycast address, RFC 4291, 2.6.1), the
    gateway or the IPv4 broadcast address. `used` may hold addresses of other networks. Takes time
    in the number of used addresses, whatever the size of the CIDR.
    Raises PoolExhausted, and InvalidPool for a CIDR with no room for a gateway and a pod.
    """
    first, end = _bounds(cidr)
    taken = {
        int(address)
        for address in used
        if address.version == cidr.version and first <= int(address) <= end
    }
    if len(taken) > end - first:
        raise PoolExhausted(
            f"no IP addresses available in {cidr}: {len(taken)} of {len(taken)} are in use",
            hint="remove pods from this node; a shorter node_prefix gives each node more addresses",
        )
    candidate = first
    if last is not None and last.version == cidr.version and first <= int(last) < end:
        candidate = int(last) + 1
    while candidate in taken:
        candidate = candidate + 1 if candidate < end else first
    return cidr.network_address + (candidate - int(cidr.network_address))


@dataclass(frozen=True)
class Rotation:
    """The last address handed out per CIDR, in a small file of the state directory.

    A courtesy, not a lease: a lost or unreadable file, or a full disk, only means that rotation
    begins anew, and is logged. Callers hold the network lock.
    """

    state_dir: Path

    def last(self, cidr: IPNetwork) -> IPAddress | None:
        """The address given to `remember` last; None if unknown."""
        try:
            address = ip_address(self._read()[str(cidr)])
        except (KeyError, ValueError):
            return None
        return address if address in cidr else None

    def remember(self, cidr: IPNetwork, address: IPAddress) -> None:
        """Makes `address` the one that `last` returns, for this process and every other."""
        entries = {**self._read(), str(cidr): str(address)}
        try:
            replace_file(self._path, json.dumps(entries).encode(), durable=False)
        except FileError as error:
            log.warning("rotation not saved file=%s error=%s", self._path, error)

    @property
    def _path(self) -> Path:
        return self.state_dir / ROTATION_FILE

    def _read(self) -> dict[str, str]:
        try:
            entries = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("rotation begins anew file=%s error=%s", self._path, error)
            return {}
        if not isinstance(entries, dict):
            return {}
        return {cidr: address for cidr, address in entries.items() if isinstance(address, str)}


def _bounds(cidr: IPNetwork) -> tuple[int, int]:
    """First and last address for pods, as numbers."""
    _check_room(cidr)
    broadcasts = 1 if cidr.version == 4 else 0
    return int(cidr.network_address) + 2, int(cidr.broadcast_address) - broadcasts


def _check_room(cidr: IPNetwork) -> None:
    longest = LONGEST_NODE_PREFIX[cidr.version]
    if cidr.prefixlen > longest:
        raise InvalidPool(
            f"the pod CIDR {cidr} has no room for a gateway and a pod",
            hint=f"a pod CIDR must be a /{longest} or larger",
        )
