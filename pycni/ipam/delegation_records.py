"""What is delegated: one small file per attachment whose addresses another plugin keeps.

The one exception to "the kernel is the database" (docs/architecture.md, D4), because an IPAM plugin
has a state of its own, on disk, that no link's end releases. The file is written before the plugin
is first executed and removed after its DEL, which gets what its ADD got, whatever has become of the
network configuration since. Callers hold the attachment's lock.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from pycni import locks
from pycni.cni.netconf import DHCP
from pycni.errors import MissingPlugin, PycniError, TryAgain
from pycni.files import make_private_directory, remove_file, replace_file
from pycni.ipam import delegate
from pycni.kernel.rtnl import Rtnl
from pycni.names import AttachmentKey
from pycni.pods.lease import leases
from pycni.settings import Settings

DIRECTORY = "delegated"
RELEASE_SECONDS = 10.0
"""For the DEL of an IPAM plugin outside of a call."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delegation:
    """One attachment's addresses are kept by `plugin`."""

    key: AttachmentKey
    plugin: str
    env: Mapping[str, str]
    """The CNI_* variables of ADD."""
    stdin: bytes
    """Of ADD."""

    @property
    def env_of_del(self) -> dict[str, str]:
        """For a DEL that no runtime asked for: the namespace may be somebody else's by now."""
        return {**os.environ, **self.env, "CNI_NETNS": ""}


def setup(settings: Settings) -> None:
    """Make the directory. Raises FileError."""
    make_private_directory(settings.state_dir / DIRECTORY)


def teardown(settings: Settings) -> None:
    """Release what no link stands for, and remove the directory unless some of it could not be."""
    release_orphans(settings)
    with suppress(OSError):
        (settings.state_dir / DIRECTORY).rmdir()


def record(settings: Settings, delegation: Delegation) -> None:
    """Write the file, durably. Raises FileError."""
    content = {
        "network": delegation.key.network,
        "container_id": delegation.key.container_id,
        "ifname": delegation.key.ifname,
        "plugin": delegation.plugin,
        "env": {k: v for k, v in delegation.env.items() if k.startswith("CNI_")},
        "stdin": base64.b64encode(delegation.stdin).decode(),
    }
    replace_file(_path(settings, delegation.key.digest), json.dumps(content).encode())


def find(settings: Settings, digest: str) -> Delegation | None:
    """What was recorded for the attachment whose key has that digest; None if nothing readable."""
    return _read(_path(settings, digest))


def recorded(settings: Settings) -> Iterator[Delegation]:
    """Every delegation of this node, of any network."""
    for path in sorted((settings.state_dir / DIRECTORY).glob("*.json")):
        found = _read(path)
        if found is not None:
            yield found


def forget(settings: Settings, key: AttachmentKey) -> None:
    """Remove the file, half written or whole; no error if there is none. Raises FileError."""
    remove_file(_path(settings, key.digest))


def release(
    settings: Settings,
    delegation: Delegation,
    *,
    env: Mapping[str, str],
    lock: int,
    timeout: float = RELEASE_SECONDS,
) -> None:
    """The plugin's DEL, then forget. Raises PycniError and keeps the file if that failed.

    TryAgain says that the plugin is not installed (any more).
    """
    try:
        delegate.execute(
            "DEL", delegation.plugin, env=env, stdin=delegation.stdin, lock=lock, timeout=timeout
        )
    except MissingPlugin as error:
        raise TryAgain(
            f"the addresses of {delegation.key.ifname} cannot be released: {error.message}",
            details=error.details,
            hint="install the IPAM plugin again",
        ) from error
    forget(settings, delegation.key)


def in_order(detaching: Callable[[], None], releasing: Callable[[], None], *, plugin: str) -> None:
    """Both steps of a DEL, the second whatever comes of the first; what fails is raised.

    An address is free when no packet can have it any more, unless its plugin needs the link.
    """
    first, second = (releasing, detaching) if plugin == DHCP else (detaching, releasing)
    with ExitStack() as later:
        later.callback(second)
        first()


def release_orphans(settings: Settings) -> int:
    """Release what no link stands for; returns how many there were.

    For attachments that ended without a DEL: by a reboot, or with their namespace. One that is
    being worked on is passed over; failures are logged.
    """
    released = 0
    for delegation in recorded(settings):
        key = delegation.key
        if _has_link(key):
            continue
        try:
            with locks.attachment_lock(settings.run_dir, key.digest, timeout=0) as lock:
                again = find(settings, key.digest)
                if again is None or _has_link(key) or _is_renamed(key.digest):
                    continue
                release(settings, again, env=again.env_of_del, lock=lock)
                released += 1
        except PycniError as error:
            log.warning("plugin=%s container=%s not released error=%s",
                        delegation.plugin, key.container_id, error)  # fmt: skip
    return released


def _has_link(key: AttachmentKey) -> bool:
    try:
        return socket.if_nametoindex(key.host_ifname) > 0
    except OSError:
        return False


def _is_renamed(digest: str) -> bool:
    """Whether there is a link all the same; takes a look at all of them."""
    with Rtnl() as ipr:
        return any(lease.key_digest == digest for lease in leases(ipr))


def _path(settings: Settings, digest: str) -> Path:
    return settings.state_dir / DIRECTORY / f"{digest}.json"


def _read(path: Path) -> Delegation | None:
    try:
        found = json.loads(path.read_bytes())
        return Delegation(
            AttachmentKey(found["network"], found["container_id"], found["ifname"]),
            found["plugin"],
            dict(found["env"]),
            base64.b64decode(found["stdin"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("file=%s cannot be read error=%r", path, error)
        return None
