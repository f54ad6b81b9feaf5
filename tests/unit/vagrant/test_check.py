# SPDX-License-Identifier: Apache-2.0
"""vagrant/check: what it reads out of what the machines say."""

from typing import cast

from check.machines import Machine
from check.steps import _columns, _is_active


class Answering:
    """A machine whose commands print one thing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, _command: str) -> str:
        return self.text


def machine(text: str) -> Machine:
    return cast("Machine", Answering(text))


def test_a_unit_is_active_in_whatever_order_systemd_says_it() -> None:
    assert _is_active(machine("MainPID=12\nActiveState=active\n"), "pycni-agent")
    assert _is_active(machine("ActiveState=active\nMainPID=12\n"), "pycni-agent")
    assert not _is_active(machine("MainPID=0\nActiveState=activating\n"), "pycni-agent")


def test_a_unit_with_its_old_process_is_not_yet_back() -> None:
    same = machine("MainPID=12\nActiveState=active\n")

    assert not _is_active(same, "pycni-agent", unlike="12")
    assert _is_active(same, "pycni-agent", unlike="11")


def test_texts_stand_next_to_each_other_line_by_line() -> None:
    assert _columns([["node-a", "long line"], ["node-b"]]) == ["node-a      node-b", "long line"]
