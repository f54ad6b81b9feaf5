# SPDX-License-Identifier: Apache-2.0
"""Records of host ports: one small file per attachment to which ports of the node lead.

A part of the lease that its link cannot hold: an alias has 255 bytes, a pod may have a thousand
ports. The nftables table alone does not do, because a firewall that reloads its rules deletes it. A
record without its lease means nothing, so a reboot needs no care. Callers hold the attachment's
lock when they write or forget.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pycni.cluster import IPAddress
from pycni.files import Mark, make_private_directory, mark_of, remove_file, replace_file
from pycni.pods.port_table import OWNER_LIMIT, PROTOCOLS, Forward
from pycni.settings import Settings

DIRECTORY = "ports"
NAME = re.compile(r"([0-9a-f]{32})\.json")
"""The digest of an attachment's key."""
TEMPORARY = re.compile(r"\.([0-9a-f]{32})\.json\.new")
"""What a writer that was killed leaves (files.replace_file)."""
PORT_MAX = 65535


@dataclass(frozen=True)
class PortRecord:
    """The forwards of one attachment."""

    digest: str
    pod: str
    """"namespace/name" as Kubernetes has it; "" if the runtime did not tell."""
    forwards: tuple[Forward, ...]

    @property
    def owner(self) -> str:
        """For messages: the pod's name, or what the forwards say."""
        return self.pod or next((one.owner for one in self.forwards), self.digest)


@dataclass(frozen=True)
class Records:
    """All records of a node."""

    by_digest: Mapping[str, PortRecord]
    broken: Mapping[Path, str]
    """Files that are no records, and why; they are left alone and count for nothing."""
    leftovers: frozenset[str]
    """Digests of all attachments that have a file, even a broken one or a part of one."""


def setup(settings: Settings) -> None:
    """Make the directory. Raises FileError."""
    make_private_directory(settings.state_dir / DIRECTORY)


def teardown(settings: Settings) -> None:
    """Remove all records, and the directory unless others have put something in it.

    Raises FileError.
    """
    for digest in read_all(settings).leftovers:
        forget(settings, digest)
    with suppress(OSError):
        (settings.state_dir / DIRECTORY).rmdir()


def write(settings: Settings, record: PortRecord) -> None:
    """Write the file of an attachment, in place of an older one. Raises FileError.

    It does not wait for the disk: what a power cut may lose is of use to no lease after it.
    """
    document = {
        "pod": record.pod,
        "owner": next((one.owner for one in record.forwards), ""),
        "ports": [
            [one.protocol, str(one.host_ip or ""), one.host_port, str(one.pod), one.pod_port]
            for one in record.forwards
        ],
    }
    content = json.dumps(document).encode()
    replace_file(_path(settings, record.digest), content, durable=False)


def forget(settings: Settings, digest: str) -> None:
    """Remove the file, even a broken one; no error if there is none. Raises FileError."""
    remove_file(_path(settings, digest))


def find(settings: Settings, digest: str) -> PortRecord | None:
    """The record of the attachment whose key has that digest; None if there is no readable one."""
    with suppress(OSError, ValueError):
        return _read(_path(settings, digest), digest)
    return None


def read_all(settings: Settings) -> Records:
    """Every record of this node, of any network."""
    found: dict[str, PortRecord] = {}
    broken: dict[Path, str] = {}
    leftovers = set()
    for path in sorted((settings.state_dir / DIRECTORY).glob("*")):
        if match := NAME.fullmatch(path.name):
            leftovers.add(match[1])
            try:
                found[match[1]] = _read(path, match[1])
            except FileNotFoundError:
                continue  # a DEL was faster
            except OSError as error:
                broken[path] = str(error.strerror)
            except ValueError as error:
                broken[path] = str(error)
        elif match := TEMPORARY.fullmatch(path.name):
            leftovers.add(match[1])
        else:
            broken[path] = "its name is not that of a record"
    return Records(found, broken, frozenset(leftovers))


def marks(settings: Settings) -> dict[Path, Mark | None]:
    """What tells each file of the directory from a later one at its place."""
    return {path: mark_of(path) for path in (settings.state_dir / DIRECTORY).glob("*")}


def digest_of(path: Path) -> str:
    """Whose record a file is, by its name; empty if it is none."""
    match = NAME.fullmatch(path.name)
    return match[1] if match else ""


def _path(settings: Settings, digest: str) -> Path:
    return settings.state_dir / DIRECTORY / f"{digest}.json"


def _read(path: Path, digest: str) -> PortRecord:
    """Raises OSError, or ValueError that says what is wrong."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    pod, owner, ports = (_member(document, key) for key in ("pod", "owner", "ports"))
    if not isinstance(pod, str) or not isinstance(owner, str) or not isinstance(ports, list):
        raise ValueError("pod and owner must be strings, ports a list")
    address = lru_cache(ip_address)
    return PortRecord(digest, pod, tuple(_forward(one, owner, address) for one in ports))


def _member(document: Any, key: str) -> Any:
    if not isinstance(document, dict) or key not in document:
        raise ValueError(f"it has no {key}")
    return document[key]


def _forward(entry: Any, owner: str, address: Callable[[str], IPAddress]) -> Forward:
    """One port. Raises ValueError."""
    try:
        protocol, host_ip, host_port, pod, pod_port = entry
        if not isinstance(pod, str) or not isinstance(host_ip, str):
            raise ValueError  # ip_address() takes numbers, too
        made = Forward(
            protocol=protocol,
            host_ip=address(host_ip) if host_ip else None,
            host_port=host_port,
            pod=address(pod),
            pod_port=pod_port,
            owner=owner[:OWNER_LIMIT],
        )
    except (TypeError, ValueError):
        raise ValueError(f"it has no port {entry!r:.100}") from None
    numbers = made.host_port, made.pod_port
    right = protocol in PROTOCOLS.values() and all(
        type(number) is int and 0 < number <= PORT_MAX for number in numbers
    )
    if not right or (made.host_ip is not None and made.host_ip.version != made.pod.version):
        raise ValueError(f"it has no port {entry!r:.100}")
    return made
