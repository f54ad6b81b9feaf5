# SPDX-License-Identifier: Apache-2.0
"""Records of delegations: one small file per attachment whose addresses another plugin gave.

This is the one exception to "the kernel is the database" (docs/decisions.md, D4): an IPAM plugin
keeps its state on disk, and no link that ends releases it. The file holds what the plugin's DEL
needs, which is what its ADD got, whatever has become of the network configuration since. Callers
hold the attachment's lock.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pycni import files
from pycni.files import make_private_directory, remove_file, replace_file
from pycni.logfmt import quoted
from pycni.names import AttachmentKey
from pycni.settings import Settings

DIRECTORY = "delegated"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delegation:
    """`plugin` gave the attachment its addresses, or is about to."""

    key: AttachmentKey
    plugin: str
    env: Mapping[str, str]
    """The CNI_* variables of ADD."""
    stdin: bytes
    """Of ADD."""

    @property
    def env_of_del(self) -> dict[str, str]:
        """The environment of a DEL that no runtime asked for. It names no namespace: by now the
        path may lead to another pod's."""
        return {**os.environ, **self.env, "CNI_NETNS": ""}


def setup(settings: Settings) -> None:
    """Make the directory. Raises FileError."""
    make_private_directory(settings.state_dir / DIRECTORY)


def teardown(settings: Settings) -> None:
    """Remove the directory, unless it still has records."""
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
    """The record of the attachment whose key has that digest; None if there is no readable one."""
    return _read(_path(settings, digest))


def recorded(settings: Settings) -> Iterator[Delegation]:
    """Every delegation of this node, of any network."""
    for path in sorted((settings.state_dir / DIRECTORY).glob("*.json")):
        found = _read(path)
        if found is not None:
            yield found


def half_written(settings: Settings) -> list[str]:
    """Digests by the names of files whose writers are at work, or were killed."""
    return [path.stem for path in files.half_written(settings.state_dir / DIRECTORY)]


def forget(settings: Settings, digest: str) -> None:
    """Remove the file of the attachment whose key has that digest, even a half-written one; no
    error if there is none. Raises FileError."""
    remove_file(_path(settings, digest))


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
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        log.warning("record not read file=%s error=%s", quoted(path), quoted(repr(error)))
        return None
