# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.kube_scale`: what one agent costs in a Kubernetes of thousands of nodes.

Run as root in tests/. One node is real, in a namespace that ends with the run; the others are
records. The node is set up beside them, then its agent starts, as the units of systemd do it, and
rests. Printed for a fake API server and a real one
(which `make cluster` builds): the agent's memory and processor time, requests, bytes, writes, and
events of the kind that all agents watch.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.counting import Counting
from bench.kube_servers import CLUSTER, Counts, Server, fake, real
from pycni.lab import processes
from pycni.lab.cluster import Lab, pycni_command, wait_for_agent
from support.labs import prepared_lab, setup, within

SERVERS: dict[str, Callable[[str, int], AbstractContextManager[Server]]] = {
    "fake": fake,
    "real": real,
}
NODE = "worker-1.example"
MEMORY_MAX = 64.0
"""MiB that an agent may take."""
KNOWN_SECONDS = 120.0
STILL_SECONDS = 3.0
"""Without a byte, after which the agent has read the list."""
SETTLING = 35.0
"""Seconds after the start: the agent's first looks at everything are over."""
HEAD = (
    f"{'server':>7} {'nodes':>6} {'phase':>6} {'s':>6} {'MiB':>6} {'peak':>6} {'cpu s':>7} "
    f"{'requests':>9} {'writes':>7} {'events':>7} {'KiB in':>8} {'KiB out':>8}"
)


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    print_line(HEAD)
    well = True
    for name in options.servers:
        for row in _rows(name, SERVERS[name](NODE, options.nodes), options):
            print_line(row.line)
            well = well and row.is_well
    sys.exit(not well)


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Row:
    line: str
    is_well: bool


@dataclass(frozen=True)
class Moment:
    """What had happened so far."""

    when: float
    processor: float
    counts: Counts
    received: int
    sent: int


def _rows(
    name: str, making: AbstractContextManager[Server], options: argparse.Namespace
) -> Iterator[Row]:
    with making as server, prepared_lab(nodes=1) as lab:
        node = lab.layout.nodes[0]
        listener = within(node.netns, lambda: socket.create_server(("127.0.0.1", 0)))
        with listener:
            counting = Counting(listener, server.where)
            _configure(lab, server.kubeconfig(counting.port))
            before = Moment(time.monotonic(), 0.0, server.counts(), 0, 0)
            setup(node)
            begin = Moment(time.monotonic(), 0.0, server.counts(), *counting.bytes)
            yield _row(name, "setup", options.nodes, None, (before, begin))
            command = pycni_command(node, "--verbose", "agent", "--no-setup")
            lab.agents[node.name] = processes.start(node.netns, command, log=node.log_path)
            lab.save()
            wait_for_agent(lab, node)
            process = Path("/proc") / str(lab.agents[node.name].pid)
            _wait_for_nodes(lab, options.nodes, counting)
            known = _moment(process, server, counting)
            yield _row(name, "start", options.nodes, process, (begin, known))
            time.sleep(SETTLING)
            resting = _moment(process, server, counting)
            yield _row(name, "settle", options.nodes, process, (known, resting))
            time.sleep(options.seconds)
            end = _moment(process, server, counting)
            yield _row(name, "rest", options.nodes, process, (resting, end))


def _configure(lab: Lab, kubeconfig: Path) -> None:
    """Before the node is set up: its store and its cluster."""
    node = lab.layout.nodes[0]
    cidrs = ", ".join(f'"{cidr}"' for cidr in CLUSTER.cidrs)
    lines = [
        line
        for line in node.settings_path.read_text().splitlines()
        if not line.startswith(("store", "node_name"))
    ]
    lines += [
        f'store = "kube:{kubeconfig}"',
        f'node_name = "{NODE}"',
        f"cluster_cidrs = [{cidrs}]",
        f"node_prefix = {{ ipv4 = {CLUSTER.node_prefix4}, ipv6 = {CLUSTER.node_prefix6} }}",
    ]
    node.settings_path.write_text("\n".join(lines) + "\n")


def _wait_for_nodes(lab: Lab, nodes: int, counting: Counting) -> None:
    """Until the agent has all of them, and reads no more."""
    deadline = time.monotonic() + KNOWN_SECONDS
    received = -1
    while received != counting.received:
        received = counting.received
        if time.monotonic() > deadline:
            sys.exit(f"the agent reads without end: {_log(lab)}")
        time.sleep(STILL_SECONDS)
    known = len(lab.pycni(lab.layout.nodes[0], "maps", "dump", "vteps"))
    if known != nodes:
        sys.exit(f"the agent knows {known} of {nodes} nodes: {_log(lab)}")


def _log(lab: Lab) -> str:
    return lab.layout.nodes[0].log_path.read_text()[-3000:]


def _moment(process: Path, server: Server, counting: Counting) -> Moment:
    return Moment(time.monotonic(), _used(process), server.counts(), *counting.bytes)


def _row(
    name: str, phase: str, nodes: int, process: Path | None, moments: tuple[Moment, Moment]
) -> Row:  # fmt: skip
    before, after = moments
    resident, peak = (0.0, 0.0) if process is None else _memory(process)
    writes = after.counts.writes - before.counts.writes
    events = after.counts.events - before.counts.events
    line = (
        f"{name:>7} {nodes:>6} {phase:>6} {after.when - before.when:6.0f} {resident:6.1f} "
        f"{peak:6.1f} {after.processor - before.processor:7.2f} "
        f"{after.counts.requests - before.counts.requests:9} {writes:7} {events:7} "
        f"{(after.received - before.received) / 1024:8.1f} {(after.sent - before.sent) / 1024:8.1f}"
    )
    is_quiet = phase != "rest" or writes == events == 0
    return Row(line, is_quiet and resident <= MEMORY_MAX)


def _used(process: Path) -> float:
    """Seconds of a processor that all its threads have used, ended ones too; proc(5), stat."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process: Path) -> tuple[float, float]:
    """MiB now and at most."""
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    resident, peak = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return resident, peak


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kube_scale", description=__doc__)
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=600.0, help="of rest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
