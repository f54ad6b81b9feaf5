"""Programs for the packet tables: compiled once, loaded once per underlay family."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dataplane import Dataplane, compile_recorded
from world import FAMILIES, Family

from loader.compile import Objects


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return compile_recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session", params=FAMILIES, ids=lambda underlay: f"over {underlay.name}")
def dataplane(request: pytest.FixtureRequest, recorded: Objects) -> Iterator[Dataplane]:
    """The programs of one node, in turn over an IPv4 and an IPv6 underlay."""
    with Dataplane(recorded, request.param) as dataplane:
        yield dataplane


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    """The family of the pods' packets."""
    return request.param
