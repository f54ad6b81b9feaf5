# SPDX-License-Identifier: Apache-2.0
"""One control plane for all tests here, of the Kubernetes that `make cluster` built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.recipe import KUBERNETES
from kube.control import Control
from kube.people import People
from pycni.stores.kube import bucket, client, following, own
from vm import cache


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    programs = cache.directory("kubernetes") / KUBERNETES / "bin"
    if not (programs / "kube-apiserver").exists():
        pytest.skip(f"missing: {programs}/kube-apiserver (make cluster builds it)")
    found = Control(tmp_path_factory.mktemp("control"), Path(programs))
    try:
        found.start()
        found.install()
        yield found
    finally:
        found.end()


@pytest.fixture
def people(control: Control, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """All who are in the cluster; gone after the test."""
    monkeypatch.setattr(bucket, "BURST", 1e6)
    bucket._buckets.clear()
    found = People(control)
    yield found
    found.delete_all()
    following._no_stream_until.clear()
    client._preferred.clear()
    own._owns.clear()
