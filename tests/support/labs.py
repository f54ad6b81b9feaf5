# SPDX-License-Identifier: Apache-2.0
"""Labs for tests: small clusters in namespaces, always taken down, and what is done to nodes.

Everything of a session lies under one private directory of /run, whose paths are short enough for
a unix socket, and every name begins with the session's.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from typing import Any, TypeVar

from loader import libbpf
from pycni.files import make_private_directory
from pycni.kernel import namespaces
from pycni.kernel.links import IFF_RUNNING
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import NODE_UPLINK, LabNode, Pod, draw
from support.kernel import open_iproute
from support.waiting import wait_until

PIDFD_GETFD = 438
"""asm-generic/unistd.h."""
RT_SCOPE_LINK = 253
"""linux/rtnetlink.h."""

T = TypeVar("T")

SESSION = f"t{os.getpid()}"
BASE = Path(tempfile.gettempdir() if os.geteuid() else "/run") / SESSION
CACHE = BASE / "cache"
"""Of compiled programs, for labs that do not test the compiler."""
TUNING_STATE = (Path("/run/cni/tuning"), Path("/run/cni"))
"""Debian's `tuning` writes here what its DEL puts back, and leaves the directories."""

_numbers = itertools.count(1)


@contextmanager
def made_lab(*, nodes: int, pods: int) -> Iterator[Lab]:
    """A lab that is up."""
    with prepared_lab(nodes=nodes, pods=pods) as lab:
        start(lab)
        yield lab


def start(lab: Lab) -> None:
    """Start the agents of all nodes, and attach all pods once the nodes know each other."""
    for node in lab.layout.nodes:
        lab.start_agent(node)
    for node in lab.layout.nodes:
        cluster.wait_for_agent(lab, node)
    cluster.wait_for_members(lab)
    for pod in lab.layout.pods:
        lab.attach(pod)


def forget_shared() -> None:
    """Remove what the labs of this session share, and their directory with the last of them."""
    _forget_cache()
    for directory in TUNING_STATE:
        with suppress(OSError):
            directory.rmdir()


@atexit.register
def _forget_cache() -> None:
    """Benchmarks have no end of a session. In no child of the session's process."""
    if f"t{os.getpid()}" == SESSION:
        shutil.rmtree(CACHE, ignore_errors=True)
        with suppress(OSError):
            BASE.rmdir()


@contextmanager
def prepared_lab(*, nodes: int, pods: int = 0, **settings: Any) -> Iterator[Lab]:
    """Hosts that pycni has not touched yet, with their settings, and pods' empty namespaces."""
    name = f"{SESSION}x{next(_numbers)}"
    lab = Lab(draw(name, nodes=nodes, pods=pods, base=BASE))
    make_private_directory(lab.layout.directory)
    try:
        lab.save()
        topology.make_underlay(lab.layout)
        for node in lab.layout.nodes:
            cluster.prepare_node(lab, node)
            write_settings(node, cache_dir=CACHE, **settings)
        for pod in lab.layout.pods:
            topology.make_netns(pod.netns)
        wait_until(lambda: all(map(_has_settled, lab.layout.nodes)), "the underlay has settled")
        yield lab
    finally:
        cluster.down(lab)


def _has_settled(node: LabNode) -> bool:
    """Whether the kernel has seen the carrier, and has made its own addresses and routes."""
    with open_iproute(node.netns) as ipr:
        (link,) = ipr.get_links(ifname=NODE_UPLINK)
        addresses = ipr.get_addr(index=link["index"], scope=RT_SCOPE_LINK)
    return bool(link["flags"] & IFF_RUNNING and addresses)


def write_settings(node: LabNode, **changes: Any) -> None:
    """Change keys of a node's settings file."""
    values = tomllib.loads(node.settings_path.read_text()) | changes
    lines = [f"{key} = {_toml(value)}\n" for key, value in values.items()]
    node.settings_path.write_text("".join(lines))


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, default=str)


def pycni(node: LabNode, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The CLI on a node, whatever comes of it."""
    return processes.run(node.netns, pycni_command(node, *arguments))


def within(netns: str, work: Callable[[], T]) -> T:
    """Run `work` in a namespace, in a thread that ends with it."""
    with (topology.NETNS_DIR / netns).open() as there:
        return namespaces.inside(there.fileno(), work)


def setup(node: LabNode) -> str:
    """`pycni setup`, which must succeed; returns what it says."""
    done = pycni(node, "setup")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def teardown(node: LabNode) -> None:
    """`pycni teardown`, which must succeed."""
    done = pycni(node, "teardown", "--yes")
    assert done.returncode == 0, done.stderr.decode()


def reboot(lab: Lab, node: LabNode) -> None:
    """Take from a node what a reboot takes: processes, pods, links, pins, /run.

    Its network card has the same MAC afterwards: other nodes remember it.
    """
    lab.stop_agent(node, kill=True)
    with topology.open_rtnl(node.netns) as ipr:
        uplink = ipr.link_at(ipr.ifindex(NODE_UPLINK))
    assert uplink is not None
    for pod in node.pods:
        topology.remove_netns(pod.netns)
        lab.results.pop(pod.name, None)
    topology.remove_netns(node.netns)
    libbpf.unmount(node.directory / "bpf")
    for path in sorted((node.directory / "run").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with open_iproute(lab.layout.underlay_netns) as ipr:
        for index in ipr.link_lookup(ifname=node.port):
            ipr.link("del", index=index)
    topology.make_node(lab.layout, node, mac=uplink.mac)
    wait_until(lambda: _has_all_addresses(node), "addresses are known to be nobody else's")


def _has_all_addresses(node: LabNode) -> bool:
    """Whether the kernel has given the uplink its link-local one, and checks none any more."""
    with topology.open_rtnl(node.netns) as ipr:
        found = ipr.addresses()
    return all(one.is_usable for one in found) and any(
        one.ip.version == 6 and one.ip.is_link_local for one in found
    )


@contextmanager
def agent_hung(lab: Lab, node: LabNode) -> Iterator[None]:
    """The node's agent is there and does nothing, so that damage to the node stays. It holds no
    pod's namespace meanwhile: the kernel would not end it."""
    pid = lab.agents[node.name].pid
    own = Path(f"/proc/{pid}/ns/net").stat().st_ino
    try:
        wait_until(lambda: _stop_within(pid, own), "the agent is stopped within its namespace")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stop_within(pid: int, own: int) -> bool:
    """Stop a process; False if it holds other namespaces: it runs on then, to let go."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _states(pid) == {"T"}, "all threads of the agent are stopped")
    if _namespaces(pid) <= {own}:
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def _namespaces(pid: int) -> set[int]:
    """The inodes of namespaces that a stopped process holds: by descriptors, also of sockets, and
    network namespaces by threads. A descriptor has the name of the file over which the namespace
    was mounted, which may be gone."""
    held = {one.stat().st_ino for one in Path(f"/proc/{pid}/task").glob("*/ns/net")}
    nsfs = Path("/proc/self/ns/net").stat().st_dev
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        found = descriptor.stat()
        if stat.S_ISSOCK(found.st_mode):
            held.add(_namespace_of_socket(pid, int(descriptor.name)))
        elif found.st_dev == nsfs:
            held.add(found.st_ino)
    return held


def _namespace_of_socket(pid: int, descriptor: int) -> int:
    """Its inode; pidfd_getfd(2)."""
    with ExitStack() as opened:
        process = os.pidfd_open(pid)
        opened.callback(os.close, process)
        ours = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, descriptor, 0)
        assert ours >= 0, os.strerror(ctypes.get_errno())
        opened.callback(os.close, ours)
        namespace = ioctl(ours, namespaces.SIOCGSKNS)
        opened.callback(os.close, namespace)
        return os.fstat(namespace).st_ino


def _states(pid: int) -> set[str]:
    """Of all threads of a process, proc(5)."""
    found = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {one.rpartition(")")[2].split()[0] for one in found}


@contextmanager
def made_pod(lab: Lab, node: LabNode) -> Iterator[Pod]:
    """One more pod's namespace, with nothing attached."""
    name = f"extra{next(_numbers)}"
    pod = Pod(name, node.name, f"{lab.layout.name}-{name}")
    topology.make_netns(pod.netns)
    try:
        yield pod
    finally:
        topology.remove_netns(pod.netns)


def drops(lab: Lab, node: LabNode) -> dict[tuple[str, str], int]:
    """Packets dropped on a node so far, by reason and program."""
    rows = lab.pycni(node, "drops")
    return {(row["reason"], row["program"]): row["packets"] for row in rows}


def rows(lab: Lab, node: LabNode, name: str) -> list[dict[str, Any]]:
    """The entries of a map."""
    found: list[dict[str, Any]] = lab.pycni(node, "maps", "dump", name)
    return found


def wait_for_rows(lab: Lab, node: LabNode, name: str, count: int) -> None:
    """Until a map has as many entries."""
    wait_until(lambda: len(rows(lab, node, name)) == count, f"{node.name} has {count} {name}")
