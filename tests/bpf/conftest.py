# SPDX-License-Identifier: Apache-2.0
"""Programs for the packet tables: compiled once, loaded once per underlay family."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bpf.cases import Dataplanes
from bpf.dataplane import Dataplane, compile_recorded
from bpf.layout import ON
from bpf.service_world import PROTOCOLS, REJECT_MARK, Services
from bpf.world import FAMILIES, IPV4, Family, cluster
from loader.compile import Objects

OWN_VXLAN = ("test_own_encap.py", "test_own_decap.py")
OTHER_FAMILY = re.compile("IPv4 over IPv6|IPv6 over IPv4|IPv4-IPv6-|IPv6-IPv4-")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of other kernels (tests/vm) PYCNI_LACKS names the features that they lack: setup does not
    put in force there what is tested of them."""
    lacks = os.environ.get("PYCNI_LACKS", "").split()
    out = [item for item in items if any(_needs(item, feature) for feature in lacks)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def _needs(item: pytest.Item, feature: str) -> bool:
    if feature == "own_encap":
        verified = "every_setting" in item.name and "own encapsulation" in item.name
        fixtures: Sequence[str] = getattr(item, "fixturenames", ())
        ours = item.path.name in OWN_VXLAN or "own_vxlan" in item.name
        return ours or verified or "own_dataplanes" in fixtures
    if feature == "set_retval":
        return "with set_retval" in item.name
    if feature == "netkit":
        return item.path.name == "test_on_netkit.py"
    if feature == "decap_l3":
        return item.path.name == "test_own_decap.py" and bool(OTHER_FAMILY.search(item.name))
    return False


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


@pytest.fixture(scope="session")
def direct_dataplanes(recorded: Objects) -> Iterator[Dataplanes]:
    """The same, sending to nodes without outer headers; VXLAN is left to the device."""
    with ExitStack() as stack:
        yield {
            underlay.name: stack.enter_context(Dataplane(recorded, underlay, direct=b"\1"))
            for underlay in FAMILIES
        }


@pytest.fixture(scope="session")
def ipip_dataplanes(recorded: Objects) -> Iterator[Dataplanes]:
    """The same, sending to nodes in IPIP; VXLAN is left to the device."""
    with ExitStack() as stack:
        yield {
            underlay.name: stack.enter_context(Dataplane(recorded, underlay, ipip=ON))
            for underlay in FAMILIES
        }


@pytest.fixture(scope="session")
def service_dataplane(recorded: Objects) -> Iterator[Dataplane]:
    """The programs over IPv4, translating what pods send to Services."""
    mark = struct.pack("=I", REJECT_MARK)
    with Dataplane(recorded, IPV4, services=ON, own_encap=b"\1", reject_mark=mark) as made:
        yield made


@pytest.fixture
def services(service_dataplane: Dataplane) -> Services:
    """The same without a Service, with the maps of `cluster()` and packets without metadata."""
    service_dataplane.fill(cluster(IPV4))
    service_dataplane.arrive_from(None)
    made = Services(service_dataplane)
    made.clear()
    return made


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """What a packet carries that has ports."""
    return str(request.param)


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
