# SPDX-License-Identifier: Apache-2.0
"""A cut of `make chaos`."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from chaos.run import chaos

SECONDS = 45.0


@pytest.mark.root
def test_a_minute_of_chaos_leaves_no_trace(record_property: Callable[[str, object], None]) -> None:
    seed = random.randrange(1 << 32)
    record_property("seed", seed)

    verdict = chaos(seconds=SECONDS, seed=seed)

    assert len(verdict.wounds) > 3, seed
    assert all(one.asked for one in verdict.heard)
    assert (verdict.strays, verdict.unreached, verdict.changes) == ([], [], [])
