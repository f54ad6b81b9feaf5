# SPDX-License-Identifier: Apache-2.0
"""The real node of bench.kube_scale, and what is measured of its agent."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.counting import Counting
from bench.kube_servers import CLUSTER, Counts, Server
from pycni.lab import processes
from pycni.lab.cluster import Lab, pycni_command, wait_for_agent
from support import labs

MEMORY_MAX = 64.0
"""MiB that an agent may take."""
KNOWN_SECONDS = 180.0
RETURN_SECONDS = 60.0
STILL_SECONDS = 3.0
"""Without a byte, after which the agent has read what there is."""
HEAD = (
    f"{'store':>7} {'phase':>6} {'s':>5} {'MiB':>6} {'peak':>6} {'cpu s':>7} {'% core':>6} "
    f"{'connections':>11} {'requests':>8} {'writes':>6} {'events':>6} {'KiB in':>8} {'KiB out':>8}"
)
RESET_PEAK = "5"
"""What proc(5) clear_refs takes."""


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
    connections: int
    received: int
    sent: int


@dataclass
class RealNode:
    """The only node of the lab. `kind` names its store."""

    lab: Lab
    server: Server
    counting: Counting
    kind: str

    def __post_init__(self) -> None:
        self.node = self.lab.layout.nodes[0]

    def configure(self, url: str, name: str) -> None:
        """Before the node is set up: its store and its cluster."""
        labs.write_settings(
            self.node,
            store=url,
            node_name=name,
            cluster_cidrs=[str(cidr) for cidr in CLUSTER.cidrs],
            node_prefix={"ipv4": CLUSTER.node_prefix4, "ipv6": CLUSTER.node_prefix6},
        )

    def setup(self) -> None:
        """As the container before the agent does it."""
        labs.setup(self.node)

    def start(self, *, known: int) -> None:
        """Start the agent; returns when it knows so many other nodes."""
        command = pycni_command(self.node, "--verbose", "agent", "--no-setup")
        kept = processes.start(self.node.netns, command, log=self.node.log_path)
        self.lab.agents[self.node.name] = kept
        self.lab.save()
        wait_for_agent(self.lab, self.node)
        self.wait_for_nodes(known)

    def stop(self) -> None:
        """End the agent."""
        self.lab.stop_agent(self.node)

    def wait_for_nodes(self, nodes: int) -> None:
        """Until the agent has all of them, and reads no more."""
        deadline = time.monotonic() + KNOWN_SECONDS
        received, known = -1, -1
        while received != self.counting.received or known != nodes:
            received = self.counting.received
            if time.monotonic() > deadline:
                sys.exit(f"the agent knows {known} of {nodes} nodes: {self._log}")
            time.sleep(STILL_SECONDS)
            known = self._known()

    def wait_for_store(self, counting: Counting) -> None:
        """Until the agent hears of the store again."""
        received, deadline = counting.received, time.monotonic() + RETURN_SECONDS
        while counting.received == received and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(STILL_SECONDS)

    def phase(self, name: str, work: Callable[[], object]) -> Row:
        """What happens while `work` runs."""
        before = self.moment()
        if process := self._process:
            (process / "clear_refs").write_text(RESET_PEAK)
        work()
        return self.row(name, before)

    def row(self, name: str, before: Moment, *, note: str = "") -> Row:
        """What happened since then."""
        after = self.moment()
        seconds = after.when - before.when
        resident, peak = (0.0, 0.0) if self._process is None else _memory(self._process)
        processor = max(0.0, after.processor - before.processor)
        writes = after.counts.writes - before.counts.writes
        events = after.counts.events - before.counts.events
        line = (
            f"{self.kind:>7} {name:>6} {seconds:5.0f} {resident:6.1f} {peak:6.1f} {processor:7.2f} "
            f"{100 * processor / seconds:6.2f} {after.connections - before.connections:11} "
            f"{after.counts.requests - before.counts.requests:8} {writes:6} {events:6} "
            f"{(after.received - before.received) / 1024:8.1f} "
            f"{(after.sent - before.sent) / 1024:8.1f}"
        )
        is_quiet = name != "rest" or writes == events == 0
        return Row(f"{line}  {note}".rstrip(), is_quiet and resident <= MEMORY_MAX)

    def moment(self) -> Moment:
        """Now."""
        used = 0.0 if self._process is None else _used(self._process)
        counting = self.counting
        counts = self.server.counts()
        return Moment(
            time.monotonic(), used, counts, counting.connections, counting.received, counting.sent
        )

    @property
    def _process(self) -> Path | None:
        kept = self.lab.agents.get(self.node.name)
        return None if kept is None else Path("/proc") / str(kept.pid)

    def _known(self) -> int:
        return len(self.lab.pycni(self.node, "maps", "dump", "vteps"))

    @property
    def _log(self) -> str:
        return self.node.log_path.read_text()[-3000:]


def _used(process: Path) -> float:
    """Seconds of a processor that all its threads have used, ended ones too; proc(5), stat."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process: Path) -> tuple[float, float]:
    """MiB now, and at most since the peak was reset."""
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    resident, peak = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return resident, peak
