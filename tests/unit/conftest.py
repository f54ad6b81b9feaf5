# SPDX-License-Identifier: Apache-2.0
"""One etcd for all tests that need nothing but keys of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unit.stores.etcds import Etcd, running


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd")) as server:
        server.wait()
        yield server
