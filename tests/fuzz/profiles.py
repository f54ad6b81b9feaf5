# SPDX-License-Identifier: Apache-2.0
"""How long the fuzzing takes: `short`, in every test run, or `long`, which HYPOTHESIS_PROFILE asks
for. The short one is the same every time; the long one is new every time and remembers failures.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings

PROFILES = ("short", "long")
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", PROFILES[0])


def examples(*, short: int, long: int, **options: Any) -> settings:
    """Settings for one test that tries so many examples."""
    if PROFILE not in PROFILES:
        raise ValueError(f"HYPOTHESIS_PROFILE is {PROFILE!r}, not one of {', '.join(PROFILES)}")
    if PROFILE == "long":
        return settings(max_examples=long, print_blob=True, **_common(options))
    return settings(max_examples=short, derandomize=True, database=None, **_common(options))


def without_shrinking(*, short: int, long: int, **options: Any) -> settings:
    """The same where an example takes seconds: the first that fails is shown as it is."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    return examples(short=short, long=long, phases=phases, **options)


def _common(options: dict[str, Any]) -> dict[str, Any]:
    return {"deadline": None, "suppress_health_check": list(HealthCheck), **options}
