# SPDX-License-Identifier: Apache-2.0
"""A cluster without a network plugin, where one comes and goes, and its machines as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from cluster import hosts
from cluster.installers import Installer, Manifest
from cluster.scene import Scene
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab.checks import Check

SETTLE_SECONDS = 60.0
"""Until what others make for pods is gone after the pods."""


@dataclass
class Rollout(Scene):
    """A scene in a cluster that had no network plugin."""

    releases: tuple[str, str] = ("", "")
    """The images of a release and of the next one."""
    installer: Installer | None = None
    """How pycni comes, changes and goes; by the manifest if nothing else is said."""
    bare: hosts.Hosts = field(default_factory=dict)
    """The machines as they were before."""

    @property
    def by(self) -> Installer:
        return self.installer or Manifest(self.running)


def bare_again(rollout: Rollout, *, but: str = "") -> Iterator[Check]:
    """Every machine is as it was, `but` for a file; what others made for pods goes a little after
    them."""
    found: list[str] = []

    def are_bare() -> bool:
        lines = hosts.differences(rollout.bare, hosts.take(rollout.cluster))
        found[:] = [line for line in lines if not but or but not in line]
        return not found

    with suppress(PycniError):
        until(are_bare, "machines are as they were", SETTLE_SECONDS)
    for machine in rollout.cluster.machines:
        lines = [line for line in found if line.startswith(f"{machine.name}: ")]
        yield Check(f"{machine.name} is as it was before pycni", not lines, "; ".join(lines))
