# SPDX-License-Identifier: Apache-2.0
"""One lab for what is done to a node at random, with strangers in it, and gone after the tests; and
programs for random frames."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bpf.dataplane import compile_recorded
from loader.objects import Objects
from pycni.lab.cluster import Lab
from pycni.lab.topology import NETNS_DIR
from support import leftovers
from support.labs import BASE, SESSION, forget_shared, made_lab


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """After all of it: no process, mount or namespace of this session that was not there before."""
    before = _found()
    yield
    forget_shared()
    assert _found() - before == set()


def _found() -> set[str]:
    """Nothing for others than root, who can make nothing."""
    if os.geteuid() != 0:
        return set()
    return {*leftovers.found(BASE, SESSION), *map(str, NETNS_DIR.glob(f"{SESSION}*"))}


@pytest.fixture(scope="session")
def lab(_nothing_is_left: None) -> Iterator[Lab]:
    """Two nodes with a pod each, which nobody may touch."""
    with made_lab(nodes=2, pods=1) as made:
        yield made


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The programs, in a form that tells what they did."""
    return compile_recorded(tmp_path_factory.mktemp("recorded"))
