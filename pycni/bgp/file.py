# SPDX-License-Identifier: Apache-2.0
"""BIRD's files in the run directory: its configuration, which pycni writes, and its socket.

They go with a reboot: a BIRD that starts before the agent finds no file, and announces nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from pycni.bgp import passwords, resources, service_addresses
from pycni.bgp.bird import Bird
from pycni.bgp.config import Speaker, render
from pycni.bgp.neighbours import wanted
from pycni.errors import BirdError
from pycni.files import read_regular, remove_file, replace_file
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord

NOBODY = (
    b"# Written by pycni: no sessions.\nlog stderr all;\nrouter id 0.0.0.1;\nprotocol device { }\n"
)


def config_path(settings: Settings) -> Path:
    """What BIRD is started with; there may be none."""
    return settings.run_dir / "bird.conf"


def socket_path(settings: Settings) -> Path:
    """Where BIRD listens."""
    return settings.run_dir / "bird.ctl"


def text(settings: Settings, node: Node, nodes: Iterable[NodeRecord]) -> bytes | None:
    """What the configuration must say, by all nodes of the store; None where there is to be none,
    or the store does not know this node: then it stays as it is. Raises InvalidSettings or
    FileError."""
    bgp, known = settings.bgp, {one.name: one for one in nodes}
    own = known.pop(node.name, None)
    if bgp is None or own is None:
        return None
    bgp = bgp.model_copy(update={"peers": (*bgp.peers, *resources.usable(settings).peers.values())})
    neighbours = wanted(bgp, node.name, known.values())
    lengths = {version: settings.cluster.node_prefix(version) for version in (4, 6)}
    secrets = passwords.read(neighbours)
    told = service_addresses.load(settings) or service_addresses.NOTHING
    services = tuple(map(ip_network, told.addresses))
    return render(Speaker(bgp, node, lengths, neighbours, secrets, own.extra, services)).encode()


def write(settings: Settings, content: bytes) -> bool:
    """Replace the configuration, mode 0600; whether it was another. Raises FileError."""
    path = config_path(settings)
    if _content(path) == content:
        return False
    replace_file(path, content, durable=False)
    return True


def differs(settings: Settings, content: bytes) -> bool:
    """Whether the configuration is another."""
    return _content(config_path(settings)) != content


def withdraw(settings: Settings) -> None:
    """Have BIRD take back all that it announced, and end its sessions; the file is gone then, and
    so are Services' addresses. Right also where no BIRD runs. Raises FileError."""
    service_addresses.forget(settings)
    path = config_path(settings)
    if not path.exists():
        return
    replace_file(path, NOBODY, durable=False)
    try:
        with Bird(socket_path(settings)) as bird:
            bird.configure()
    except BirdError:  # what does not run announces nothing
        pass
    remove_file(path)


def _content(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except OSError:
        return None
