# SPDX-License-Identifier: Apache-2.0
"""The two nodes of a run: brought up, and shown to forward between their pods.

What is found wrong is raised as AssertionError or GuestError.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from vm.node import SETTINGS, UPLINK, Node, incomplete
from vm.payload import INSIDE, PYTHON
from vm.qemu import Guest

MTU = 1500
"""Bytes of the uplink's; pods get what VXLAN leaves of them."""
CACHE = "/var/cache/pycni"
"""Where setup looks for objects compiled before; see vm.payload."""

ICMP_HEADERS = {4: 20 + 8, 6: 40 + 8}
TRANSFER = 4_000_000
"""Bytes over TCP, each way and family."""
PING: dict[str, Any] = {"count": 20, "interval": 0.02}
FLOWING = 100
"""Packets after which a flood flows."""
UPGRADE_SECONDS = 600.0
BUSY_SECONDS = 86400
"""At most, longer than a run of upgrades."""

PROGRAMS = {
    "from_container", "to_container", "from_underlay", "from_overlay", "to_overlay",
}  # fmt: skip


@dataclass
class Cluster:
    """The two nodes of a run."""

    a: Node
    b: Node
    pcap: Path | None
    """What the first one sends and receives, if that is written down."""
    lacking: frozenset[str]
    """Features that the probe did not find."""
    boot: Callable[[str], Guest]
    """A third machine, alone, with more words on the kernel's command line."""

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.a, self.b


def bring_up(
    cluster: Cluster,
    *,
    again: bool = False,
    mtu: int = MTU,
    device: str = "veth",
    encap: str = "auto",
) -> None:
    """Both nodes at once; their agents make them nodes."""

    def one(node: Node) -> None:
        if again:
            node.teardown()
        node.prepare(cluster.nodes, mtu=mtu, vtep=str(node.underlay.ip), encap=encap)
        node.start_agent()
        node.keys = {"device": device}
        for number in (1, 2):
            node.add(f"pod{number}")
        _fingerprint(node)

    with ThreadPoolExecutor() as pool:
        try:
            list(pool.map(one, cluster.nodes))
        except BaseException:  # an interrupt, too: the threads wait for their guests
            for node in cluster.nodes:
                node.guest.kill()
            raise


def same_node(cluster: Cluster) -> None:
    """Pod to pod on one node, both families: echo, the largest packet, TCP."""
    one, two = cluster.a.pods
    for address in cluster.a.pods[two]:
        reaches(cluster.a, one, cluster.a, address)


def cross_node(cluster: Cluster, family: int) -> None:
    """Pod to pod on the other node, each way."""
    for source, target in (cluster.nodes, cluster.nodes[::-1]):
        pod, far = next(iter(source.pods)), next(iter(target.pods))
        (address,) = (one for one in target.pods[far] if ip_address(one).version == family)
        reaches(source, pod, target, address)


def cross_both(cluster: Cluster) -> None:
    for family in (4, 6):
        cross_node(cluster, family)


def upgrade(
    cluster: Cluster, *, rounds: int = 1, tell: Callable[[str], object] = lambda _: None
) -> None:
    """Both nodes get other programs while packets flow, and the next time their own again; none is
    lost, and no hook forgotten. `tell` gets a line about each round."""
    for node in cluster.nodes:
        node.guest.check(["cp", "-r", f"{INSIDE}/upgrade/cache/.", CACHE])
    others = (f"{INSIDE}/upgrade/setup_from.py", SETTINGS, f"{INSIDE}/upgrade/bpf")
    own = ("-m", "pycni", "setup")
    lost_in = {}
    for number, setup in zip(range(rounds), itertools.cycle((others, own)), strict=False):
        begin = time.monotonic()
        if missing := _upgrade_once(cluster, setup):
            lost_in[number] = missing
        tell(f"upgrade {number + 1} of {rounds}, {time.monotonic() - begin:.0f} s: lost {missing}")
    assert not lost_in, f"packets without an answer, by round: {lost_in}"


def upgrade_busy(cluster: Cluster, *, rounds: int, tell: Callable[[str], object]) -> None:
    """`upgrade` while something else wants every processor of both machines."""
    busy = [
        node.guest.start(["timeout", str(BUSY_SECONDS), "sh", "-c", "while :; do :; done"],
                         timeout=2 * BUSY_SECONDS)
        for node in cluster.nodes
        for _ in range(int(node.guest.check(["nproc"])))
    ]  # fmt: skip
    upgrade(cluster, rounds=rounds, tell=tell)
    assert not any(one.ended for one in busy), "the processors were idle in the end"


def _upgrade_once(cluster: Cluster, setup: Sequence[str]) -> list[dict[str, Any]]:
    """What the floods tell that lost something."""
    pod, far = next(iter(cluster.a.pods)), next(iter(cluster.b.pods))
    before = [_fingerprint(node) for node in cluster.nodes]
    floods = [cluster.a.start_flood(pod, to) for to in cluster.b.pods[far]]
    sent = cluster.a.sent(pod)
    while cluster.a.sent(pod) < sent + FLOWING:
        time.sleep(0.1)
    upgrades = [
        node.guest.start([PYTHON, *setup], timeout=UPGRADE_SECONDS) for node in cluster.nodes
    ]
    for upgrading in upgrades:
        done = upgrading.wait()
        assert done.status == 0, done.stderr
    cluster.a.end_floods()
    missing = [one for flood in floods for one in incomplete(flood.wait())]
    after = [_fingerprint(node) for node in cluster.nodes]
    assert not set(before) & set(after), f"the programs were {before} and are {after}"
    return missing


def reaches(source: Node, pod: str, target: Node, address: str) -> None:
    """Echo, an echo as large as the pod's MTU with DF, and a transfer each way over TCP."""
    family = ip_address(address).version
    largest = source.mtu(pod) - ICMP_HEADERS[family]
    small = source.echo(pod, [address], **PING)
    large = source.echo(pod, [address], **PING, size=largest, dont_fragment=True)
    assert small == large == {}, f"{source.name} {pod} to {address}: lost {small}, large {large}"
    sent, got = source.send(pod, target, address, TRANSFER)
    assert sent["bytes"] == got["bytes"] == TRANSFER, f"{address}: {sent}, {got}"
    assert sent["sha256"] == got["sha256"], f"{address} received other bytes than were sent"


def visible(node: Node) -> str:
    """Links, qdiscs, pins and records: what a refused setup must not leave."""
    commands = (
        ("ip", "-json", "link"),
        ("tc", "-json", "qdisc"),
        ("find", "/sys/fs/bpf", "/var/lib/pycni"),
    )
    return "".join(node.guest.check(command) for command in commands)


def _fingerprint(node: Node) -> str:
    """The one fingerprint of all programs at a node's hooks, each of which has its program."""
    hooks = node.facts()["hooks"]
    pods = [name for name, programs in hooks.items() if "to_container" in programs]
    assert len(pods) == len(node.pods), hooks
    programs = [program for attached in hooks.values() for program in attached]
    assert set(programs) == PROGRAMS, hooks
    assert "from_underlay" in hooks[UPLINK], hooks
    fingerprints = {one for attached in hooks.values() for one in attached.values()}
    assert len(fingerprints) == 1, hooks
    return str(fingerprints.pop())
