# SPDX-License-Identifier: Apache-2.0
"""A short soak in every test run; `make soak` has a thousand attachments."""

from __future__ import annotations

import pytest

from fuzz import soak
from pycni.lab.cluster import Lab

pytestmark = pytest.mark.root

COUNT = 60
SEED = 20250101


def test_nothing_is_left_of_attachments_whose_calls_or_agent_were_killed(lab: Lab) -> None:
    assert soak.run(lab, count=COUNT, seed=SEED) == []


def test_a_seed_says_what_is_killed_and_when() -> None:
    assert soak.plan(SEED, COUNT) == soak.plan(SEED, COUNT)
    assert soak.plan(SEED, COUNT) != soak.plan(SEED + 1, COUNT)
    assert any(fate.add is not None for fate in soak.plan(SEED, COUNT))
    assert any(fate.agent is not None for fate in soak.plan(SEED, COUNT))
