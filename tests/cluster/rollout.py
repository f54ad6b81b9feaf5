# SPDX-License-Identifier: Apache-2.0
"""What becomes of hosts and packets while pycni is installed, upgraded, taken back and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from cluster import hosts, installers, manifests, node, release, upgrades
from cluster.bare import Rollout, bare_again
from cluster.installers import Manifest
from cluster.kubectl import is_ready
from cluster.life import Running, Tell
from cluster.others import altered, another_installation, another_network, newer_records
from cluster.refusals import refusals
from cluster.scene import NAMESPACE, POD_SECONDS, tear_down
from cluster.verdicts import Found, one, to_the_end
from cluster.waiting import until
from image import build, later
from pycni.lab.checks import Check

MANIFEST = "manifest"
INSTALL_SECONDS = 30.0
"""From `kubectl apply` to running pods, the images being there."""

OTHERS = (another_installation, another_network, altered, newer_records)
"""What is the same in whatever way pycni was installed."""


def prepare(running: Running, tell: Tell, by: str = MANIFEST) -> Rollout:
    """Give every machine the image of this tree, and of a release to come. `by` is of BY.

    Raises PycniError, or ArchiveError if packages cannot be had.
    """
    installer = installers.BY[by](running, tell)
    releases = build.provide(tell=tell), later.provide(tell=tell)
    for machine in running.cluster.machines:
        for built in releases:
            node.load_image(running.cluster, machine, built.archive)
    first, coming = releases
    return Rollout(running, releases=(first.name, coming.name), installer=installer)


def everything(rollout: Rollout) -> Iterator[Check]:
    """All checks in order. The cluster is bare again in the end."""
    rollout.bare = hosts.take(rollout.cluster)
    is_plain = isinstance(rollout.by, Manifest)
    if is_plain:
        yield from to_the_end(refusals, rollout)
    yield from to_the_end(install, rollout)
    if rollout.servers:
        for group in (upgrade, rollback, *OTHERS * is_plain):
            yield from to_the_end(group, rollout)
    yield one("the namespace is deleted with all in it", partial(tear_down, rollout))
    yield from to_the_end(uninstall, rollout)


def install(rollout: Rollout) -> Iterator[Check]:
    """Pods that wait for a network run soon after the manifest is applied."""
    made = _make_servers(rollout)
    begun = time.monotonic()
    rollout.by.install(rollout.releases[0])
    for name in made:
        until(partial(upgrades.pod_is_ready, rollout, name), f"{name} is Ready", POD_SECONDS)
    took = time.monotonic() - begun
    name = f"pods are Ready {took:.1f} s after it was installed, at most {INSTALL_SECONDS:g}"
    yield Check(name, passed=took <= INSTALL_SECONDS, found="that is too late")
    rollout.servers = {name: rollout.kubectl.get("pod", name) for name in made}
    yield one("pycni is rolled out on every node", partial(upgrades.wait_until_done, rollout))
    for machine in rollout.cluster.machines:
        yield one(f"{machine.name} is Ready", partial(_node_is_ready, rollout, machine.name))
    yield from upgrades.reached(rollout, rollout.servers)


def upgrade(rollout: Rollout) -> Iterator[Check]:
    """To the next release, under traffic."""
    yield from upgrades.change(rollout, "upgrade", rollout.releases[1], rollout.by.upgrade)


def rollback(rollout: Rollout) -> Iterator[Check]:
    """To the former release, under traffic."""
    yield from upgrades.change(rollout, "rollback", rollout.releases[0], rollout.by.roll_back)


def uninstall(rollout: Rollout) -> Iterator[Check]:
    """Nothing is left on the hosts and in the API."""
    kubectl = rollout.running.kubectl
    yield one("uninstall", partial(_uninstall, rollout))
    left = release.remaining(rollout.cluster, kubectl)
    yield Check("pycni's objects are gone", not left, ", ".join(left))
    yield from bare_again(rollout)


def _uninstall(rollout: Rollout) -> Found:
    rollout.by.uninstall(rollout.releases[0])
    return None


def _make_servers(rollout: Rollout) -> list[str]:
    """Two pods on each node, which wait for a network."""
    rollout.running.kubectl.apply([manifests.namespace(NAMESPACE)])
    until(lambda: rollout.kubectl.run("get", "serviceaccount", "default").returncode == 0,
          "the namespace has its service account", POD_SECONDS)  # fmt: skip
    made = [
        manifests.server(f"{letter}-{worker.name}", worker.name)
        for worker in rollout.cluster.workers
        for letter in "ab"
    ]
    rollout.kubectl.apply(made)
    return [pod["metadata"]["name"] for pod in made]


def _node_is_ready(rollout: Rollout, node: str) -> Found:
    until(lambda: is_ready(rollout.kubectl.get("node", node)), f"{node} is Ready", POD_SECONDS)
    return None
