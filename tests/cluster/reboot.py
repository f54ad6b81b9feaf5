# SPDX-License-Identifier: Apache-2.0
"""A node that loses its power and boots again: what is on its disk stays, all else is gone.

/var/lib of a machine is in memory (init.py), so it is copied before and after.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path

from cluster import cgroups, node
from cluster.life import Running
from cluster.machine import Machine
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab import topology
from pycni.lab.layout import LabNode

DISK = "/var/lib"
DAEMONS = ("kubelet", "containerd", "kube-proxy")
CGROUP_SECONDS = 20.0


def lose_power(running: Running, one: LabNode) -> None:
    """End all at once: daemons, pods, links, and what is in memory. Raises PycniError."""
    machine = Machine(one)
    for daemon in DAEMONS:
        machine.stop_daemon(daemon, kill=True)
    _copy(machine.path(DISK), _disk(machine))
    machine.end()
    group = running.cluster.cgroup(one)
    until(partial(_is_removed, group), f"the control groups of {one.name} are empty",
          CGROUP_SECONDS)  # fmt: skip
    with topology.open_rtnl(running.cluster.layout.underlay_netns) as ipr:
        ipr.delete_link(ipr.ifindex(one.port))  # the kernel takes its time to end a namespace
    topology.remove_netns(one.netns)


def boot(running: Running, one: LabNode) -> None:
    """Start the machine as it is on its disk. Raises PycniError."""
    cluster, programs, machine = running.cluster, running.programs, Machine(one)
    topology.make_node(cluster.layout, one)
    machine.start(programs / "pause")
    _copy(_disk(machine), machine.path(DISK))
    shutil.rmtree(_disk(machine))
    node.start_runtime(cluster, one, images=())
    node.start_kubelet(cluster, programs, one)
    node.start_proxy(cluster, programs, one)


def supervise(one: LabNode) -> None:
    """Start kubelet again if it has ended, as a supervisor does: it ends if it asks a containerd
    that is still reading what it knows of many pods. Raises PycniError."""
    machine = Machine(one)
    kubelet = machine.daemon("kubelet")
    if kubelet is not None and not kubelet.alive:
        machine.start_again("kubelet")


def _disk(machine: Machine) -> Path:
    return machine.directory / "disk"


def _copy(source: Path, target: Path) -> None:
    """With owners, links and devices: layers of images have them all."""
    target.mkdir(exist_ok=True)
    command = ["cp", "--archive", "--one-file-system", f"{source}/.", f"{target}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PycniError(
            f"{source} cannot be copied",
            details=done.stderr.strip()[-1000:],
            hint="see whether there is room in the cache's file system",
        )


def _is_removed(group: str) -> bool:
    try:
        cgroups.remove(group)
    except OSError:
        return False
    return True
