# SPDX-License-Identifier: Apache-2.0
"""The disposable machine a plugin is tested on: namespaces that end with their first process.

Network, mounts and processes are private. /run and /var/lib are empty file systems in memory, sysfs
and the BPF file system are mounted anew, so nothing a plugin does there reaches the machine. The
"host" has `eth0` with a default route to a router, behind which "the world" has an address.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from conformance import namespaces
from conformance.netlink import Rtnl
from conformance.subject import SANDBOX, Subject

UPLINK = "eth0"
HOST = {4: "198.18.0.1/24", 6: "fd00:99::1/64"}
ROUTER = {4: "198.18.0.254/24", 6: "fd00:99::fe/64"}
"""RFC 2544's benchmarking range and a unique local one."""

WORLD = {4: "203.0.113.1", 6: "2001:db8:77::1"}
"""Documentation addresses (RFC 5737, RFC 3849)."""

WORLD_NETNS = Path("/run/netns/world")
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
SUITE = SANDBOX / "suite"
"""Of the suite itself: not looked at by the oracle."""

PRIVATE = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")


def lines(subject: Subject, *, only: str) -> Iterator[dict[str, Any]]:
    """Run the worker for a subject in a sandbox; yields what it reports. Needs root.

    Raises RuntimeError if the worker ends before it has reported its last case.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *PRIVATE]
    command += [sys.executable, "-m", "conformance.worker", json.dumps(subject.to_json()), only]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        try:
            for line in worker.stdout:
                yield json.loads(line)
        finally:
            worker.terminate()
    if worker.returncode != 0:
        raise RuntimeError(f"the sandbox of {subject.name} ended with {worker.returncode}")


def furnish() -> None:
    """Mounts and links, in the new namespaces, before anything else runs."""
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    for directory in ("/run", "/var/lib"):
        namespaces.mount("tmpfs", directory, kind="tmpfs")
    cgroup = Path("/run/cgroup")
    cgroup.mkdir()
    held = namespaces.MS_BIND | namespaces.MS_REC
    namespaces.mount("/sys/fs/cgroup", cgroup, flags=held)
    namespaces.mount("sysfs", "/sys", kind="sysfs")
    namespaces.mount(str(cgroup), "/sys/fs/cgroup", flags=held)
    namespaces.unmount(cgroup)
    cgroup.rmdir()
    with suppress(OSError):  # a kernel without BPF
        namespaces.mount("bpf", "/sys/fs/bpf", kind="bpf")
    for made in (WORLD_NETNS.parent, Path("/run/lock"), SUITE):
        made.mkdir(parents=True)
    namespaces.make(WORLD_NETNS.name)
    with Rtnl() as host, Rtnl(WORLD_NETNS) as outside:
        host.set_link(1, up=True)
        outside.set_link(1, up=True)
        for family, prefix in ((4, 32), (6, 128)):
            outside.add_address(1, f"{WORLD[family]}/{prefix}")
    wire()


def wire() -> None:
    """The uplink; made again if a plugin has deleted it."""
    with Rtnl() as host, Rtnl(WORLD_NETNS) as outside:
        uplink = host.add_link(UPLINK, "veth", peer=UPLINK, peer_netns=WORLD_NETNS)
        # no duplicate address detection: nothing may change by itself later
        Path(f"/proc/sys/net/ipv6/conf/{UPLINK}/accept_dad").write_text("0")
        port = outside.link(UPLINK)
        assert port is not None
        host.set_link(uplink, up=True)
        outside.set_link(port.index, up=True)
        for family in HOST:
            host.add_address(uplink, HOST[family])
            outside.add_address(port.index, ROUTER[family])
            router = ROUTER[family].partition("/")[0]
            host.add_route(EVERYWHERE[family], gateway=router, index=uplink)
