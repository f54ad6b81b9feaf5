# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/file.py: the file that BIRD reads, and its end."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from pycni.bgp import file
from pycni.settings import Settings
from unit.bgp.samples import BGP, NODE, RECORD, other
from unit.bgp.test_bird import GREETING, speaking


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", run_dir=tmp_path / "run", bgp=BGP)


def test_the_file_is_for_root_alone_and_written_when_it_changes(settings):
    assert file.differs(settings, b"one")
    assert file.write(settings, b"one")
    assert not file.write(settings, b"one")
    assert file.write(settings, b"two")

    path = file.config_path(settings)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_store_that_does_not_know_the_node_changes_nothing(settings):
    assert file.text(settings, NODE, [other(2)]) is None


def test_settings_without_bgp_have_no_text(settings):
    assert file.text(settings.model_copy(update={"bgp": None}), NODE, [RECORD]) is None


def test_what_the_node_published_is_in_it(settings):
    record = replace(RECORD, extra=(NODE.pod_cidrs[0],))

    text = file.text(settings, NODE, [record, other(2)])

    assert text is not None
    assert b"route 10.244.1.0/24 unreachable" in text


def test_a_withdrawal_leaves_bird_without_sessions_and_no_file(settings):
    file.write(settings, b"one")

    with speaking(file.socket_path(settings), GREETING, "0003 Reconfigured\n") as heard:
        file.withdraw(settings)

    assert heard == ["configure\n"]
    assert not file.config_path(settings).exists()


def test_a_withdrawal_without_bird_removes_the_file(settings):
    file.write(settings, b"one")
    file.withdraw(settings)
    file.withdraw(settings)

    assert not file.config_path(settings).exists()
