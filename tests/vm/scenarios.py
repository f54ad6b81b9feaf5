# SPDX-License-Identifier: Apache-2.0
"""What is shown on each kernel, step by step, on two nodes over a virtual link.

A step is a column of the table. It raises AssertionError or GuestError with what was found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from vm import capture
from vm.cluster import (
    MTU,
    TRANSFER,
    Cluster,
    bring_up,
    cross_both,
    cross_node,
    reaches,
    same_node,
    upgrade,
    visible,
)
from vm.conformance import conformance
from vm.ipip import ipip
from vm.kernels import Kernel
from vm.lan import lan
from vm.link import pair
from vm.netkit import netkit
from vm.node import UPLINK, Node
from vm.payload import INSIDE, PYTHON
from vm.qemu import Disks, Guest, GuestError
from vm.uplinks import uplinks

IPV4 = ("192.0.2.1/24", "192.0.2.2/24")
IPV6 = ("2001:db8::1/64", "2001:db8::2/64")
JUMBO = 9000
"""Bytes of the uplink's."""
VXLAN_BYTES = {4: 50, 6: 70}
TRANSFERS = 2 * 2 * 2
"""Between the nodes before `captured`: each way, both families, over both underlays."""
TCP_HEADERS = {4: 20 + 32, 6: 40 + 32}
"""Bytes of IP and of TCP with its timestamps (RFC 7323)."""
SEGMENTS = {MTU - VXLAN_BYTES[outer] - TCP_HEADERS[inner] for outer in (4, 6) for inner in (4, 6)}
"""Bytes of payload of a packet that is as large as a pod's MTU."""
TABLES_SECONDS = 900.0
MODE_SECONDS = 600.0
"""Within which nodes must have heard of each other what they accept."""
RANDOM_PACKETS = 5000
"""Of tests/bpf/test_random_packets.py, which sends more to the machine's own kernel."""

NO_MODULE = "/etc/modprobe.d/without.conf"


@dataclass(frozen=True)
class Step:
    """One column of the table; `found` is what was wrong, or what else there is to say."""

    name: str
    passed: bool
    seconds: float
    found: str = ""


@dataclass(frozen=True)
class Outcome:
    """A kernel's row, and what its probe says is missing."""

    kernel: Kernel
    steps: tuple[Step, ...]
    boot_seconds: float
    seconds: float
    missing: tuple[dict[str, Any], ...]

    @property
    def passed(self) -> bool:
        return all(step.passed for step in self.steps)


Body = Callable[[Cluster], str | None]
"""Returns what there is to say of a step that passed."""


def run(
    kernel: Kernel, disks: Disks, directory: Path, steps: Mapping[str, Body],
    *, pcap: Path | None = None, report: Callable[[Step], object] = lambda _: None,
) -> Outcome:  # fmt: skip
    """Boot two guests and go through the steps, up to one in BASIC that fails; each is reported."""
    begin = time.monotonic()
    done: list[Step] = []
    missing: tuple[dict[str, Any], ...] = ()
    boot_seconds = 0.0
    try:
        with pair(kernel, disks, directory, capture=pcap) as (a, b):
            boot_seconds = max(a.boot_seconds, b.boot_seconds)
            nodes = (Node(a, ip_interface(IPV4[0])), Node(b, ip_interface(IPV4[1])))
            features = nodes[0].facts()["features"]
            missing = tuple(one for one in features if not one["available"])
            lacking = frozenset(one["name"] for one in missing)
            boot = partial(_boot, kernel, disks, directory)
            cluster = Cluster(*nodes, pcap, lacking, boot)
            for name, body in steps.items():
                done.append(_step(name, body, cluster))
                report(done[-1])
                if name in BASIC and not done[-1].passed:
                    break
    except GuestError as error:
        done.append(Step("boot", passed=False, seconds=time.monotonic() - begin, found=str(error)))
        report(done[-1])
    return Outcome(kernel, tuple(done), boot_seconds, time.monotonic() - begin, missing)


def _boot(kernel: Kernel, disks: Disks, directory: Path, command_line: str) -> Guest:
    return Guest("alone", kernel, disks, directory, command_line=command_line)


def _step(name: str, body: Body, cluster: Cluster) -> Step:
    begin = time.monotonic()
    try:
        said = body(cluster)
    except (AssertionError, GuestError) as error:
        return Step(name, passed=False, seconds=time.monotonic() - begin, found=str(error))
    return Step(name, passed=True, seconds=time.monotonic() - begin, found=said or "")


def load(cluster: Cluster) -> None:
    """Both nodes set up, two pods on each; every program is attached where it belongs."""
    bring_up(cluster)


def packet_tables(cluster: Cluster) -> None:
    """tests/bpf as it is: every program, case and setting that is in force on this kernel."""
    tables = f"{INSIDE}/tests/bpf"
    command = [PYTHON, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", tables]
    done = cluster.b.guest.run(
        command,
        env={
            "PYCNI_RECORDED": f"{INSIDE}/tests/recorded/compiled",
            "PYCNI_LACKS": " ".join(cluster.lacking),
            "PACKETS": str(RANDOM_PACKETS),
            "CI": "true",
        },
        timeout=TABLES_SECONDS,
    )
    failed = [line[:200] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERR"))]
    assert done.status == 0, "\n".join([*failed[:40], done.stdout[-200:], done.stderr[-2000:]])


def underlay6(cluster: Cluster) -> None:
    """The nodes torn down, and set up again over an IPv6 underlay."""
    for node, at in zip(cluster.nodes, IPV6, strict=True):
        node.underlay = ip_interface(at)
    bring_up(cluster, again=True)
    cross_both(cluster)


def captured(cluster: Cluster) -> None:
    """All VXLAN on the link so far, by tshark's reading; transfers, segment by segment."""
    assert cluster.pcap is not None, "nothing was captured"
    frames = capture.read(cluster.pcap)
    wrong = list(capture.faults(frames, mtu=MTU))
    assert not wrong, f"{len(wrong)} of {len(frames)} frames: {wrong[:10]}"
    outer = {frame.protocols[2] for frame in frames}
    assert outer == {"ip", "ipv6"}, f"the underlays were {outer}"
    streams = capture.segments(frames)
    assert len(streams) == TRANSFERS, f"{len(streams)} streams"
    for stream, payload in streams.items():
        assert capture.gapless(payload) == TRANSFER, f"stream {stream}"
        full = max(payload.values())
        most = sum(size == full for size in payload.values()) > len(payload) * 0.9
        assert most, f"stream {stream} is mostly not of the largest segments"
        assert full in SEGMENTS, f"stream {stream}: segments of {full} bytes"


def direct(cluster: Cluster) -> None:
    """Without VXLAN, and with the whole MTU."""
    bring_up(cluster, again=True, encap="direct")
    deadline = time.monotonic() + MODE_SECONDS
    while (found := [_mode(node) for node in cluster.nodes]) != ["direct", "direct"]:
        assert time.monotonic() < deadline, f"packets leave {found}"
        cross_both(cluster)
    pod = next(iter(cluster.a.pods))
    mtu = cluster.a.mtu(pod)
    assert mtu == MTU, f"pods have an MTU of {mtu}"
    cross_both(cluster)


def _mode(node: Node) -> str:
    """How packets to the other node leave."""
    listed = json.loads(node.pycni("nodes", "-o", "json").stdout)
    return next(str(one["mode"]) for one in listed if one["name"] != node.name)


def jumbo(cluster: Cluster) -> None:
    """The same with a large MTU on the link, which pods get the whole of."""
    bring_up(cluster, again=True, mtu=JUMBO)
    pod = next(iter(cluster.a.pods))
    mtu = cluster.a.mtu(pod)
    assert mtu == JUMBO - VXLAN_BYTES[cluster.a.underlay.version], f"pods have an MTU of {mtu}"
    cross_both(cluster)


def refused(cluster: Cluster) -> None:
    """A kernel without a module that is needed: what to do is said, and nothing half set up."""
    modules = {"vxlan": "modprobe vxlan"}
    if "tcx" in cluster.lacking:
        modules |= dict.fromkeys(("sch_ingress", "cls_bpf"), "modprobe sch_ingress cls_bpf")
    modules["nf_tables"] = "nf_tables"
    with cluster.boot("") as guest:
        node = _lonely(guest)
        before = visible(node)
        for module, word in modules.items():
            guest.check(["tee", NO_MODULE], stdin=f"install {module} /bin/false\n")
            done = node.pycni("setup")
            said = f"without {module}: {done.stderr}"
            assert done.status == 1, said
            assert word in done.stderr, said
            assert "to do:" in done.stderr, said
            assert "Traceback" not in done.stderr, said
            assert visible(node) == before, said


def hardened(cluster: Cluster) -> None:
    """Lockdown, and in it: no JIT; then a hardened JIT and no types of the kernel's."""
    with cluster.boot("lockdown=confidentiality") as guest:
        node = _lonely(guest)
        off = guest.run(["sysctl", "-w", "net.core.bpf_jit_enable=0"])
        _forwards_alone(node)
        jit = next(one for one in node.facts()["features"] if one["name"] == "jit")
        assert jit["available"] == (off.status != 0), jit  # some kernels cannot do without
        node.teardown()
        guest.run(["sysctl", "-w", "net.core.bpf_jit_enable=1"])
        guest.check(["sysctl", "-w", "net.core.bpf_jit_harden=2"])
        guest.check(["mount", "-t", "tmpfs", "nothing", "/sys/kernel/btf"])
        node.prepare([node])
        _forwards_alone(node)


STEPS: dict[str, Body] = {
    "load": load,
    "packet tables": packet_tables,
    "same-node": same_node,
    "cross-node v4": partial(cross_node, family=4),
    "cross-node v6": partial(cross_node, family=6),
    "upgrade under traffic": upgrade,
    "IPv6 underlay": underlay6,
    "captured": captured,
    "direct": direct,
    "ipip": ipip,
    "jumbo": jumbo,
    "netkit": netkit,
    "lan": lan,
    "conformance": conformance,
    "uplinks": uplinks,
    "refused": refused,
    "hardened": hardened,
}
"""In the order they are run: the table's columns."""
LONG = ("conformance",)
"""Steps that run only where they are named."""
BASIC = ("load", "IPv6 underlay", "direct", "ipip", "jumbo", "netkit")
"""Steps without which the next ones have no nodes."""


def _lonely(guest: Guest) -> Node:
    """A node to be, whose uplink leads nowhere."""
    guest.wait_until_ready()
    guest.check(["ip", "link", "add", UPLINK, "type", "dummy"])
    node = Node(guest, ip_interface(IPV4[0]))
    node.prepare([node])
    return node


def _forwards_alone(node: Node) -> None:
    node.start_agent()
    for pod in ("pod1", "pod2"):
        node.add(pod)
    for address in node.pods["pod2"]:
        reaches(node, "pod1", node, address)
