# SPDX-License-Identifier: Apache-2.0
"""How much longer everything may take on a machine that is slow, such as an emulated one."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("CONFORMANCE_PATIENCE", "1"))
"""Of all limits of the suite's own."""


def patient(seconds: float) -> float:
    """A limit, as long as it is on this machine."""
    return seconds * FACTOR
