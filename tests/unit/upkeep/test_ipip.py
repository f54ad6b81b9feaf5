# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/ipip.py: what `status` says about IPIP that nobody has reason to send."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pycni.faults import Weight
from pycni.upkeep import ipip

NOW = 1_700_000_000.0
SEEN: Any = None


@pytest.mark.parametrize(("until", "count"), [(0.0, 0), (NOW + 1, 0), (NOW, 1), (1.0, 1)])
def test_a_door_that_is_open_too_long_is_named(
    monkeypatch: pytest.MonkeyPatch, until: float, count: int
) -> None:
    monkeypatch.setattr(ipip.time, "time", lambda: NOW)
    d: Any = SimpleNamespace(node=SimpleNamespace(ipip_until=until))

    found = list(ipip.faults(d, SEEN))

    assert len(found) == count
    assert all(fault.weight is Weight.DEGRADED for fault in found)
    assert ipip.state(d, SEEN) is bool(count)
