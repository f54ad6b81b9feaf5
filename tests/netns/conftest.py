# SPDX-License-Identifier: Apache-2.0
"""Labs shared by tests, and the proof that the tests leave the machine as it was."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from pycni.lab.cluster import Lab
from pycni.lab.layout import Pod
from pycni.lab.topology import NETNS_DIR
from support import labs, lan
from support.plugin import execute
from support.waiting import DEADLINE

SESSION_VARIABLE = "PYCNI_TEST_SESSION"
"""Inherited by all that the tests start, so that what is left of it can be told from others'."""

TRACKER = b"multiprocessing.resource_tracker"
"""A process that Python starts beside one with processes of its own, and that ends with it."""

BPFFS = Path("/sys/fs/bpf")


@pytest.fixture(scope="session", autouse=True)
def _untouched_machine() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.environ[SESSION_VARIABLE] = labs.SESSION
    before, others = _machine(), set(_left_behind())  # another suite's lab may be up
    yield
    labs.forget_shared()
    deadline = time.monotonic() + DEADLINE
    while (left := set(_left_behind()) - others) and time.monotonic() < deadline:
        time.sleep(0.1)  # a process may be about to end
    assert left == set(), [_command(what) for what in left]
    assert _machine() == before


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two nodes with two pods each, shared by tests that put back what they change."""
    with labs.made_lab(nodes=2, pods=2) as made:
        yield made


@pytest.fixture
def spare(lab: Lab) -> Iterator[Pod]:
    """A pod of the first node with nothing attached, before the test and after."""
    with labs.made_pod(lab, lab.layout.nodes[0]) as pod:
        yield pod
        assert execute(lab, pod, "DEL").status == 0


@pytest.fixture(params=lan.HERE)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a network configuration says, beside its ranges."""
    found: dict[str, Any] = lan.WAYS[request.param]
    return found


@pytest.fixture(params=[name for name in lan.HERE if name == "macvlan"])
def macvlan(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = lan.WAYS[request.param]
    return found


@pytest.fixture
def pods(lab: Lab) -> Iterator[list[Pod]]:
    """Two pods of the first node and one of the second, with nothing attached."""
    first, second = lab.layout.nodes
    with ExitStack() as made:
        found = [made.enter_context(labs.made_pod(lab, node)) for node in (first, first, second)]
        yield found
        for pod in found:
            assert execute(lab, pod, "DEL").status == 0


def _machine() -> dict[str, set[str]]:
    """The machine's own network, which no test may change."""
    with IPRoute() as ipr:
        links = {str(link.get("ifname")) for link in ipr.get_links()}
        routes = {f"{r.get('RTA_DST')}/{r['dst_len']}" for r in ipr.get_routes()}
    return {"links": links, "routes": routes, "pins": {path.name for path in BPFFS.glob("*")}}


def _left_behind() -> list[str]:
    """Namespaces, mounts and processes of this session. Others may run tests at the same time."""
    namespaces = NETNS_DIR.glob(f"{labs.SESSION}*")
    mounts = Path("/proc/mounts").read_text().splitlines()
    return [
        *map(str, namespaces),
        *(line for line in mounts if labs.SESSION in line),
        *_started_here(),
    ]


def _started_here() -> Iterator[str]:
    """A path in /proc for each process."""
    mark = f"{SESSION_VARIABLE}={labs.SESSION}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = mark in (directory / "environ").read_bytes().split(b"\0")
            if is_ours and TRACKER not in (directory / "cmdline").read_bytes():
                yield str(directory)
        except OSError:
            continue


def _command(process: str) -> str:
    with suppress(OSError):
        return (Path(process) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return process
