"""Programs for the packet tables: compiled once, loaded once per underlay family."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cases import Dataplanes
from dataplane import Dataplane, compile_recorded
from world import FAMILIES, IPV4, Family, cluster

from loader.compile import Objects


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The programs behind recorded.h; of compile_recorded.py where there is no clang."""
    if compiled := os.environ.get("PYCNI_RECORDED"):
        return Objects(Path(compiled), "recorded")
    return compile_recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def dataplanes(recorded: Objects) -> Iterator[Dataplanes]:
    """The programs of one node, by the name of the underlay's family."""
    with ExitStack() as stack:
        yield {
            underlay.name: stack.enter_context(Dataplane(recorded, underlay))
            for underlay in FAMILIES
        }


@pytest.fixture(scope="session")
def own_dataplanes(recorded: Objects) -> Iterator[Dataplanes]:
    """The same, encapsulating themselves."""
    with ExitStack() as stack:
        yield {
            underlay.name: stack.enter_context(Dataplane(recorded, underlay, own_encap=b"\1"))
            for underlay in FAMILIES
        }


@pytest.fixture
def make_dataplane(recorded: Objects) -> Iterator[Callable[..., Dataplane]]:
    """Loads the programs with other constants."""
    with ExitStack() as stack:

        def make(underlay: Family, **changes: bytes) -> Dataplane:
            return stack.enter_context(Dataplane(recorded, underlay, **changes))

        yield make


@pytest.fixture
def dataplane(dataplanes: Dataplanes) -> Dataplane:
    """The programs over IPv4, with the maps of `cluster()` and packets without metadata."""
    dataplane = dataplanes[IPV4.name]
    dataplane.fill(cluster(IPV4))
    dataplane.arrive_from(None)
    return dataplane


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    """The family of the pods' packets."""
    chosen: Family = request.param
    return chosen
