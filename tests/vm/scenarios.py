"""What is shown on each kernel, step by step, on two nodes over a virtual link.

A step is a column of the table. It raises AssertionError or GuestError with what was found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from vm import capture
from vm.kernels import Kernel
from vm.link import pair
from vm.node import SETTINGS, UPLINK, Node, lost
from vm.payload import INSIDE, PYTHON
from vm.qemu import Disks, Guest, GuestError

IPV4 = ("192.0.2.1/24", "192.0.2.2/24")
IPV6 = ("2001:db8::1/64", "2001:db8::2/64")
MTU, JUMBO = 1500, 9000
"""Bytes of the uplink's; pods get what VXLAN leaves of them."""
VXLAN_BYTES = {4: 50, 6: 70}
CACHE = "/var/cache/pycni"
"""Where setup looks for objects compiled before; see vm.payload."""

ICMP_HEADERS = {4: 20 + 8, 6: 40 + 8}
TRANSFER = 4_000_000
"""Bytes over TCP, each way and family."""
TRANSFERS = 2 * 2 * 2
"""Between the nodes before `captured`: each way, both families, over both underlays."""
TCP_HEADERS = {4: 20 + 32, 6: 40 + 32}
"""Bytes of IP and of TCP with its timestamps (RFC 7323)."""
SEGMENTS = {MTU - VXLAN_BYTES[outer] - TCP_HEADERS[inner] for outer in (4, 6) for inner in (4, 6)}
"""Bytes of payload of a packet that is as large as a pod's MTU."""
RATE = {f"{way}{what}": 100_000_000 for way in ("ingress", "egress") for what in ("Rate", "Burst")}
"""Bits (per second): more than emulation comes to."""
PING = {"count": 20, "interval": 0.02}
FLOWING = 100
"""Packets after which a flood flows."""
TABLES_SECONDS = 900.0
RANDOM_PACKETS = 5000
"""Of tests/bpf/test_random_packets.py, which sends more to the machine's own kernel."""

RELEASED_SECONDS = 60.0
NO_MODULE = "/etc/modprobe.d/without.conf"

PROGRAMS = {
    "from_container", "to_container", "from_underlay", "from_overlay", "to_overlay",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One column of the table; `found` is what was wrong, if it did not pass."""

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


Body = Callable[[Cluster], object]


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
        done.append(Step("boot", False, time.monotonic() - begin, str(error)))
    return Outcome(kernel, tuple(done), boot_seconds, time.monotonic() - begin, missing)


def _boot(kernel: Kernel, disks: Disks, directory: Path, command_line: str) -> Guest:
    return Guest("alone", kernel, disks, directory, command_line=command_line)


def _step(name: str, body: Body, cluster: Cluster) -> Step:
    begin = time.monotonic()
    try:
        body(cluster)
    except (AssertionError, GuestError) as error:
        return Step(name, False, time.monotonic() - begin, str(error))
    return Step(name, True, time.monotonic() - begin)


def load(cluster: Cluster) -> None:
    """Both nodes set up, two pods on each; every program is attached where it belongs."""
    _bring_up(cluster)


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


def same_node(cluster: Cluster) -> None:
    """Pod to pod on one node, both families: echo, the largest packet, TCP."""
    one, two = cluster.a.pods
    for address in cluster.a.pods[two]:
        _reaches(cluster.a, one, cluster.a, address)


def cross_node(cluster: Cluster, family: int) -> None:
    """Pod to pod on the other node, each way."""
    for source, target in (cluster.nodes, cluster.nodes[::-1]):
        pod, far = next(iter(source.pods)), next(iter(target.pods))
        (address,) = (one for one in target.pods[far] if ip_address(one).version == family)
        _reaches(source, pod, target, address)


def upgrade(cluster: Cluster) -> None:
    """Both nodes get other programs while packets flow; none is lost, and no hook forgotten."""
    pod, far = next(iter(cluster.a.pods)), next(iter(cluster.b.pods))
    before = [_fingerprint(node) for node in cluster.nodes]
    for node in cluster.nodes:
        node.guest.check(["cp", "-r", f"{INSIDE}/upgrade/cache/.", CACHE])
    floods = [cluster.a.start_flood(pod, to) for to in cluster.b.pods[far]]
    sent = cluster.a.sent(pod)
    while cluster.a.sent(pod) < sent + FLOWING:
        time.sleep(0.1)
    arguments = (f"{INSIDE}/upgrade/setup_from.py", SETTINGS, f"{INSIDE}/upgrade/bpf")
    upgrades = [node.guest.start([PYTHON, *arguments]) for node in cluster.nodes]
    for upgrading in upgrades:
        done = upgrading.wait()
        assert done.status == 0, done.stderr
    cluster.a.end_floods()
    missing = [lost(flood.wait()) for flood in floods]
    assert not any(missing), f"packets without an answer: {missing}"
    after = [_fingerprint(node) for node in cluster.nodes]
    assert not set(before) & set(after), f"the programs were {before} and are {after}"


def underlay6(cluster: Cluster) -> None:
    """The nodes torn down, and set up again over an IPv6 underlay."""
    for node, at in zip(cluster.nodes, IPV6, strict=True):
        node.underlay = ip_interface(at)
    _bring_up(cluster, again=True)
    _cross_both(cluster)


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


def jumbo(cluster: Cluster) -> None:
    """The same with a large MTU on the link, which pods get the whole of."""
    _bring_up(cluster, again=True, mtu=JUMBO)
    pod = next(iter(cluster.a.pods))
    mtu = cluster.a.mtu(pod)
    assert mtu == JUMBO - VXLAN_BYTES[6], f"pods have an MTU of {mtu}"
    _cross_both(cluster)


def netkit(cluster: Cluster) -> None:
    """Pods on netkit pairs: among each other, with one on a veth pair, the node, a limited one;
    other programs under traffic; CHECK and DEL. Where the kernel has none: refused, all of it."""
    if "netkit" in cluster.lacking:
        _refuses_netkit(cluster.a)
        return
    _bring_up(cluster, again=True, device="netkit")
    same_node(cluster)
    _cross_both(cluster)
    node, (pod, *_) = cluster.a, cluster.a.pods
    node.keys = {"device": "veth"}
    node.add("mixed")
    node.keys = {"device": "auto", "tcx": True, "runtimeConfig": {"bandwidth": RATE}}
    node.add("limited")
    links = node.facts()["pods"]
    kinds = {pod: kind for pod, (_, kind) in links.items()}
    assert kinds == dict.fromkeys(node.pods, "netkit") | {"mixed": "veth"}, kinds
    for one, other in (("mixed", pod), (pod, "mixed"), ("limited", pod), (pod, "limited")):
        for address in node.pods[other]:
            _reaches(node, one, node, address)
    assert node.echo_from_host([to for pod in node.pods for to in node.pods[pod]]) == {}
    _queued(node, "limited", links["limited"][0], node.pods[pod])
    upgrade(cluster)
    for pod in list(node.pods):
        node.check(pod)
        node.delete(pod)
    for pod in list(cluster.b.pods):
        cluster.b.end_namespace(pod)
    for one in cluster.nodes:
        _wait_until_released(one)


def refused(cluster: Cluster) -> None:
    """A kernel without a module that is needed: what to do is said, and nothing half set up."""
    modules = {"vxlan": "modprobe vxlan"}
    if "tcx" in cluster.lacking:
        modules |= dict.fromkeys(("sch_ingress", "cls_bpf"), "modprobe sch_ingress cls_bpf")
    modules["nf_tables"] = "nf_tables"
    with cluster.boot("") as guest:
        node = _lonely(guest)
        before = _visible(node)
        for module, word in modules.items():
            guest.check(["tee", NO_MODULE], stdin=f"install {module} /bin/false\n")
            done = node.pycni("setup")
            said = f"without {module}: {done.stderr}"
            assert done.status == 1, said
            assert word in done.stderr, said
            assert "to do:" in done.stderr, said
            assert "Traceback" not in done.stderr, said
            assert _visible(node) == before, said


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
    "jumbo": jumbo,
    "netkit": netkit,
    "refused": refused,
    "hardened": hardened,
}
"""In the order they are run: the table's columns."""
BASIC = ("load", "IPv6 underlay", "jumbo", "netkit")
"""Steps without which the next ones have no nodes."""


def _bring_up(
    cluster: Cluster, *, again: bool = False, mtu: int = MTU, device: str = "veth"
) -> None:
    """Both nodes at once; their agents make them nodes."""

    def one(node: Node) -> None:
        if again:
            node.teardown()
        node.prepare(cluster.nodes, mtu=mtu, vtep=str(node.underlay.ip))
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


def _wait_until_released(node: Node) -> None:
    """No link and no address of a pod is left; the agent hears of links that end by themselves."""
    end = time.monotonic() + RELEASED_SECONDS
    listing = [PYTHON, "-m", "pycni", "endpoints", "-ojson"]
    while json.loads(left := node.guest.check(listing)):
        assert time.monotonic() < end, left
    assert node.facts()["pods"] == {}


def _queued(node: Node, pod: str, link: str, addresses: list[str]) -> None:
    """A pod sends through the ingress qdisc that another has put on its host end, where else
    nothing comes in: netkit counts what it redirects as sent, but not as received."""
    node.guest.check(["tc", "qdisc", "add", "dev", link, "ingress"])
    node.check(pod)  # the endpoint is so now, if the agent has not been here before
    for address in addresses:
        _reaches(node, pod, node, address)
    (shown,) = json.loads(node.guest.check(["ip", "-json", "-s", "link", "show", "dev", link]))
    assert shown["stats64"]["rx"]["bytes"] > len(addresses) * TRANSFER, shown


def _refuses_netkit(node: Node) -> None:
    """The error names what is missing and what to do, and nothing is left of the attempt."""
    before = _visible(node)
    node.keys = {"device": "netkit"}
    said = "a pod"
    try:
        node.add("none")
    except GuestError as error:
        said = str(error)
    assert "CONFIG_NETKIT" in said, said
    node.guest.check(["ip", "netns", "del", "none"])
    assert _visible(node) == before


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
        _reaches(node, "pod1", node, address)


def _visible(node: Node) -> str:
    """Links, qdiscs, pins and records: what a refused setup must not leave."""
    commands = (
        ("ip", "-json", "link"),
        ("tc", "-json", "qdisc"),
        ("find", "/sys/fs/bpf", "/var/lib/pycni"),
    )
    return "".join(node.guest.check(command) for command in commands)


def _cross_both(cluster: Cluster) -> None:
    for family in (4, 6):
        cross_node(cluster, family)


def _reaches(source: Node, pod: str, target: Node, address: str) -> None:
    """Echo, an echo as large as the pod's MTU with DF, and a transfer each way over TCP."""
    family = ip_address(address).version
    largest = source.mtu(pod) - ICMP_HEADERS[family]
    small = source.echo(pod, [address], **PING)
    large = source.echo(pod, [address], **PING, size=largest, dont_fragment=True)
    assert small == large == {}, f"{source.name} {pod} to {address}: lost {small}, large {large}"
    sent, got = source.send(pod, target, address, TRANSFER)
    assert sent["bytes"] == got["bytes"] == TRANSFER, f"{address}: {sent}, {got}"
    assert sent["sha256"] == got["sha256"], f"{address} received other bytes than were sent"


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
