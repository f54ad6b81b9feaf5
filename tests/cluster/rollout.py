# SPDX-License-Identifier: Apache-2.0
"""What becomes of hosts and packets while pycni is installed, upgraded, taken back and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from cluster import hosts, manifests, node, release, upgrades
from cluster.bare import Rollout, bare_again
from cluster.kubectl import is_ready
from cluster.life import Running, Tell
from cluster.others import altered, another_installation, another_network
from cluster.refusals import refusals
from cluster.scene import NAMESPACE, POD_SECONDS, tear_down
from cluster.verdicts import Found, one, to_the_end
from cluster.waiting import until
from image import build, later
from pycni.lab.checks import Check

INSTALL_SECONDS = 30.0
"""From `kubectl apply` to running pods, the images being there."""


def prepare(running: Running, tell: Tell) -> Rollout:
    """Give every machine the image of this tree, and of a release to come.

    Raises PycniError, or ArchiveError if packages cannot be had.
    """
    releases = build.provide(tell=tell), later.provide(tell=tell)
    for machine in running.cluster.machines:
        for built in releases:
            node.load_image(running.cluster, machine, built.archive)
    first, coming = releases
    return Rollout(running, releases=(first.name, coming.name))


def everything(rollout: Rollout) -> Iterator[Check]:
    """All checks in order. The cluster is bare again in the end."""
    rollout.bare = hosts.take(rollout.cluster)
    yield from to_the_end(refusals, rollout)
    yield from to_the_end(install, rollout)
    if rollout.servers:
        for group in (upgrade, rollback, another_installation, another_network, altered):
            yield from to_the_end(group, rollout)
    yield one("the namespace is deleted with all in it", partial(tear_down, rollout))
    yield from to_the_end(uninstall, rollout)


def install(rollout: Rollout) -> Iterator[Check]:
    """Pods that wait for a network run soon after the manifest is applied."""
    made = _make_servers(rollout)
    begun = time.monotonic()
    release.apply(rollout.cluster, rollout.running.kubectl, image=rollout.releases[0])
    for name in made:
        until(partial(upgrades.pod_is_ready, rollout, name), f"{name} is Ready", POD_SECONDS)
    took = time.monotonic() - begun
    name = f"pods are Ready {took:.1f} s after kubectl apply, at most {INSTALL_SECONDS:g}"
    yield Check(name, passed=took <= INSTALL_SECONDS, found="that is too late")
    rollout.servers = {name: rollout.kubectl.get("pod", name) for name in made}
    yield one("pycni is rolled out on every node", partial(upgrades.wait_until_done, rollout))
    for machine in rollout.cluster.machines:
        yield one(f"{machine.name} is Ready", partial(_node_is_ready, rollout, machine.name))
    yield from upgrades.reached(rollout, rollout.servers)


def upgrade(rollout: Rollout) -> Iterator[Check]:
    """To the next release, under traffic."""
    yield from upgrades.change(rollout, "upgrade", rollout.releases[1])


def rollback(rollout: Rollout) -> Iterator[Check]:
    """To the former release, under traffic."""
    yield from upgrades.change(rollout, "rollback", rollout.releases[0])


def uninstall(rollout: Rollout) -> Iterator[Check]:
    """Nothing is left on the hosts and in the API."""
    kubectl = rollout.running.kubectl
    yield one("uninstall by the manifests", partial(_uninstall, rollout))
    left = release.remaining(rollout.cluster, kubectl)
    yield Check("pycni's objects are gone", not left, ", ".join(left))
    yield from bare_again(rollout)


def _uninstall(rollout: Rollout) -> Found:
    release.uninstall(rollout.cluster, rollout.running.kubectl, image=rollout.releases[0])
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
