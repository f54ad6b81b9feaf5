# SPDX-License-Identifier: Apache-2.0
"""A pod with a user namespace of its own (hostUsers: false): its network namespace belongs to that.

Runtimes make the user namespace first, then the network namespace in it, and then call ADD.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pycni.lab import processes, runtime, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import WORLD, Pod
from support.flood import unanswered
from support.labs import made_lab
from support.waiting import wait_until

USERS = "0 200000 65536"
"""Of the pod's user namespace (user_namespaces(7)): its root is nobody on the node."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=1) as made:
        yield made


@contextmanager
def user_pod(lab: Lab) -> Iterator[tuple[Pod, int]]:
    """A pod's namespaces, and a process that has them."""
    node = lab.layout.nodes[0]
    pod = Pod("users", node.name, f"{lab.layout.name}-users")
    path = topology.NETNS_DIR / pod.netns
    owner = subprocess.Popen(["unshare", "--user", "--net", "sleep", "600"])
    try:
        wait_until(lambda: owner.poll() is not None or has_others(owner.pid), "namespaces")
        if owner.poll() is not None:  # the kernel refuses it in a chroot, or was told to
            pytest.skip("missing: leave to make user namespaces (not given in a chroot)")
        for kind in ("uid", "gid"):
            Path(f"/proc/{owner.pid}/{kind}_map").write_text(USERS)
        path.touch()
        subprocess.run(["mount", "--bind", f"/proc/{owner.pid}/ns/net", path], check=True)
        with topology.open_rtnl(pod.netns) as ipr:
            ipr.set_up(ipr.ifindex("lo"))
        yield pod, owner.pid
    finally:
        owner.kill()
        owner.wait()
        topology.remove_netns(pod.netns)


def has_others(pid: int) -> bool:
    """Whether a process has namespaces of its own."""
    try:
        own, others = (Path(f"/proc/{one}/ns/net").readlink() for one in ("self", pid))
    except FileNotFoundError:
        return False
    return own != others


def test_a_pod_with_users_of_its_own_is_attached_checked_and_detached(lab: Lab) -> None:
    (near, far) = lab.layout.pods
    with user_pod(lab) as (pod, owner):
        assert Path(f"/proc/{owner}/uid_map").read_text().split() == USERS.split()

        lab.attach(pod)
        own = lab.addresses(pod)
        reached = [*lab.addresses(near), *lab.addresses(far), *map(str, WORLD)]

        assert unanswered(lab, pod.netns, reached) == []
        assert unanswered(lab, far.netns, own) == []
        assert parameter(pod, "net/ipv6/conf/eth0/accept_ra") == "0"
        runtime.check(lab.layout.nodes[0], pod, lab.results[pod.name])

        lab.detach(pod)
        with topology.open_rtnl(pod.netns) as ipr:
            assert [link.ifname for link in ipr.links()] == ["lo"]
        left = lab.pycni(lab.layout.nodes[0], "endpoints")
        assert not {row["address"] for row in left} & set(own)


def parameter(pod: Pod, name: str) -> str:
    done = processes.run(pod.netns, ["cat", f"/proc/sys/{name}"])
    return done.stdout.decode().strip()
