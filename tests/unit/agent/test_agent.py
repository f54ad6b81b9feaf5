# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/agent.py: what an agent says before it serves."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pycni.agent import agent
from pycni.agent.current import Current
from pycni.errors import NotAvailable, PlaceLost, PycniError, StoreError
from pycni.kernel.forgetting import Forgetting
from pycni.node import place
from pycni.settings import Settings


def begin(directory: Path, unregistered: PycniError | None) -> Settings:
    settings = Settings(node_name="one", run_dir=directory, state_dir=directory)
    current = Current(settings, lambda: settings)
    assert agent.loops(current, Forgetting(), threading.Event(), unregistered)
    return settings


def test_a_place_that_a_setup_found_lost_is_told_before_the_first_call(tmp_path: Path) -> None:
    settings = begin(tmp_path, PlaceLost("its Node is gone"))

    with pytest.raises(NotAvailable, match="its Node is gone"):
        place.refuse_lost(settings)


@pytest.mark.parametrize("unregistered", [None, StoreError("away")])
def test_a_store_that_was_away_stops_no_pod(
    tmp_path: Path, unregistered: PycniError | None
) -> None:
    place.refuse_lost(begin(tmp_path, unregistered))


def test_an_agent_imports_nothing_that_it_does_not_need() -> None:
    """Not the database of BGP, nor what only mistakes in the settings, a compilation or a
    kubeconfig need."""
    check = (
        "import sys, pycni.agent.agent, pycni.stores.kube.store; "
        "found = {'sqlite3', 'difflib', 'concurrent', 'yaml'} & set(sys.modules); "
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=False)
    assert done.stderr == b""
