# SPDX-License-Identifier: Apache-2.0
"""pycni/node/host_clients.py: which sockets are the node's, or why that cannot be told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pycni.errors import SetupError
from pycni.kernel import cgroups, namespaces
from pycni.kernel.cgroups import Root
from pycni.node import host_clients
from pycni.node.host_clients import Place
from pycni.settings import Settings

ROOT = Root(Path("/sys/fs/cgroup"), is_whole=True)
SERVED = Settings(node_name="one", services="pods+host")


@pytest.fixture(autouse=True)
def _kernel(monkeypatch):
    monkeypatch.setattr(cgroups, "root", lambda: ROOT)
    monkeypatch.setattr(namespaces, "cookie", lambda: 7)


@pytest.fixture
def old_kernel(monkeypatch):
    """Without SO_NETNS_COOKIE; says whether this is the first namespace."""

    def cookie() -> int:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(namespaces, "cookie", cookie)
    return lambda *, first: monkeypatch.setattr(namespaces, "is_first", lambda: first)


@pytest.mark.parametrize("services", ["off", "pods"])
def test_where_they_are_not_served_nothing_is_looked_for(services):
    assert host_clients.look(SERVED.model_copy(update={"services": services})) is None


def test_they_are_told_by_their_namespace():
    assert host_clients.look(SERVED) == Place(ROOT.path, 7)


def test_without_control_groups_it_says_what_to_mount(monkeypatch):
    monkeypatch.setattr(cgroups, "root", lambda: None)

    with pytest.raises(SetupError, match="no control groups v2") as caught:
        host_clients.look(SERVED)

    assert "mount -t cgroup2" in caught.value.hint


def test_an_old_kernel_knows_its_first_namespace(old_kernel):
    old_kernel(first=True)

    assert host_clients.look(SERVED) == Place(ROOT.path, 0)


def test_an_old_kernel_knows_no_other_namespace(old_kernel):
    old_kernel(first=False)

    with pytest.raises(SetupError, match="cannot be told from others"):
        host_clients.look(SERVED)
