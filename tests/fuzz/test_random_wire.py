# SPDX-License-Identifier: Apache-2.0
"""Random frames of a pod and of a host on the underlay: nobody gets what he may not have.

The long profile sends ten million. SEED=... repeats a run.
"""

from __future__ import annotations

import os
import random
import sys

import pytest

from fuzz import wire
from fuzz.profiles import PROFILE
from loader.objects import Objects

pytestmark = pytest.mark.root

COUNT = wire.COUNT if PROFILE == "long" else 140_000


def test_nobody_gets_what_he_may_not_have(recorded: Objects) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    lines = [f"SEED={seed}"]

    wire.run(recorded, seed=seed, count=COUNT, report=lines.append)

    sys.stdout.write("\n".join(lines))
    assert "0 delivered wrongly" in lines[-1]
