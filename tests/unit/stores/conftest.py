# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes store in a fake API server, without the waits of a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.stores import open_store
from pycni.stores.kube import KubeStore, bucket, client, following, nodes, own
from unit.stores.kube_api import Api, kubeconfig, serving
from unit.stores.kube_nodes import Nodes
from unit.stores.stores_in_tests import CLUSTER


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bucket, "RATE", 1e6)
    monkeypatch.setattr(bucket, "SLOW_RATE", 1e6)
    monkeypatch.setattr(following, "BASE", 0.01)
    monkeypatch.setattr(following, "CAP", 0.02)
    monkeypatch.setattr(following, "LIST_SILENCE", 0.3)
    monkeypatch.setattr(nodes, "WAITS", (0.01, 0.01))
    yield
    following._no_stream_until.clear()
    client._preferred.clear()
    own._owns.clear()


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        server.make_node = Nodes(server).make
        yield server


@pytest.fixture
def kube(api: Api, tmp_path: Path) -> KubeStore:
    found = open_store(f"kube:{kubeconfig(tmp_path, api)}", CLUSTER)
    assert isinstance(found, KubeStore)
    return found
