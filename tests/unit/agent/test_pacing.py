# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/pacing.py: agents of a large cluster do not read all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.agent import pacing
from pycni.node.last_list import list_path
from pycni.settings import Settings


@pytest.mark.parametrize(
    ("store", "lines", "longest"),
    [
        ("kube:", 5001, 10.0),
        ("kube:", 301, 3.01),
        ("kube:", 4, 0.04),
        ("kube:", None, 0.0),
        ("etcd://192.0.2.9:2379", 5001, 0.0),
    ],
)
def test_the_wait_grows_with_the_cluster_up_to_a_limit(
    tmp_path: Path, store: str, lines: int | None, longest: float
) -> None:
    settings = Settings(node_name="one", state_dir=tmp_path, store=store)
    if lines is not None:
        list_path(settings).write_text("{}\n" * lines)

    assert pacing.seconds(settings, lambda low, high: high - low) == pytest.approx(longest)
