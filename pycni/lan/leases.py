# SPDX-License-Identifier: Apache-2.0
"""Leases of pods on the LAN: one small file per pod in the run directory, and the pod's link.

The link is in the pod's namespace, where nothing of the node can stand beside it. So the file says
which addresses the pod has and where its link is: the number that the namespace has here, and the
index in it. The kernel says whether that is still so (`is_alive`): the number ends with the
namespace, and the link's alias tells one of ours from any other. The run directory ends with the
boot, as links do.

Callers that write hold the attachment's lock and the LAN's. Runs in the node's network namespace.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

from pycni import files
from pycni.cluster import IPAddress
from pycni.files import remove_file, replace_file
from pycni.kernel.links import Link
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.lan.devices import DEVICES
from pycni.logfmt import quoted
from pycni.names import ALIAS_HEAD, AttachmentKey

DIRECTORY = "lan"
"""In the run directory."""
INT_MAX = 2**31 - 1
"""Of numbers of namespaces, and of indexes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanLease:
    """One pod on the LAN."""

    network: str
    container_id: str
    ifname: str
    device: str
    """A key of devices.DEVICES."""
    mode: str
    parent: str
    """Name of the interface that it is on."""
    netnsid: int
    """Of the pod's namespace, as this one numbers it."""
    ifindex: int = 0
    """Of the link in the pod; 0: its ADD has not made it yet."""
    addresses: tuple[IPAddress, ...] = ()
    rules: tuple[int, ...] = ()
    """IP versions whose addresses have a routing table of their own in the pod."""

    @property
    def key(self) -> AttachmentKey:
        """The attachment."""
        return AttachmentKey(self.network, self.container_id, self.ifname)

    @property
    def alias(self) -> str:
        """Of the link."""
        return alias_of(self.key.digest)

    @property
    def ruled(self) -> list[IPAddress]:
        """The addresses that have a routing table of their own in the pod."""
        return [address for address in self.addresses if address.version in self.rules]


def write(run_dir: Path, lease: LanLease) -> None:
    """Write the file, or write it again. Raises FileError."""
    content = asdict(lease) | {"addresses": [str(address) for address in lease.addresses]}
    path = _path(run_dir, lease.key.digest)
    replace_file(path, json.dumps(content).encode(), durable=False)


def forget(run_dir: Path, digest: str) -> None:
    """Remove the file; no error if there is none. Raises FileError."""
    remove_file(_path(run_dir, digest))


def teardown(run_dir: Path) -> None:
    """Remove the directory, unless it still has leases."""
    with suppress(OSError):
        (run_dir / DIRECTORY).rmdir()


def find(run_dir: Path, digest: str) -> LanLease | None:
    """The lease of the attachment whose key has that digest, or None."""
    return _read(_path(run_dir, digest))


def leases(run_dir: Path) -> Iterator[LanLease]:
    """Every lease of this node, of any network."""
    for path in sorted((run_dir / DIRECTORY).glob("*.json")):
        found = _read(path)
        if found is not None:
            yield found


def link_of(ipr: Rtnl, lease: LanLease) -> Link | None:
    """The pod's link, whatever its name; None if it or its namespace is gone.

    Of a lease whose ADD was killed it may have the name that it had at first.
    """
    try:
        if lease.ifindex:
            link = ipr.link_at(lease.ifindex, netnsid=lease.netnsid)
            return link if link is not None and link.alias == lease.alias else None
        return ipr.link(lease.key.host_ifname, netnsid=lease.netnsid)
    except NetlinkError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def is_alive(ipr: Rtnl, lease: LanLease) -> bool:
    """Whether the pod's link is there. Before its ADD has made it, no lease is alive."""
    return bool(lease.ifindex) and link_of(ipr, lease) is not None


def alias_of(digest: str) -> str:
    """Of the link of the attachment whose key has that digest."""
    return f"{ALIAS_HEAD} key={digest}"


def is_left(run_dir: Path, digest: str) -> bool:
    """Whether there is a file of that attachment, readable or not, or what a killed ADD left: a
    file that is half written, or an empty directory."""
    return _path(run_dir, digest).exists() or digest in half_written(run_dir) or is_empty(run_dir)


def half_written(run_dir: Path) -> list[str]:
    """Digests by the names of files whose writers are at work, or were killed."""
    return [path.stem for path in files.half_written(run_dir / DIRECTORY)]


def is_empty(run_dir: Path) -> bool:
    """Whether there is a directory without any file."""
    with suppress(OSError):
        return not any((run_dir / DIRECTORY).iterdir())
    return False


def unreadable(run_dir: Path) -> Iterator[str]:
    """Digests by the names of files that cannot be read."""
    for path in sorted((run_dir / DIRECTORY).glob("*.json")):
        if _read(path) is None:
            yield path.stem


def _path(run_dir: Path, digest: str) -> Path:
    return run_dir / DIRECTORY / f"{digest}.json"


def _read(path: Path) -> LanLease | None:
    try:
        found = json.loads(path.read_bytes())
        found["addresses"] = tuple(map(ip_address, found["addresses"]))
        found["rules"] = tuple(found["rules"])
        return _checked(LanLease(**found), path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        log.warning("lease not read file=%s error=%s", quoted(path), quoted(repr(error)))
        return None


def _checked(lease: LanLease, path: Path) -> LanLease:
    """Raises ValueError or TypeError for what no ADD has written: one such file must not fail the
    calls of all other pods."""
    numbers = (lease.netnsid, lease.ifindex, *lease.rules)
    if (
        lease.key.digest != path.stem
        or lease.mode not in DEVICES[lease.device].modes
        or not isinstance(lease.parent, str)
        or not all(isinstance(one, int) and 0 <= one <= INT_MAX for one in numbers)
    ):
        raise ValueError("a field has a value that none can have")
    return lease
