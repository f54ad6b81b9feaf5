# SPDX-License-Identifier: Apache-2.0
"""Settings that change while an agent runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pycni.agent.current import Current
from pycni.errors import InvalidSettings
from pycni.settings import Settings

BEFORE = Settings(node_name="one")


def test_what_the_file_says_now_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    now = Settings(node_name="one", encap="kernel", mtu=1300)
    current = Current(BEFORE, lambda: now)

    with caplog.at_level(logging.INFO):
        current.read_again()
        current.read_again()

    assert current.settings == now
    (line,) = caplog.messages
    assert "mtu" in line
    assert "encap" in line


@pytest.mark.parametrize(
    "change",
    [
        {"node_name": "two"},
        {"state_dir": Path("/var/lib/other")},
        {"run_dir": Path("/run/other")},
        {"bpffs": Path("/sys/fs/other")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_those_of_another_node_are_not(
    change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    current = Current(BEFORE, lambda: BEFORE.model_copy(update={"mtu": 1300, **change}))

    current.read_again()

    assert current.settings == BEFORE
    assert next(iter(change)) in caplog.text


def test_a_file_that_is_wrong_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> Settings:
        raise InvalidSettings("mtu = 7 is too small")

    current = Current(BEFORE, read)

    current.read_again()

    assert current.settings == BEFORE
    assert "mtu = 7 is too small" in caplog.text
