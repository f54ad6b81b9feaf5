# SPDX-License-Identifier: Apache-2.0
"""What others do on nodes that pycni serves: a second installation, another network, an edit; and
what a release to come writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from cluster import network, release, upgrades
from cluster.bare import Rollout
from cluster.kubectl import Json
from cluster.machine import Machine
from cluster.network import NAMESPACE
from cluster.refusals import GONE_SECONDS, on_one_node, wait_for_words
from cluster.scene import POD_SECONDS
from cluster.verdicts import Found, one
from cluster.waiting import until
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode

SECOND = "pycni-second"
REFUSED = ("another agent of pycni runs on this host", "a node has one installation")
OTHER_LIST = "/etc/cni/net.d/05-other.conflist"
OTHER_NETWORK = {"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "loopback"}]}
MEND_SECONDS = 60.0
UNUSED = "198.18.50.199"
"""No machine has this address."""
NEWER_NODE = "of-a-newer-release"
LATER = "later"
"""A field that this release does not know."""
NEWER = {
    "apiVersion": f"{release.GROUP}/v1alpha1",
    "kind": "NodeNetwork",
    "metadata": {"name": NEWER_NODE},
    "spec": {
        "nodeID": 4242,
        "vtep": UNUSED,
        "podCIDRs": ["10.244.250.0/24", "fd00:10:244:fa::/64"],
        "accepts": ["what-comes-later"],
        LATER: {"key": ["of", "a", "release", "to", "come"]},
    },
}
NODE_NETWORKS = f"nodenetworks.{release.GROUP}"
SCHEMA = "/spec/versions/0/schema/openAPIV3Schema"
UNKNOWN_FIELDS = f"{SCHEMA}/properties/spec/x-kubernetes-preserve-unknown-fields"
WIDER: list[Json] = [{"op": "add", "path": UNKNOWN_FIELDS, "value": True}]
"""As the kind of a release that knows more."""


def another_installation(rollout: Rollout) -> Iterator[Check]:
    """A second DaemonSet of pycni on a node is refused, and the first serves on."""
    kubectl = rollout.running.kubectl
    path = release.write(rollout.cluster, "second", [_second(rollout)])
    kubectl("apply", "--server-side", f"--filename={path}")
    said = partial(wait_for_words, rollout, SECOND, REFUSED)
    yield one("a second installation on a node: its pod says so", said)
    kubectl("delete", f"--filename={path}", "--cascade=foreground", timeout=GONE_SECONDS)
    yield from upgrades.reached(rollout, rollout.servers)


def another_network(rollout: Rollout) -> Iterator[Check]:
    """Another plugin's list that sorts before ours: log and status name it."""
    node = rollout.cluster.workers[0]
    path = Machine(node).path(OTHER_LIST)
    path.write_text(json.dumps(OTHER_NETWORK))
    try:
        yield one("another network's list: status names it", partial(_status_names, rollout, node))
        kubectl = rollout.running.kubectl
        name = network.agent_of(kubectl, node)
        kubectl("delete", "pod", name, f"--namespace={NAMESPACE}", timeout=GONE_SECONDS)
        upgrades.wait_until_done(rollout)
        yield one("another network's list: the log names it", partial(_log_names, rollout, node))
    finally:
        path.unlink()


def altered(rollout: Rollout) -> Iterator[Check]:
    """The object of a node that somebody edited is what it was soon after."""
    node = rollout.cluster.workers[0]
    kubectl = rollout.running.kubectl
    before = kubectl.get("nodenetwork", node.name)["spec"]
    patch = json.dumps({"spec": {"vtep": UNUSED}})
    kubectl("patch", "nodenetwork", node.name, "--type=merge", f"--patch={patch}")
    yield one("an edited address of a node is mended", partial(_is_mended, rollout, node, before))
    kubectl("delete", "nodenetwork", node.name)
    yield one(
        "a deleted object of a node is made again", partial(_is_mended, rollout, node, before)
    )
    yield from upgrades.reached(rollout, rollout.servers)


def newer_records(rollout: Rollout) -> Iterator[Check]:
    """Agents read an object of a release to come as far as they know it, and set nothing aside."""
    kubectl = rollout.running.kubectl
    path = release.write(rollout.cluster, "newer", [NEWER])
    _patch_kind(rollout, WIDER)
    try:
        until(lambda: kubectl.run("apply", "--server-side", f"--filename={path}").returncode == 0,
              "the API takes a newer release's object", MEND_SECONDS)  # fmt: skip
        written = kubectl.get("nodenetwork", NEWER_NODE)["spec"]
        yield Check("the API keeps what a newer release writes", LATER in written, str(written))
        for node in rollout.cluster.workers:
            yield one(f"{node.name} reads a newer release's object",
                      partial(_knows, rollout, node, NEWER_NODE))  # fmt: skip
    finally:
        kubectl("delete", f"--filename={path}", "--ignore-not-found")
        _patch_kind(rollout, [WIDER[0] | {"op": "remove"}])
    yield from upgrades.reached(rollout, rollout.servers)


def _patch_kind(rollout: Rollout, patch: list[Json]) -> None:
    rollout.running.kubectl("patch", "crd", NODE_NETWORKS, "--type=json",
                            f"--patch={json.dumps(patch)}")  # fmt: skip


def _knows(rollout: Rollout, node: LabNode, name: str) -> Found:
    """It has the node in its maps, and no fault."""
    kubectl = rollout.running.kubectl

    def is_there() -> bool:
        said = network.run(kubectl, node, "maps", "dump", "vteps", "--output=json")
        return UNUSED in said

    until(is_there, f"{node.name} knows {name}", MEND_SECONDS)
    return "; ".join(network.faults(kubectl, node))


def _second(rollout: Rollout) -> Json:
    made = release.objects(rollout.cluster, image=rollout.releases[0])
    second = next(one for one in on_one_node(rollout.cluster, made) if one["kind"] == "DaemonSet")
    labels = {"app.kubernetes.io/name": SECOND}
    second["metadata"] |= {"name": SECOND, "labels": labels}
    second["spec"]["selector"]["matchLabels"] = labels
    second["spec"]["template"]["metadata"]["labels"] = labels
    return second


def _status_names(rollout: Rollout, node: LabNode) -> Found:
    kubectl = rollout.running.kubectl
    command = network.command(kubectl, node, "status", "--output=json")
    done = kubectl.run(*command, timeout=POD_SECONDS)  # its status says that something is wrong
    said = done.stdout.decode(errors="replace")
    return None if OTHER_LIST in said and "remove it" in said else said


def _log_names(rollout: Rollout, node: LabNode) -> Found:
    kubectl = rollout.running.kubectl
    place = (f"--namespace={NAMESPACE}", network.agent_of(kubectl, node), "--container=agent")
    said = kubectl("logs", *place)
    return None if f"{OTHER_LIST} sorts before" in said else said[-1000:]


def _is_mended(rollout: Rollout, node: LabNode, before: Json) -> Found:
    kubectl = rollout.running.kubectl

    def now() -> Json:
        items = kubectl.get("nodenetworks")["items"]
        return next((o["spec"] for o in items if o["metadata"]["name"] == node.name), {})

    until(lambda: all(now().get(key) == before[key] for key in ("vtep", "podCIDRs", "nodeID")),
          f"the object of {node.name} is as it was", MEND_SECONDS)  # fmt: skip
    return None
