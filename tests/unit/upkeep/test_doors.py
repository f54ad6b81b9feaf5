# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/doors.py: what `status` says about packets that nobody has reason to send."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.faults import Weight
from pycni.node.record import Node
from pycni.upkeep import doors

NOW = 1_700_000_000.0
NODE = Node("one", 1, ip_address("192.0.2.3"), (), (), "eth0", 1450, 4789)
WORDS = {
    "direct_until": "packets without VXLAN",
    "routed_until": "packets without VXLAN from routers",
    "ipip_until": "packets in IPIP",
}
SEEN: Any = None


def described(monkeypatch: pytest.MonkeyPatch, **times: float) -> Any:
    monkeypatch.setattr(doors.time, "time", lambda: NOW)
    return SimpleNamespace(node=replace(NODE, **times))


@pytest.mark.parametrize("door", WORDS)
@pytest.mark.parametrize(("until", "is_over"), [(0.0, 0), (NOW + 1, 0), (NOW, 1), (1.0, 1)])
def test_a_door_that_is_open_too_long_is_named(
    monkeypatch: pytest.MonkeyPatch, door: str, until: float, is_over: bool
) -> None:
    d = described(monkeypatch, **{door: until})

    found = list(doors.faults(d, SEEN))

    assert [fault.thing for fault in found] == [WORDS[door]] * is_over
    assert all(fault.weight is Weight.DEGRADED and not fault.todo for fault in found)
    assert doors.state(d, SEEN) == is_over


def test_one_that_may_stay_open_hides_none_that_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    d = described(monkeypatch, direct_until=NOW + 1, ipip_until=NOW)

    assert [fault.thing for fault in doors.faults(d, SEEN)] == ["packets in IPIP"]
    assert doors.state(d, SEEN) is True
