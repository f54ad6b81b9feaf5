# SPDX-License-Identifier: Apache-2.0
"""Real runtimes on the nodes of a lab, each a private instance that is gone after the tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pycni.lab.cluster import Lab
from runtimes import containerd, images, podman
from runtimes.containerd import Containerd
from runtimes.podman import Podman
from support import leftovers, unchanged
from support.labs import BASE, SESSION, forget_shared, made_lab

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "podman": "podman",
    "conmon": "conmon",
}
"""What the tests run, and the Debian package that has it."""

FILES = {
    containerd.LOOPBACK: "containernetworking-plugins",
    images.BUSYBOX_PROGRAM: "busybox-static",
}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """A podman without CNI (from 5.0 on, unless built with it) can execute no plugin."""
    return True if collection_path.name == "test_podman.py" and not podman.speaks_cni() else None


def pytest_report_header() -> list[str]:
    """Says what is not collected."""
    return [] if podman.speaks_cni() else ["podman: built without CNI, its tests are not collected"]


def pytest_runtest_setup() -> None:
    lacking = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    lacking |= {package for file, package in FILES.items() if not file.exists()}
    if lacking:
        pytest.skip(f"missing: {', '.join(sorted(lacking))} (make packages)")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """After all of it: no process, mount, control group or cached result that was not there before.

    Other suites of this session may have a lab up, which ends after this.
    """
    before = set(leftovers.found(BASE, SESSION))
    had_netns_dir = leftovers.mounts_below(leftovers.NETNS) != []
    yield
    if not had_netns_dir:
        leftovers.unmount_if_empty(leftovers.NETNS)
    forget_shared()
    assert set(leftovers.found(BASE, SESSION)) - before == set()


@pytest.fixture(scope="session")
def cluster(_nothing_is_left: None) -> Iterator[Lab]:
    """Two nodes without pods."""
    with made_lab(nodes=2, pods=0) as lab:
        yield lab


@pytest.fixture(scope="session")
def archives(cluster: Lab) -> Path:
    """A directory with the images."""
    directory = cluster.layout.directory / "images"
    directory.mkdir()
    images.pause_archive(directory / "pause.tar")
    images.busybox_archive(directory / "busybox.tar")
    return directory


@pytest.fixture(scope="session")
def first_node(cluster: Lab, archives: Path) -> Iterator[Containerd]:
    with containerd.running(cluster.layout.nodes[0], session=SESSION, archives=archives) as one:
        yield one


@pytest.fixture(scope="session")
def second_node(cluster: Lab, archives: Path) -> Iterator[Containerd]:
    with containerd.running(cluster.layout.nodes[1], session=SESSION, archives=archives) as one:
        yield one


@pytest.fixture(scope="session")
def podman_node(cluster: Lab, archives: Path) -> Iterator[Podman]:
    with podman.ready(
        cluster.layout.nodes[1], network=cluster.layout.name, session=SESSION, archives=archives
    ) as one:
        yield one


@pytest.fixture
def all_gone(first_node: Containerd) -> Callable[[], None]:
    """Asserts that nothing on the first node is left of what the test made."""
    return unchanged.since_now(first_node.node)
