# SPDX-License-Identifier: Apache-2.0
"""What the log says of faults that are others' to mend: each once, and once that it is over."""

from __future__ import annotations

import pytest

from pycni.agent.left import LINES, THINGS, Left
from pycni.faults import Fault

ROUTE = Fault("underlay", "the way to node n2 (192.0.2.2)", "nowhere", "give this node a route")
RULE = Fault("firewalls", "rule 1 of chain it of table ip mine", "stopping pods", "remove it")
OURS = Fault("guard", "nftables table inet pycni_guard", "gone")
BOTH = {"underlay", "firewalls"}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_a_fault_is_said_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    left = Left()
    left.tell([ROUTE, OURS], BOTH)
    left.tell([ROUTE, OURS], BOTH)

    (line,) = lines(caplog)
    assert line.startswith('left to a person part=underlay thing="the way to node n2 (192.0.2.2)"')
    assert 'to_do="give this node a route"' in line


def test_the_end_is_said_only_after_a_look_at_the_part(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    left = Left()
    left.tell([ROUTE, RULE], BOTH)
    lines(caplog)

    left.tell([], ())
    assert lines(caplog) == []
    left.tell([ROUTE], BOTH)

    (line,) = lines(caplog)
    assert line.startswith("well again part=firewalls")


def test_what_comes_and_goes_all_the_time_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    left = Left()
    for _ in range(100):
        left.tell([ROUTE], BOTH)
        left.tell([], BOTH)

    assert len(lines(caplog)) == LINES
    many = [Fault("underlay", f"way {number}", "nowhere") for number in range(2 * THINGS)]
    left.tell(many, BOTH)
    assert len(lines(caplog)) < THINGS
