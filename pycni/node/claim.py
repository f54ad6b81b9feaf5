# SPDX-License-Identifier: Apache-2.0
"""Which settings a node belongs to: the alias of the overlay device says it.

A host is one node. A second settings file, with another name, state directory or BPF file system,
would take it over: its programs would read maps that nobody fills. So setup and teardown refuse
settings that are not those of the alias. Functions run in the node's network namespace.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from loader import attach, pins
from pycni.errors import SetupError
from pycni.faults import Fault, Weight
from pycni.kernel.links import ALIAS_MAX, Link
from pycni.kernel.rtnl import Rtnl
from pycni.names import NODE_ALIAS_HEAD
from pycni.node import overlay
from pycni.node.record import Node
from pycni.settings import AGENT_SOCKET, Settings

PART = "owner"

KEYS = ("node", "state_dir", "bpffs", "run_dir")

FIXED = ("node", "state_dir", "bpffs")
"""Those that make a node another one. The run directory may change while no agent runs in it."""

SHORT = 40
"""Bytes of a value where the whole would not fit: then a hash of it stands there."""

PLAIN = "/_.~-"
"""Characters beside letters and digits that need no escape in an alias."""


@dataclass(frozen=True)
class Claim:
    """What makes a node that of one settings file."""

    node: str
    state_dir: str
    bpffs: str
    run_dir: str

    @property
    def alias(self) -> str:
        """As the alias of a link: at most ALIAS_MAX bytes."""
        values = {key: quote(getattr(self, key), safe=PLAIN) for key in KEYS}
        text = _alias(values)
        if len(text) > ALIAS_MAX:
            text = _alias({key: _shorten(value) for key, value in values.items()})
        return text


def of(settings: Settings) -> Claim:
    """What these settings claim."""
    return Claim(
        settings.node_name, str(settings.state_dir), str(settings.bpffs), str(settings.run_dir)
    )


def read(alias: str) -> dict[str, str] | None:
    """What an alias says, by key; None if it is none of ours."""
    head, *words = alias.split(" ")
    if head != NODE_ALIAS_HEAD:
        return None
    return {key: unquote(value) for key, _, value in (word.partition("=") for word in words)}


def setup(settings: Settings, ipr: Rtnl, ifindex: int) -> None:
    """Write the alias of the overlay device. Idempotent."""
    alias = of(settings).alias
    link = overlay.find(ipr)
    if link is None or link.alias != alias:
        ipr.set_alias(ifindex, alias)


def renamed(settings: Settings, links: Iterable[Link]) -> Link | None:
    """The overlay device of these settings, if somebody gave it another name. Nothing else can be
    in its place: the kernel has one VXLAN device for a port."""
    alias = of(settings).alias
    named = (link for link in links if link.vxlan is not None and link.alias == alias)
    return next((link for link in named if link.ifname != overlay.DEVICE), None)


def rename_back(settings: Settings, ipr: Rtnl) -> None:
    """Give the overlay device its name again, with which rules of nftables know it, unless another
    interface has the name. Programs and their maps know it by its number, which stays."""
    link = renamed(settings, ipr.links()) if overlay.find(ipr) is None else None
    if link is not None:
        ipr.rename(link, overlay.DEVICE)


def refuse_others(settings: Settings, ipr: Rtnl) -> None:
    """Raise SetupError if this host is the node of other settings."""
    device = overlay.find(ipr)
    found = read(device.alias) if device is not None else None
    if found is None:
        return
    differences = _differences(found, settings)
    differences.pop("node", None)  # refuse_renaming says that better
    if differences:
        raise SetupError(
            f"this host is the node {found.get('node', '?')} already, by other settings",
            details="; ".join(differences.values()),
            hint="use those settings (pycni --config FILE); to change them, first run "
            "`pycni teardown` with them",
        )
    run_dir = found.get("run_dir", str(settings.run_dir))
    if run_dir != str(settings.run_dir) and _serves(run_dir):
        raise SetupError(
            f"an agent of this node serves in {run_dir}, and run_dir is {settings.run_dir} here",
            hint="stop that agent first: the locks of two run directories know nothing of each "
            "other",
        )


def refuse_strangers(settings: Settings, ipr: Rtnl, before: Node | None) -> None:
    """Raise SetupError if programs of pycni run on this host of which these settings know nothing:
    neither a record, nor a pin. So it is also when the overlay device is gone, and its alias."""
    if before is not None or pins.current(settings.pin_root) is not None:
        return
    for link in ipr.links():
        if programs := attach.attached(ipr, link.ifindex):
            raise SetupError(
                "this host forwards already, by other settings",
                details=f"at {link.ifname} there is {' and '.join(sorted(programs))}, nothing is "
                f"pinned in {settings.pin_root}, and {settings.state_dir} has no record of a node",
                hint="use those settings (pycni --config FILE). If they are lost: `pycni teardown` "
                "cuts its pods off and removes all of it",
            )


def refuse_renaming(settings: Settings, before: Node | None) -> None:
    """Raise SetupError if this host was set up with another name, as `before`, its record, says."""
    if before is not None and before.name != settings.node_name:
        raise SetupError(
            f"this host was set up as the node {before.name}, and the settings name it "
            f"{settings.node_name}",
            hint=f'set node_name = "{before.name}". To rename the node, drain it, and run '
            "`pycni teardown` before `pycni setup`",
        )


def faults(settings: Settings, device: Link | None) -> list[Fault]:
    """Whether the overlay device that is there says that it is the node of these settings."""
    if device is None:  # which is a fault of the overlay
        return []
    found = read(device.alias)
    if found is None:
        finding = "without the alias that says whose it is"
        return [Fault(PART, overlay.DEVICE, finding, weight=Weight.DEGRADED)]
    todo = "name the node's own settings file: pycni --config FILE"
    return [
        Fault(PART, overlay.DEVICE, f"that of other settings: {text}", todo)
        for text in _differences(found, settings).values()
    ]


def _differences(found: dict[str, str], settings: Settings) -> dict[str, str]:
    """By key, in words: where an alias says another thing than settings do."""
    mine = of(settings)
    wanted = read(mine.alias) or {}
    return {
        key: f"{key} is {found[key]} there, {getattr(mine, key)} here"
        for key in FIXED
        if key in found and found[key] != wanted[key]
        and _shorten(quote(getattr(mine, key), safe=PLAIN)) != found[key]
    }  # fmt: skip


def _serves(run_dir: str) -> bool:
    """Whether an agent listens in a run directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        try:
            asker.connect(f"{run_dir}/{AGENT_SOCKET}")
        except OSError:
            return False
    return True


def _alias(values: dict[str, str]) -> str:
    return " ".join((NODE_ALIAS_HEAD, *(f"{key}={value}" for key, value in values.items())))


def _shorten(value: str) -> str:
    if len(value) <= SHORT:
        return value
    return "sha256-" + hashlib.sha256(value.encode()).hexdigest()[:32]
