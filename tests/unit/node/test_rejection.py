# SPDX-License-Identifier: Apache-2.0
"""Which packets the kernel is asked to reject."""

from __future__ import annotations

from typing import Literal

import pytest

from pycni.node.rejection import NOBODY, UNTAKEN, rules
from pycni.settings import Settings


@pytest.mark.parametrize(
    ("answer", "services", "marks"),
    [
        (False, "off", []),
        (True, "off", [NOBODY]),
        (False, "pods", [UNTAKEN, UNTAKEN]),
        (True, "pods", [NOBODY, UNTAKEN, UNTAKEN]),
    ],
)
def test_there_are_rules_for_what_the_programs_mark(
    answer: bool, services: Literal["off", "pods"], marks: list[int]
) -> None:
    """S-057"""
    settings = Settings(node_name="one", answer_unreachable=answer, services=services)

    assert [int(rule.split()[2], 16) for rule in rules(settings)] == marks
