# SPDX-License-Identifier: Apache-2.0
"""What `make lab` proves on real packets. Each check has a name, and passed or failed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pycni.errors import PycniError
from pycni.lab import processes, runtime
from pycni.lab.cluster import Lab, peer_command
from pycni.lab.layout import WORLD, LabNode, Pod
from pycni.lab.topology import kernel_entries

ICMP_HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes of IP and ICMP headers before the payload."""

TRANSFER = 10_000_000
"""Bytes of the TCP check."""


@dataclass(frozen=True)
class Check:
    """One thing proven, or not; `found` says what was seen."""

    name: str
    passed: bool
    found: str = ""


def everything(lab: Lab) -> Iterator[Check]:
    """All checks in order. Leaves the lab as it was, but for the address of one pod."""
    yield from matrix(lab)
    for group in (
        hosts_and_world,
        largest_packets,
        transfers,
        attached,
        reattach,
        tables,
        kernel_tables,
    ):
        yield from _to_the_end(group.__name__, group(lab))


def matrix(lab: Lab) -> Iterator[Check]:
    """Each pod pings every other pod, IPv4 and IPv6. What cannot be tried is a failed check."""
    with ThreadPoolExecutor(4) as pool:
        for checks in pool.map(partial(_from_pod, lab), lab.layout.pods):
            yield from checks


def _from_pod(lab: Lab, source: Pod) -> list[Check]:
    """One pod pings all others."""
    failed, targets = [], []
    for target in lab.layout.pods:
        if target == source:
            continue
        name = f"ping {source.name} -> {target.name}"
        try:
            targets += [(f"{name} {address}", address) for address in lab.addresses(target)]
        except PycniError as error:
            failed.append(Check(name, passed=False, found=_words(error)))
    if not targets:
        return failed
    try:
        answers = lab.peer(source.netns, "echo", *(address for _, address in targets))
    except PycniError as error:
        return failed + [Check(name, passed=False, found=_words(error)) for name, _ in targets]
    return failed + [
        _answered(name, answer) for (name, _), answer in zip(targets, answers, strict=True)
    ]


def _to_the_end(group: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The checks of a group; if the group cannot go on, a failed check that says why."""
    try:
        yield from checks
    except PycniError as error:
        yield Check(group.replace("_", " "), passed=False, found=_words(error))


def hosts_and_world(lab: Lab) -> Iterator[Check]:
    """Pods to every node's own address, nodes to every pod, pods to the world."""
    for node in lab.layout.nodes:
        names = {str(a.ip): other.name for other in lab.layout.nodes for a in other.underlay}
        names |= {str(address): "the world" for address in WORLD}
        pod = node.pods[0]
        yield from _pings(lab, pod.name, pod.netns, names)
        pods = {address: pod.name for pod in lab.layout.pods for address in lab.addresses(pod)}
        yield from _pings(lab, node.name, node.netns, pods)


def _pings(lab: Lab, source: str, netns: str, names: Mapping[str, str]) -> Iterator[Check]:
    """From one network namespace to each of these addresses, with the names of who has them."""
    for answer in lab.peer(netns, "echo", *names):
        address = answer["address"]
        yield _answered(f"ping {source} -> {names[address]} {address}", answer)


def largest_packets(lab: Lab) -> Iterator[Check]:
    """A packet as large as the pod's MTU, with DF, to a pod on the same and on another node."""
    source = lab.layout.pods[0]
    for target in _near_and_far(lab, source):
        for address in lab.addresses(target):
            family = 6 if ":" in address else 4
            size = _mtu(lab, source) - ICMP_HEADERS[family]
            (answer,) = lab.peer(
                source.netns, "echo", address, "--size", str(size), "--dont-fragment"
            )
            yield _answered(
                f"ping, as large as the MTU, {source.name} -> {target.name} {address}", answer
            )


def transfers(lab: Lab) -> Iterator[Check]:
    """10 MB over TCP, each way, between nodes and on one, both families."""
    first = lab.layout.pods[0]
    for other in _near_and_far(lab, first):
        for source, target in ((first, other), (other, first)):
            for address in lab.addresses(target):
                yield _transfer(lab, source, target, address)


def attached(lab: Lab) -> Iterator[Check]:
    """CHECK of every attachment against its result."""
    for pod in lab.layout.pods:
        node, result = lab.layout.node(pod.node), lab.results[pod.name]
        yield _holds(f"CHECK {pod.name}", partial(runtime.check, node, pod, result))


def reattach(lab: Lab) -> Iterator[Check]:
    """DEL and ADD of a pod: it gets another address, and is reached there."""
    pod, *others = lab.layout.pods
    source = others[-1] if others else lab.layout.node(pod.node)
    before = lab.addresses(pod)
    yield _holds(f"DEL {pod.name}", lambda: lab.detach(pod))
    gone = lab.peer(source.netns, "echo", *before)
    heard = [answer["address"] for answer in gone if answer["received"]]
    yield Check("the old addresses are silent", not heard, " ".join(heard))
    yield _holds(f"DEL {pod.name} again", lambda: runtime.delete(lab.layout.node(pod.node), pod))
    yield _holds(f"ADD {pod.name}", lambda: lab.attach(pod))
    after = lab.addresses(pod)
    found = f"{' '.join(before)}, then {' '.join(after)}"
    yield Check("no address is reused at once", not set(before) & set(after), found)
    for answer in lab.peer(source.netns, "echo", *after):
        yield _answered(f"ping {source.name} -> {pod.name} {answer['address']}", answer)


def tables(lab: Lab) -> Iterator[Check]:
    """One `remotes` entry per other node and family, one `endpoints` entry per local pod and
    family."""
    families = len(lab.addresses(lab.layout.pods[0]))
    for node in lab.layout.nodes:
        remotes = lab.pycni(node, "maps", "dump", "remotes")
        wanted = (len(lab.layout.nodes) - 1) * families
        yield _entries(f"{node.name}: {wanted} remotes", remotes, "prefix", wanted)
        endpoints = lab.pycni(node, "endpoints")
        wanted = len(node.pods) * families
        yield _entries(f"{node.name}: {wanted} endpoints", endpoints, "address", wanted)


def kernel_tables(lab: Lab) -> Iterator[Check]:
    """No route, neighbour or forwarding (FDB) entry of a node names a pod."""
    for node in lab.layout.nodes:
        yield from _kernel_tables(lab, node)


def _kernel_tables(lab: Lab, node: LabNode) -> Iterator[Check]:
    pods = {address for pod in lab.layout.pods for address in lab.addresses(pod)}
    for table, destinations in kernel_entries(node.netns).items():
        named = sorted(pods & destinations)
        yield Check(f"{node.name}: no pod among its {table}", not named, " ".join(named))


def _transfer(lab: Lab, source: Pod, target: Pod, address: str) -> Check:
    name = f"{TRANSFER // 1_000_000} MB over TCP {source.name} -> {target.name} {address}"
    with subprocess.Popen(
        processes.inside(target.netns, peer_command("receive", address)), stdout=subprocess.PIPE
    ) as receiver:
        assert receiver.stdout is not None
        try:
            port = json.loads(receiver.stdout.readline())["port"]
            sent = lab.peer(source.netns, "send", address, str(port), str(TRANSFER))
            got = json.loads(receiver.stdout.readline())
        except (PycniError, ValueError) as error:
            receiver.kill()
            return Check(name, passed=False, found=str(error))
    same = (got["bytes"], got["sha256"]) == (sent["bytes"], sent["sha256"])
    return Check(name, same, f"{sent['bytes'] * 8 / sent['seconds'] / 1e6:.0f} Mbit/s")


def _near_and_far(lab: Lab, pod: Pod) -> list[Pod]:
    """A pod on the same node and one on another, as far as there are such."""
    near = [p for p in lab.layout.pods if p.node == pod.node and p != pod][:1]
    far = [p for p in lab.layout.pods if p.node != pod.node][:1]
    return near + far


def _mtu(lab: Lab, pod: Pod) -> int:
    node = lab.layout.node(pod.node)
    return int(json.loads((node.directory / "state" / "node.json").read_bytes())["mtu"])


def _answered(name: str, answer: dict[str, Any]) -> Check:
    found = f"{answer['received']}/{answer['sent']} answered"
    return Check(name, answer["received"] == answer["sent"], found)


def _holds(name: str, step: Callable[[], object]) -> Check:
    try:
        step()
    except PycniError as error:
        return Check(name, passed=False, found=_words(error))
    return Check(name, passed=True)


def _entries(name: str, rows: list[dict[str, Any]], key: str, wanted: int) -> Check:
    return Check(name, len(rows) == wanted, " ".join(str(row[key]) for row in rows))


def _words(error: PycniError) -> str:
    return f"{error.message} {error.details}".strip()
