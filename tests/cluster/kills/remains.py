# SPDX-License-Identifier: Apache-2.0
"""What a node has at one moment, to compare before with after: nothing of pods may stay.

That is what tests of pycni alone compare (support/snapshot.py), and what only a machine of a
cluster has: network namespaces, results of libcni, control groups, mounts and processes.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cluster import traces
from cluster.life import Running
from cluster.machine import Machine
from pycni.errors import InvalidNetns
from pycni.kernel import namespaces
from pycni.lab.layout import LabNode
from pycni.lab.topology import NETNS_DIR
from pycni.settings import Settings
from support import snapshot
from support.snapshot import Snapshot

GONE_SECONDS = 90.0
"""Until nothing of the last pods is left: the kubelet looks after control groups and volumes at
times, and an agent rests between listings of the kernel's connections."""
PAUSE_SECONDS = 1.0
WORDS = 3
"""Of a command line, that tell programs apart."""
MOVING = ("neighbours", "fdb")
"""Sections that change while packets flow."""
OTHERS_TABLE = re.compile(r'"(table|name)": "kube-proxy"')
"""kube-proxy's rules follow the API."""
NUMBERS = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b\d+\b")
"""Of containers, pods and snapshots: they are others after each start."""
SHIM = "containerd-shim-runc-v2"
BUNDLES = "/run/containerd/io.containerd.runtime.v2.task"
"""A directory for each container that containerd knows."""


def take(running: Running, node: LabNode) -> Snapshot:
    """A worker as it is now. Raises PycniError if its machine does not run."""
    machine = Machine(node)
    settings = Settings(
        node_name=node.name,
        state_dir=machine.path("/var/lib/pycni"),
        run_dir=machine.path("/run/pycni"),
        bpffs=machine.path("/sys/fs/bpf"),
    )
    found = snapshot.take_in(NETNS_DIR / node.netns, settings)
    found["nft"] = [line for line in found["nft"] if not OTHERS_TABLE.search(line)]
    return found | {
        "pods": sorted(traces.of_others(running.cluster, node) - set(_forgotten(machine))),
        "mounts": _counted(_mounts(machine)),
        "processes": _counted(_commands(machine)),
    }


def more(running: Running, node: LabNode, before: Snapshot) -> list[str]:
    """What is there and was not, or was and is not, after up to GONE_SECONDS; a line each."""
    deadline = time.monotonic() + GONE_SECONDS
    while found := snapshot.differences(before, take(running, node), without=MOVING):
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE_SECONDS)
    return found


def _forgotten(machine: Machine) -> Iterator[str]:
    """Network namespaces with no interface but lo, as traces.py names them.

    One stays when containerd is killed after it has made it and before it has noted the sandbox
    (containerd/cri's issue 568). What a plugin did in it is undone.
    """
    for path in machine.path(traces.NETNS).glob("*"):
        if is_bare(path):
            yield f"network namespace {path.name}"


def is_bare(path: Path) -> bool:
    """Whether a network namespace has no interface but lo; False if there is none."""
    try:
        with path.open() as opened, namespaces.open_rtnl(opened.fileno()) as ipr:
            return [link.ifname for link in ipr.links()] == ["lo"]
    except (OSError, InvalidNetns):
        return False


def _mounts(machine: Machine) -> Iterator[str]:
    """All mount points of a machine and their kinds (proc(5), mounts)."""
    for line in machine.path("/proc/1/mounts").read_text().splitlines():
        where, kind = line.split()[1:3]
        yield f"{NUMBERS.sub('N', where)} {kind}"


def _commands(machine: Machine) -> Iterator[str]:
    """The first words of each process in a machine, of its pods' too."""
    parents = set(_parents(machine))
    for path in machine.path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = path.read_text(errors="replace").split("\0")
            has_child = path.parent.name in parents
            if words[0] and not is_forgotten_shim(
                words, machine.path(BUNDLES), has_child=has_child
            ):
                named = [Path(words[0]).name, *words[1:WORDS]]
                yield NUMBERS.sub("N", " ".join(named).strip())


def _parents(machine: Machine) -> Iterator[str]:
    """Processes that have children (proc(5), stat)."""
    for path in machine.path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield path.read_text(errors="replace").rpartition(")")[2].split()[1]


def is_forgotten_shim(words: Sequence[str], bundles: Path, *, has_child: bool) -> bool:
    """Whether a command line is of a shim that no container needs: containerd knows it no more, or
    it has no child.

    One stays when containerd is killed while it makes or ends a container (containerd's issues 6860
    and 12600). All that its container had is looked at as everything else.
    """
    if Path(words[0]).name != SHIM:
        return False
    values = dict(itertools.pairwise(words))
    namespace, name = values.get("-namespace", ""), values.get("-id", "")
    if not namespace or not name:
        return False
    return not has_child or not (bundles / namespace / name).exists()


def _counted(lines: Iterable[str]) -> list[str]:
    return sorted(f"{line} ({number} times)" for line, number in Counter(lines).items())
