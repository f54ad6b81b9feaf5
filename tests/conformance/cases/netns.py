# SPDX-License-Identifier: Apache-2.0
"""C8 to C11: what CNI_NETNS may be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from conformance import namespaces
from conformance.bench import Bench, pod_interface
from conformance.call import refused
from conformance.registry import case

OWN_NETNS = "/proc/self/ns/net"


def _nothing(path: Path) -> str:
    return str(path)


def _plain_file(path: Path) -> str:
    path.touch()
    return str(path)


def _directory(path: Path) -> str:
    path.mkdir()
    return str(path)


def _fifo(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


def _dangling(path: Path) -> str:
    path.symlink_to("/nowhere")
    return str(path)


def _mount_namespace(_: Path) -> str:
    return "/proc/self/ns/mnt"


NO_NETNS: dict[str, Callable[[Path], str]] = {
    "missing": _nothing, "plain file": _plain_file, "directory": _directory, "fifo": _fifo,
    "dangling link": _dangling, "mount namespace": _mount_namespace,
    "device": lambda _: "/dev/zero",
}  # fmt: skip


@case("C8", "ADD fails at once if CNI_NETNS is no network namespace", over=NO_NETNS)
def no_netns(bench: Bench, make: Callable[[Path], str]) -> None:
    netns = make(bench.directory / "it")
    with bench.unchanged():
        refused(bench.attachment(netns=netns).call("ADD"))


@case("C9", "ADD fails if CNI_NETNS is the host's own")
def own_netns(bench: Bench) -> None:
    attachment = bench.attachment(netns=OWN_NETNS, ifname="cni-test0")
    with bench.unchanged():
        refused(attachment.call("ADD"))
        attachment.call("DEL")


@case("C10", "/proc/<pid>/ns/net of a process works")
def of_a_process(bench: Bench) -> None:
    pod = bench.pod()
    with namespaces.sandbox_process(pod.path) as pid:
        attachment = bench.attachment(netns=f"/proc/{pid}/ns/net")
        attachment.attach()

        assert pod_interface(attachment)["sandbox"] == f"/proc/{pid}/ns/net"
        attachment.detach()
    assert pod.link() is None, "the interface is still in the pod"


@case("C11", "the path of the namespace comes back as it was given",
      over={"symlink": "/var/run/netns", "dots": "/run/../run/netns"})  # fmt: skip
def verbatim(bench: Bench, directory: str) -> None:
    pod = bench.pod()
    attachment = bench.attachment(netns=f"{directory}/{pod.path.name}")

    attachment.attach()

    assert pod_interface(attachment)["sandbox"] == attachment.netns
    attachment.detach()
