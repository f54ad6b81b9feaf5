# SPDX-License-Identifier: Apache-2.0
"""Many attachments, several at a time, while plugins and the agent are killed at random moments.

`python -m fuzz.soak --count 1000`, in tests/, makes a lab of its own and says what the node has
before and after. The same seed gives the same kills after the same delays; what they hit is chance.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.model import addresses
from pycni.agent import keeper
from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.lab.topology import NETNS_DIR
from support import snapshot
from support.labs import BASE, SESSION, made_lab, made_pod
from support.plugin import network
from support.waiting import wait_until

COUNT, WORKERS = 1000, 4
ATTACHMENTS_PER_AGENT = 20
"""Attachments from one end of the agent to the next."""

TRY_AGAIN = 11
ENDED = "killed"
SESSION_VARIABLE = "PYCNI_TEST_SESSION"
"""As in tests/netns/conftest.py."""
SOON = 15.0
"""Seconds within which the agent and the kernel clear what is left."""
CALL_TIMEOUT = 60.0

MOVING = ("neighbours", "sysctls")
"""Sections of a snapshot that change while packets flow, or that say what `links` says."""
SHOWN = ("links", "maps", "addresses", "files", "processes", "descriptors")


@dataclass(frozen=True)
class Fate:
    """What befalls one attachment: seconds until each call is killed; None: it may end."""

    add: float | None
    deletes: tuple[float | None, ...]
    """The last is never killed."""
    agent: float | None
    """Seconds from the beginning of ADD until the agent is killed."""


@dataclass
class Soak:
    """One run on one node."""

    lab: Lab
    node: LabNode
    fates: Sequence[Fate]
    outcomes: Counter[str] = field(default_factory=Counter)
    _live: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _agent: threading.Lock = field(default_factory=threading.Lock)

    def run(self, *, workers: int = WORKERS) -> None:
        """All attachments; raises AssertionError for an answer that no runtime should get."""
        with ExitStack() as stack:
            pods = [stack.enter_context(made_pod(self.lab, self.node)) for _ in range(workers)]
            with ThreadPoolExecutor(workers) as pool:
                for work in [pool.submit(self._work, n, pods) for n in range(workers)]:
                    work.result()

    def _work(self, worker: int, pods: Sequence[Pod]) -> None:
        for number in range(worker, len(self.fates), len(pods)):
            self._attach_and_detach(pods[worker], f"soak{number}", self.fates[number])

    def _attach_and_detach(self, pod: Pod, container: str, fate: Fate) -> None:
        reaper = threading.Thread(target=self._restart_agent, args=(fate.agent,))
        if fate.agent is not None:
            reaper.start()
        status, document = self._call(pod, container, "ADD", fate.add)
        given: set[str] = set()
        if status == 0:
            given = addresses(document)
            with self._lock:
                assert not given & self._live, f"{given & self._live} were given twice"
                self._live |= given
        elif status is not None:
            assert document.get("code") == TRY_AGAIN, f"ADD of {container}: {document}"
        with self._lock:
            self._live -= given
        for delay in fate.deletes:
            status, document = self._call(pod, container, "DEL", delay)
            assert status in (0, None), f"DEL of {container}: {document}"
        if fate.agent is not None:
            reaper.join()

    def _call(
        self, pod: Pod, container: str, command: str, delay: float | None
    ) -> tuple[int | None, dict[str, object]]:
        """Exit status, None if it was killed, and what the plugin printed."""
        with subprocess.Popen(
            processes.inside(self.node.netns, [self.node.bin_dir / "pycni"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": str(NETNS_DIR / pod.netns),
                "CNI_IFNAME": POD_IFNAME,
                "CNI_PATH": str(self.node.bin_dir),
            },
        ) as plugin:
            stdin = json.dumps(network(self.lab)).encode()
            try:
                output, _ = plugin.communicate(stdin, CALL_TIMEOUT if delay is None else delay)
            except subprocess.TimeoutExpired:
                plugin.kill()
                plugin.communicate()
                assert delay is not None, f"{command} of {container} does not end"
                self._note(command, ENDED)
                return None, {}
        document = json.loads(output) if output else {}
        self._note(command, f"code {document.get('code')}" if plugin.returncode else "done")
        return plugin.returncode, document

    def _restart_agent(self, delay: float) -> None:
        """SIGKILL after `delay` seconds, then a new agent."""
        time.sleep(delay)
        with self._agent:
            self.lab.stop_agent(self.node, kill=True)
            self.lab.start_agent(self.node)
            cluster.wait_for_agent(self.lab, self.node)
            self._note("agent", ENDED)

    def _note(self, what: str, outcome: str) -> None:
        with self._lock:
            self.outcomes[f"{what} {outcome}"] += 1


def plan(seed: int, count: int) -> list[Fate]:
    """What befalls each of `count` attachments: about a third of the calls do not end."""
    dice = random.Random(seed)

    def moment() -> float | None:
        """Through the agent a call takes tens of milliseconds, without it hundreds."""
        return dice.choice((None, None, dice.uniform(0, 0.04), dice.uniform(0, 0.4)))

    def fate(number: int) -> Fate:
        last_of_agent = number % ATTACHMENTS_PER_AGENT == ATTACHMENTS_PER_AGENT // 2
        return Fate(
            add=moment(),
            deletes=(*(delay for delay in (moment(), moment()) if delay is not None), None),
            agent=dice.uniform(0, 0.1) if last_of_agent else None,
        )

    return [fate(number) for number in range(count)]


def run(lab: Lab, *, count: int, seed: int) -> list[str]:
    """Soak the first node of a lab, and say what happened; returns what is not as before."""
    node = lab.layout.nodes[0]
    _say(f"{count} attachments, {WORKERS} at a time, seed {seed}")
    wait_until(lambda: _is_settled(lab.agents[node.name].pid), "the agent has all its files open")
    before = take(lab, node)
    soak = Soak(lab, node, plan(seed, count))
    begin = time.monotonic()
    soak.run()
    found = left(before, lab, node)
    calls = ", ".join(f"{what}: {number}" for what, number in sorted(soak.outcomes.items()))
    _say(f"in {time.monotonic() - begin:.0f} s, {calls}")
    _say(*table(before, take(lab, node)), *found)
    return found


def take(lab: Lab, node: LabNode) -> snapshot.Snapshot:
    """A snapshot of a node, with its processes and what its agent has open."""
    return snapshot.take(node) | {
        "processes": sorted(_commands(node)),
        "descriptors": sorted(_descriptors(lab.agents[node.name].pid)),
    }


def left(before: snapshot.Snapshot, lab: Lab, node: LabNode) -> list[str]:
    """What is not as before, when there has been time to clear it away."""
    deadline = time.monotonic() + SOON
    while found := snapshot.differences(before, take(lab, node), without=MOVING):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return found


def table(before: snapshot.Snapshot, after: snapshot.Snapshot) -> Iterator[str]:
    """How many of each there are."""
    for name in SHOWN:
        yield f"{name:12} {len(before[name]):5} before {len(after[name]):5} after"


def _commands(node: LabNode) -> Iterator[str]:
    for kept in processes.inhabitants(node.netns):
        with suppress(OSError):
            yield Path(f"/proc/{kept.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _descriptors(pid: int) -> set[str]:
    """Files by name, each once: SQLite keeps what it has closed for the next that opens the file,
    while others of the process have it locked (os_unix.c). All else by kind and number. The next
    agent has another process ID, so that its own files in /proc are named by "self"."""
    found, kinds = set(), Counter[str]()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            name = str(path.readlink()).replace(f"/proc/{pid}/", "/proc/self/")
            kind, is_kind, _ = name.partition(":")
            kinds[kind] += bool(is_kind)
            found.add(f"{kind} {kinds[kind]}" if is_kind else name)
    return found


def _is_settled(pid: int) -> bool:
    """Whether an agent, which looks at its node every GLANCE, opens nothing more."""
    before = _descriptors(pid)
    time.sleep(1.5 * keeper.GLANCE)
    return _descriptors(pid) == before


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> None:
    """Exit status 0 if the node is as before and every call was answered rightly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    os.environ[SESSION_VARIABLE] = SESSION
    try:
        with made_lab(nodes=2, pods=1) as lab:
            found = run(lab, count=options.count, seed=options.seed)
    finally:
        shutil.rmtree(BASE, ignore_errors=True)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
