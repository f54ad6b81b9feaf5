# SPDX-License-Identifier: Apache-2.0
"""The measures: each runs some traffic over a path and gives one number per figure.

Client and server have a CPU each where data flows one way. What goes forth and back (RR, CRR, ping)
has one CPU for both ends: with two, most of the time would be a sleeping CPU's wake-up, and
every path would look alike. On veth, what a packet costs until it is in the receiver's socket runs
on the sender's CPU; RPS, XPS and threaded NAPI are as the kernel has them, which is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import runtimes, traffic
from bench.figures import Figure, Goal
from bench.paths import (
    BETWEEN_NODES,
    CROWDED,
    DIRECT,
    METADATA,
    NODE_TO_NODE,
    OWN,
    OWN_IPIP,
    OWN_LOCAL,
    ROUTED,
    VETH,
    Path,
)
from bench.traffic import CLIENT_CPU, SERVER_CPU, Document, Traffic
from support import offloads

UDP_BYTES = 64
"""Payload of the UDP packets; 106 bytes on the wire with their headers."""
BOTH, SAME = (CLIENT_CPU, SERVER_CPU), (CLIENT_CPU, CLIENT_CPU)

FIGURES = (
    Figure("udp", "64-byte UDP, full load", "packets/s"),
    Figure("udp_cpu_rate", "64-byte UDP, per CPU second of the path", "packets"),
    Figure("udp_lossless", "64-byte UDP, without loss", "packets/s"),
    Figure("udp_cpu", "CPU per packet, both ends", "ns", more_is_better=False),
    Figure("tcp1", "TCP, 1 stream", "Gbit/s", 1),
    Figure("tcp1_cpu", "CPU per GB, 1 stream", "ms", more_is_better=False),
    Figure("tcp4", "TCP, 4 streams", "Gbit/s", 1),
    Figure("tcp4_cpu", "CPU per GB, 4 streams", "ms", more_is_better=False),
    Figure("wire", "TCP, 1 stream, no offloads", "Gbit/s", 2),
    Figure("wire_cpu", "CPU per GB, no offloads", "ms", more_is_better=False),
    Figure("rr", "TCP_RR", "transactions/s"),
    Figure("rr_median", "TCP_RR, one, median", "µs", 1, more_is_better=False),
    Figure("crr", "TCP_CRR", "transactions/s"),
    Figure("crr_median", "TCP_CRR, one, median", "µs", 1, more_is_better=False),
    Figure("ping", "ping RTT, median", "µs", 2, more_is_better=False),
    Figure("ping_p99", "ping RTT, 99 %", "µs", 2, more_is_better=False),
    Figure("run_from_container", "from_container", "ns per run", more_is_better=False),
    Figure("run_from_underlay", "from_underlay", "ns per run", more_is_better=False),
    Figure("run_from_overlay", "from_overlay", "ns per run", more_is_better=False),
    Figure("run_both", "from_container + from_underlay", "ns per run", more_is_better=False),
    Figure("run_nothing", "a program that does nothing", "ns per run", more_is_better=False),
    Figure("run_packet", "all programs", "ns per packet", more_is_better=False),
)

GOALS = (
    Goal("64-byte UDP packets/s ÷ node-to-node", "udp", OWN, 0.90, NODE_TO_NODE),
    Goal("… per CPU second", "udp_cpu_rate", OWN, 0.90, NODE_TO_NODE),
    Goal("64-byte UDP packets/s ÷ metadata vxlan", "udp", OWN, 1.8, METADATA),
    Goal("… per CPU second", "udp_cpu_rate", OWN, 1.8, METADATA),
    Goal("64-byte UDP packets/s ÷ routed vxlan", "udp", OWN, 1.9, ROUTED),
    Goal("… per CPU second", "udp_cpu_rate", OWN, 1.9, ROUTED),
    Goal("TCP, 1 stream ÷ node-to-node", "tcp1", OWN, 0.98, NODE_TO_NODE),
    Goal("TCP_RR ÷ node-to-node", "rr", OWN, 0.95, NODE_TO_NODE),
    Goal("… its median time", "rr_median", OWN, 1 / 0.95, NODE_TO_NODE, at_least=False),
    Goal("TCP_CRR ÷ node-to-node", "crr", OWN, 0.95, NODE_TO_NODE),
    Goal("… its median time", "crr_median", OWN, 1 / 0.95, NODE_TO_NODE, at_least=False),
    Goal("direct, 64-byte UDP packets/s ÷ node-to-node", "udp", DIRECT, 0.76, NODE_TO_NODE),
    Goal("… per CPU second", "udp_cpu_rate", DIRECT, 0.76, NODE_TO_NODE),
    Goal("direct, TCP, 1 stream ÷ node-to-node", "tcp1", DIRECT, 0.98, NODE_TO_NODE),
    Goal("direct, TCP_RR ÷ node-to-node", "rr", DIRECT, 0.88, NODE_TO_NODE),
    Goal("same node, TCP_RR ÷ veth pair", "rr", OWN_LOCAL, 1.0, VETH),
    Goal("… its median time", "rr_median", OWN_LOCAL, 1.0, VETH, at_least=False),
    Goal("same node, 64-byte UDP packets/s ÷ veth pair", "udp", OWN_LOCAL, 1.0, VETH),
    Goal("… per CPU second", "udp_cpu_rate", OWN_LOCAL, 1.0, VETH),
    Goal("from_container + from_underlay, ns", "run_both", OWN, 250, at_least=False),
    Goal("the same, many nodes ÷ 2 nodes", "run_both", CROWDED, 1.05, OWN, at_least=False),
    Goal("ipip, 64-byte UDP packets/s ÷ own encap", "udp", OWN_IPIP, 1.0, OWN),
    Goal("… per CPU second", "udp_cpu_rate", OWN_IPIP, 1.0, OWN),
    Goal("ipip, TCP, 1 stream ÷ own encap", "tcp1", OWN_IPIP, 1.0, OWN),
    Goal("ipip, TCP, 4 streams ÷ own encap", "tcp4", OWN_IPIP, 1.0, OWN),
    Goal("ipip, TCP, 1 stream, no offloads ÷ own encap", "wire", OWN_IPIP, 1.0, OWN),
    Goal("ipip, TCP_RR ÷ own encap", "rr", OWN_IPIP, 1.0, OWN),
    Goal("ipip, TCP_CRR ÷ own encap", "crr", OWN_IPIP, 1.0, OWN),
    Goal(
        "ipip, from_container + from_underlay ÷ own encap",
        "run_both",
        OWN_IPIP,
        1.0,
        OWN,
        at_least=False,
    ),
)


@dataclass(frozen=True)
class Lengths:
    """How long each measure runs, in seconds; `stream` is iperf3's option for how much."""

    stream: tuple[str, str]
    udp: float
    lossless: float
    transactions: float
    ping: float


@dataclass(frozen=True)
class Measure:
    """`over` says on which paths it makes sense."""

    name: str
    run: Callable[[Traffic, Path, Lengths], Mapping[str, float]]
    over: Callable[[Path], bool] = lambda path: path.name != CROWDED


def udp(tool: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
    """As many packets as the sender can."""
    done = tool.run("udp", path, seconds=lengths.udp, size=UDP_BYTES, cpus=BOTH)
    return {
        "udp": done["received"] / done["seconds"],
        "udp_cpu_rate": done["received"] / done["client_cpu"],
        "udp_cpu": 1e9 * (done["client_cpu"] + done["server_cpu"]) / done["received"],
    }


def udp_lossless(tool: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
    """The highest rate at which nothing is lost."""
    cpus, seconds = BOTH, lengths.lossless
    done = tool.run("udp-lossless", path, seconds=seconds, size=UDP_BYTES, cpus=cpus)
    return {"udp_lossless": done["rate"]}


def transactions(mode: str, key: str) -> Measure:
    """One byte there, one byte back."""

    def run(tool: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
        done = tool.run(mode, path, seconds=lengths.transactions, cpus=SAME)
        return {key: done["transactions"] / done["seconds"], f"{key}_median": done["p50"]}

    return Measure(mode, run)


def ping(tool: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
    """One echo after the other, on an idle path."""
    done = tool.run("ping", path, seconds=lengths.ping, cpus=SAME)
    return {"ping": done["p50"], "ping_p99": done["p99"]}


def streams(key: str, count: int) -> Measure:
    """TCP as fast as it goes."""

    def run(_: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
        return _stream_figures(key, traffic.stream(path, streams=count, amount=lengths.stream))

    return Measure(f"{count} TCP streams", run)


def stream_without_offloads(_: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
    """Every segment is a packet of its own between the nodes, as on a wire."""
    with offloads.off(path.links):
        return _stream_figures("wire", traffic.stream(path, streams=1, amount=lengths.stream))


def program_runs(tool: Traffic, path: Path, lengths: Lengths) -> Mapping[str, float]:
    """What our programs take of a packet's time, by the kernel's own count."""
    assert path.sending is not None, path
    assert path.receiving is not None, path
    directories = {"sending": path.sending, "receiving": path.receiving}
    with runtimes.counted(directories) as found:
        done = tool.run("udp", path, seconds=lengths.udp, size=UDP_BYTES, cpus=BOTH)
    at = {
        "from_container": found["sending/from_container"],
        "from_underlay": found["receiving/from_underlay"],
        "from_overlay": found["receiving/from_overlay"],
    }
    fewest = done["received"] / 10  # of others, as ARP, there are a few
    per_run = {f"run_{name}": total / runs for name, (total, runs) in at.items() if runs > fewest}
    both = per_run["run_from_container"] + per_run.get("run_from_underlay", 0)
    total = sum(took for took, _ in _once(found, same=path.sending == path.receiving))
    return {
        **per_run,
        "run_both": both,
        "run_nothing": runtimes.counting_cost(),
        "run_packet": total / done["received"],
    }


MEASURES = (
    Measure("64-byte UDP", udp, lambda _: True),
    Measure("64-byte UDP without loss", udp_lossless),
    transactions("tcp-rr", "rr"),
    transactions("tcp-crr", "crr"),
    Measure("ping", ping),
    streams("tcp1", 1),
    streams("tcp4", 4),
    Measure("no offloads", stream_without_offloads,
            lambda path: path.where == BETWEEN_NODES and path.name != CROWDED),
    Measure("program runs", program_runs, lambda path: path.sending is not None),
)  # fmt: skip


def _stream_figures(key: str, document: Document) -> Mapping[str, float]:
    end = document["end"]
    received, cpu = end["sum_received"], end["cpu_utilization_percent"]
    seconds = (cpu["host_total"] + cpu["remote_total"]) / 100 * received["seconds"]
    return {
        key: received["bits_per_second"] / 1e9,
        f"{key}_cpu": 1000 * seconds / (received["bytes"] / 1e9),
    }


def _once(found: Mapping[str, tuple[int, int]], *, same: bool) -> list[tuple[int, int]]:
    """The counters, those of one node not twice."""
    return [one for name, one in found.items() if not same or name.startswith("sending/")]
