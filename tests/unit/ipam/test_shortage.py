# SPDX-License-Identifier: Apache-2.0
"""pycni/ipam/shortage.py: an ADD that finds no address waits for a block, or says why not."""

from __future__ import annotations

import threading
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.errors import PoolExhausted, TryAgain
from pycni.ipam import shortage
from pycni.node.report import BLOCKS, Report
from pycni.settings import Settings
from unit.ipam.test_allocation import NODE

BLOCK = ip_network("10.244.7.0/24")
ERROR = PoolExhausted("no IP addresses available in 10.244.1.0/24: 253 of 253 are in use")
FULL = {"problem": "no IPPool has a free block", "hint": "make another", "full": True}
AWAY = {"problem": "the API server does not answer", "hint": "check it", "full": False}
ON_THE_WAY = {"problem": "", "hint": "", "full": False}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(node_name="one", state_dir=tmp_path, run_dir=tmp_path)
    NODE.save(found)
    return found


def tell(settings: Settings, told: dict[str, object]) -> None:
    Report(settings).put(BLOCKS, told)


def test_where_nobody_gets_blocks_the_error_is_what_it_was(settings: Settings) -> None:
    with pytest.raises(PoolExhausted) as caught:
        shortage.wait(settings, NODE, ERROR, seconds=9.0)

    assert caught.value is ERROR
    assert shortage.explained(settings, ERROR) is ERROR


def test_an_add_waits_for_a_block_that_is_on_the_way(settings: Settings) -> None:
    tell(settings, ON_THE_WAY)
    grown = replace(NODE, blocks=(BLOCK,))
    timer = threading.Timer(0.3, grown.save, (settings,))
    timer.start()

    assert shortage.wait(settings, NODE, ERROR, seconds=9.0) == grown
    timer.join()


def test_a_block_that_goes_is_no_new_one(settings: Settings) -> None:
    tell(settings, ON_THE_WAY)

    with pytest.raises(TryAgain, match="another block is being claimed"):
        shortage.wait(settings, replace(NODE, blocks=(BLOCK,)), ERROR, seconds=0.0)


def test_a_full_pool_is_not_waited_for(settings: Settings) -> None:
    tell(settings, FULL)

    with pytest.raises(PoolExhausted, match="in use; no IPPool has a free block") as caught:
        shortage.wait(settings, NODE, ERROR, seconds=9.0)

    assert caught.value.hint == "make another"


def test_a_server_that_is_away_makes_the_pod_try_again(settings: Settings) -> None:
    tell(settings, AWAY)

    with pytest.raises(TryAgain, match="in use; the API server does not answer") as caught:
        shortage.wait(settings, NODE, ERROR, seconds=0.2)

    assert caught.value.code == 11


def test_a_wait_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "PATIENCE", 0.2)
    tell(settings, ON_THE_WAY)

    with pytest.raises(TryAgain):
        shortage.wait(settings, NODE, ERROR, seconds=1e9)
