# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/netns.py: is a descriptor a pod's network namespace?"""

import os
from pathlib import Path

import pytest

from pycni.cni import netns
from pycni.errors import InvalidNetns


@pytest.fixture
def opened():
    descriptors: list[int] = []

    def open_path(path: Path | str) -> int:
        descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        return descriptors[-1]

    yield open_path
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def other_node(monkeypatch):
    """As seen from another namespace: ours is then a pod's."""
    monkeypatch.setattr(netns, "OWN", Path("/proc/self/ns/mnt"))


@pytest.mark.usefixtures("other_node")
def test_the_network_namespace_of_a_pod_passes(opened):
    netns.check(opened("/proc/self/ns/net"))


def test_the_nodes_own_namespace_is_refused(opened):
    with pytest.raises(InvalidNetns, match="of the node itself"):
        netns.check(opened("/proc/self/ns/net"))


def test_the_nodes_own_namespace_passes_if_the_runtime_insists(opened):
    netns.check(opened("/proc/self/ns/net"), allow_own=True)


@pytest.mark.parametrize("kind", ["mnt", "uts", "user", "pid"])
def test_a_namespace_of_another_kind_is_refused(opened, kind):
    with pytest.raises(InvalidNetns, match="no network namespace"):
        netns.check(opened(f"/proc/self/ns/{kind}"))


def test_an_ordinary_file_is_refused(opened, tmp_path):
    left_by_umount = tmp_path / "netns"
    left_by_umount.touch()

    with pytest.raises(InvalidNetns) as caught:
        netns.check(opened(left_by_umount))

    assert caught.value.details == "found a regular file"


def test_what_is_no_file_is_refused(opened, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    for path in (fifo, tmp_path, "/dev/null"):
        with pytest.raises(InvalidNetns, match="is no namespace"):
            netns.check(opened(path))


def test_what_is_at_a_path_is_told_in_words(tmp_path):
    missing = str(tmp_path / "missing")

    assert netns.found(str(tmp_path)) == f"found a directory at {tmp_path}"
    assert netns.found("/dev/null") == "found a character device at /dev/null"
    assert netns.found(missing).startswith(f"found nothing at {missing}")
