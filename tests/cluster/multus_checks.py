# SPDX-License-Identifier: Apache-2.0
"""Checks of pods with a second network, by Multus: it goes first, and calls pycni."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import permutations
from pathlib import Path

from cluster import agents, manifests, multus, network, traces
from cluster.host_checks import cut_link
from cluster.kubectl import is_ready
from cluster.layout import addresses
from cluster.life import Running
from cluster.machine import Machine
from cluster.manifests import HTTP_PORT
from cluster.scene import POD_SECONDS, Scene, fetch, hostname_url, make_namespace, tear_down
from cluster.verdicts import Found, one, to_the_end
from cluster.waiting import remaining
from pycni.lab.checks import Check
from pycni.lab.layout import POD_IFNAME, LabNode

NAMESPACE = "pycni-multus"
SECOND_IFNAME = "net1"
SECONDS = ("192.168.77.{}", 24), ("fd77::{}", 64)
"""Addresses of the second network by a pod's number, and their prefix lengths."""
STATUS_SECONDS = 30.0
"""Enough for some calls of STATUS, and for the kubelet to tell what it heard."""


@dataclass
class Second(Scene):
    """A scene on nodes that are given Multus."""

    namespace: str = NAMESPACE
    program: Path = Path()
    """Multus."""
    orphans: dict[LabNode, set[str]] = field(default_factory=dict)
    """What libcni keeps of pods of before Multus: nobody removes it, as it is Multus who calls
    pycni's DEL of them, and Multus has a libcni with a directory of its own."""


def everything(running: Running, program: Path) -> Iterator[Check]:
    """All checks in order. The cluster is without Multus in the end."""
    scene = Second(running, program=program)
    nodes = running.cluster.workers
    before = {node: _traces(scene, node) for node in nodes}
    ready = one("pods of before run", partial(_early_pods_run, scene))
    yield ready
    try:
        if ready.passed:
            for group in (installed, second_networks, pycni_twice, cut_pods, early_pods, pods_anew):
                yield from to_the_end(group, scene)
        yield one("the namespace is deleted with all in it", partial(tear_down, scene))
        for node in nodes:
            yield one(f"nothing is left of the pods on {node.name}",
                      partial(_nothing_more, scene, node, before[node]))  # fmt: skip
    finally:
        for node in nodes:
            multus.take_away(node)
            _remove_orphans(scene, node)
        multus.undefine(running.kubectl)
    yield from to_the_end(without_multus, scene)


def installed(scene: Second) -> Iterator[Check]:
    """Multus goes first; pycni says that all is well, and the nodes stay Ready."""
    multus.define(scene.running.kubectl)
    scene.kubectl.apply([multus.second_network(), multus.network_of_pycni()])
    for node in scene.cluster.workers:
        multus.put_first(scene.cluster, node, scene.program)
    time.sleep(STATUS_SECONDS)
    for node in scene.cluster.workers:
        yield one(f"{node.name} is Ready with Multus", partial(_node_is_ready, scene, node))
        yield one(f"pycni on {node.name} is well with Multus", partial(_is_well, scene, node))


def second_networks(scene: Second) -> Iterator[Check]:
    """Pods with two interfaces reach each other by both, in both families."""
    made = _numbers(scene)
    yield from _pods_run(scene, "")
    for source in scene.servers:
        for target in scene.servers:
            if source != target:
                yield from _reaches(scene, source, target, scene.addresses(target))
    for source in made:
        for target in made:
            if source != target:
                found = [place.format(made[target]) for place, _ in SECONDS]
                yield from _reaches(scene, source, target, found)
    for node in scene.cluster.workers:
        yield one(f"pycni on {node.name} is well with such pods", partial(_is_well, scene, node))


def pycni_twice(scene: Second) -> Iterator[Check]:
    """Pods with two interfaces of pycni's are reached at both, answer by the same, and a lost one
    is named."""
    nodes = scene.cluster.workers
    names = [f"twice-{node.name}" for node in nodes]
    scene.kubectl.apply([multus.with_pycni_twice(manifests.server(name, node.name), SECOND_IFNAME)
                         for name, node in zip(names, nodes, strict=True)])  # fmt: skip
    second = {}
    for name in names:
        scene.wait_until_ready(name)
        scene.servers[name] = scene.kubectl.get("pod", name)
        second[name] = _told(scene, name).get(SECOND_IFNAME, [])
        yield one(f"{name} has addresses of pycni's on {POD_IFNAME} and {SECOND_IFNAME}",
                  partial(_has_two_of_pycni, scene, name))  # fmt: skip
    for source in scene.servers:
        for target in names:
            if source != target:
                yield from _reaches(scene, source, target, second[target])
    for source, target in permutations(names, 2):
        for own, place in zip(second[source], second[target], strict=True):
            yield one(f"{target} sees {source} as {own} from its {SECOND_IFNAME}",
                      partial(_is_seen_as, scene, source, own, place))  # fmt: skip
    for node, name in zip(nodes, names, strict=True):
        yield one(f"pycni on {node.name} is well with {name}", partial(_is_well, scene, node))
        yield one(f"status names {name}, which has lost {SECOND_IFNAME}",
                  partial(_is_cut, scene, node, name, second[name][0]))  # fmt: skip
        yield one(f"all is well without {name}", partial(_is_well_without, scene, node, name))


def cut_pods(scene: Second) -> Iterator[Check]:
    """A pod that Multus attached and whose link is gone is named, until it is deleted."""
    for node in scene.cluster.workers:
        name = f"two-{node.name}"
        yield one(f"status names {name}, which has lost its link",
                  partial(_is_cut, scene, node, name, scene.addresses(name)[0]))  # fmt: skip
        yield one(f"all is well without {name}", partial(_is_well_without, scene, node, name))


def early_pods(scene: Second) -> Iterator[Check]:
    """Pods that were made without Multus end with it."""
    for node in scene.cluster.workers:
        name = f"early-{node.name}"
        yield one(f"{name}, of before Multus, ends", partial(_is_well_without, scene, node, name))


def pods_anew(scene: Second) -> Iterator[Check]:
    """Of the same names and the same addresses in the second network; they end with all others."""
    yield from _pods_run(scene, " again")


def without_multus(scene: Second) -> Iterator[Check]:
    """pycni's list is the first one again."""
    for node in scene.cluster.workers:
        yield one(f"pycni on {node.name} is well without Multus", partial(_is_well, scene, node))


def _numbers(scene: Second) -> dict[str, int]:
    """The pods with two networks: a number of each, by its name."""
    return {f"two-{node.name}": number
            for number, node in enumerate(scene.cluster.workers, start=11)}  # fmt: skip


def _pods_run(scene: Second, when: str) -> Iterator[Check]:
    """One on each node."""
    made = _numbers(scene)
    scene.kubectl.apply([
        multus.with_second(manifests.server(name, node.name), SECOND_IFNAME,
                           [f"{place.format(made[name])}/{length}" for place, length in SECONDS])
        for name, node in zip(made, scene.cluster.workers, strict=True)
    ])  # fmt: skip
    for name, number in made.items():
        scene.wait_until_ready(name)
        scene.servers[name] = scene.kubectl.get("pod", name)
        yield one(f"{name} has {POD_IFNAME} of pycni, and {SECOND_IFNAME}{when}",
                  partial(_has_both, scene, name, number))  # fmt: skip


def _early_pods_run(scene: Second) -> Found:
    make_namespace(scene)
    for node in scene.cluster.workers:
        name, before = f"early-{node.name}", _results(node)
        scene.kubectl.apply([manifests.server(name, node.name)])
        scene.wait_until_ready(name)
        scene.servers[name] = scene.kubectl.get("pod", name)
        scene.orphans[node] = _results(node) - before
    return None


def _results(node: LabNode) -> set[str]:
    """Of pycni's network."""
    return {path.name for path in Machine(node).path(traces.RESULTS).glob("pycni-*")}


def _remove_orphans(scene: Second, node: LabNode) -> None:
    for name in scene.orphans.get(node, ()):
        (Machine(node).path(traces.RESULTS) / name).unlink(missing_ok=True)


def _node_is_ready(scene: Second, node: LabNode) -> Found:
    found = scene.kubectl.get("node", node.name)
    return None if is_ready(found) else str(found["status"]["conditions"])


def _is_well(scene: Second, node: LabNode) -> Found:
    return "; ".join(network.faults(scene.running.kubectl, node))


def _has_both(scene: Second, name: str, number: int) -> Found:
    """As Multus tells it, and as Kubernetes does: the pod's addresses are pycni's."""
    told = _told(scene, name)
    found = {interface: set(ips) for interface, ips in told.items()}
    wanted = {POD_IFNAME: set(scene.addresses(name)),
              SECOND_IFNAME: {place.format(number) for place, _ in SECONDS}}  # fmt: skip
    is_right = found == wanted and len(wanted[POD_IFNAME]) == len(addresses(scene.cluster.control))
    return None if is_right else str(told)


def _reaches(scene: Second, source: str, target: str, places: list[str]) -> Iterator[Check]:
    urls = {address: hostname_url(address, HTTP_PORT) for address in places}
    answers = fetch(scene, source, list(urls.values()))
    for address, url in urls.items():
        yield Check(f"{source} -> {target} {address}", answers[url] == target, answers[url])


def _has_two_of_pycni(scene: Second, name: str) -> Found:
    """Of both families each, all of the node's pod CIDRs, and Kubernetes has the first ones."""
    found = _told(scene, name)
    both = [*found.get(POD_IFNAME, []), *found.get(SECOND_IFNAME, [])]
    node = scene.kubectl.get("nodenetwork", scene.node(name))["spec"]["podCIDRs"]
    inside = [any(ip_address(address) in ip_network(cidr) for cidr in node) for address in both]
    is_right = all(inside) and len(set(both)) == 2 * len(node) == 2 * len(found[POD_IFNAME])
    return None if is_right and found[POD_IFNAME] == scene.addresses(name) else str(found)


def _is_seen_as(scene: Second, source: str, own: str, place: str) -> Found:
    url = hostname_url(place, HTTP_PORT).replace("/hostname", "/clientip")
    said = scene.kubectl.execute(source, "curl", "-g", "-s", "-m", "10", "--interface", own, url)
    return None if said.strip().rpartition(":")[0].strip("[]") == own else said or "no answer"


def _told(scene: Second, name: str) -> dict[str, list[str]]:
    """What Multus tells of a pod: addresses by interface."""
    told = json.loads(scene.servers[name]["metadata"]["annotations"].get(multus.OUTCOME, "[]"))
    return {one["interface"]: one["ips"] for one in told}


def _is_cut(scene: Second, node: LabNode, name: str, address: str) -> Found:
    """`address` is of the interface that is lost."""
    cut_link(scene, node, address)
    row = agents.row(scene.running.kubectl, node, "attachments")
    is_right = row["state"] == "broken" and f"{NAMESPACE}/{name}" in row["cause"]
    return None if is_right and f"delete pod {name}" in row["to_do"] else str(row)


def _is_well_without(scene: Second, node: LabNode, name: str) -> Found:
    scene.kubectl("delete", "pod", name, "--wait", timeout=POD_SECONDS)
    scene.servers.pop(name)
    return _is_well(scene, node)


def _traces(scene: Second, node: LabNode) -> set[str]:
    return traces.of_pods(scene.running, node) | multus.kept(node)


def _nothing_more(scene: Second, node: LabNode, before: set[str]) -> Found:
    others = before | {f"result {name}" for name in scene.orphans.get(node, ())}
    return remaining(lambda: ", ".join(sorted(_traces(scene, node) - others)), traces.LEFT_SECONDS)
