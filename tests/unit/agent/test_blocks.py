# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/blocks.py: further blocks are claimed in time, and given back step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import blocks
from pycni.agent.blocks import Tender
from pycni.agent.known import Known
from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import PoolFull, StoreError, TryAgain
from pycni.ipam.pools import ROTATION_FILE
from pycni.node import report as report_file
from pycni.node.record import Node
from pycni.node.report import BLOCKS, Report
from pycni.settings import Settings
from pycni.stores import NodeRecord
from pycni.stores.ip_pools import Census, Pools
from unit.agent.runs import OneRun
from unit.ipam.test_allocation import NODE
from unit.stores.stores_in_tests import Clock

FIRST = NODE.pod_cidrs[0]
ONE, TWO, THREE = (ip_network(f"10.244.{number}.0/24") for number in (7, 8, 9))
AWAY = StoreError("the API server does not answer", hint="check it")
FULL = PoolFull("no IPPool has a free IPv4 block", hint="make another")


@dataclass
class Registry:
    """A `BlockRegistry` that notes what is asked."""

    free: list[IPNetwork] = field(default_factory=lambda: [ONE, TWO, THREE])
    listed: list[IPNetwork] | None = field(default_factory=list)
    others: list[IPNetwork] = field(default_factory=list)
    """Blocks that other nodes have claimed."""
    failure: Exception | None = None
    asked: list[object] = field(default_factory=list)
    found: Pools = field(default_factory=Pools)

    def _ask(self, *what: object) -> None:
        self.asked.append(what if len(what) > 1 else what[0])
        if self.failure is not None:
            raise self.failure

    def grow(self, name: str, version: int) -> tuple[IPNetwork, ...]:
        assert (name, version) == ("one", 4)
        self._ask("grow")
        assert self.listed is not None
        self.listed.append(self.free.pop(0))
        return tuple(self.listed)

    def published(self, name: str) -> tuple[IPNetwork, ...] | None:
        assert name == "one"
        self._ask("published")
        return None if self.listed is None else tuple(self.listed)

    def restore(self, name: str, blocks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
        assert name == "one"
        self._ask("restore", *blocks)
        assert self.listed is not None
        self.listed += [block for block in blocks if block not in self.others]
        return tuple(self.listed)

    def unpublish(self, name: str, block: IPNetwork) -> None:
        assert name == "one"
        self._ask("unpublish", block)
        assert self.listed is not None
        self.listed.remove(block)

    def release(self, name: str, block: IPNetwork) -> None:
        assert name == "one"
        self._ask("release", block)

    def tidy(self, name: str, *, kept: Iterable[IPNetwork]) -> None:
        assert name == "one"
        self._ask("tidy", *kept)

    def pools(self) -> Pools:
        self._ask("pools")
        return self.found

    def census(self) -> list[Census]:
        raise AssertionError("only people ask")

    def take_asked(self) -> list[object]:
        asked, self.asked = self.asked, []
        return asked


class Host:
    """A node, its pods, and the agent's loop by hand."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(node_name="one", state_dir=directory, run_dir=directory)
        self.clock = Clock()
        self.registry, self.known = Registry(), Known()
        self.pods: set[IPAddress] = set()
        monkeypatch.setattr(blocks.maps, "open_endpoints", self._endpoints)
        NODE.save(self.settings)
        self.tender = self.start()

    @contextmanager
    def _endpoints(self, _: object) -> Iterator[Any]:
        yield SimpleNamespace(items=lambda: [(pod, None) for pod in self.pods])

    def start(self) -> Tender:
        """The loop begins anew."""
        return Tender(self.settings, self.registry, report=Report(self.settings),
                      known=self.known, clock=self.clock)  # fmt: skip

    def look(self, *, after: float = blocks.FULL_LOOK) -> list[object]:
        """What the next look asks for; but for the reviews."""
        self.clock.now += after
        self.tender.look()
        return [one for one in self.registry.take_asked()
                if one not in ("pools", "tidy", "published")
                and not (isinstance(one, tuple) and one[0] == "tidy")]  # fmt: skip

    def pods_in(self, network: IPNetwork, count: int) -> None:
        self.pods = {pod for pod in self.pods if pod not in network}
        self.pods |= {network[number] for number in range(2, 2 + count)}

    @property
    def node(self) -> Node:
        return Node.load(self.settings)

    @property
    def blocks(self) -> list[IPNetwork]:
        """Of which an ADD gives addresses."""
        return list(self.node.blocks)

    @property
    def told(self) -> dict[str, Any]:
        return report_file.table(report_file.read(self.settings), BLOCKS)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.fixture
def grown(host: Host) -> Host:
    """With one block besides the first, both in use."""
    host.pods_in(FIRST, 250)
    assert host.look() == ["grow"]
    host.pods_in(ONE, 10)
    return host


def test_a_node_with_enough_addresses_asks_for_nothing(host: Host) -> None:
    host.pods_in(FIRST, 100)

    assert host.look() == []
    assert host.node == NODE
    assert host.told == {"problem": "", "hint": "", "full": False, "set_aside": {}}


def test_a_block_is_claimed_before_it_is_needed(host: Host) -> None:
    host.pods_in(FIRST, 230)

    assert host.look() == ["grow"]
    assert host.node == replace(NODE, blocks=(ONE,))
    assert host.look() == []


def test_a_look_is_taken_at_once_when_addresses_were_given(host: Host) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    assert host.look(after=1.0) == []

    (host.settings.state_dir / ROTATION_FILE).write_text("{}")

    assert host.look(after=1.0) == ["grow"]


def test_a_node_grows_again_and_again(grown: Host) -> None:
    grown.pods_in(ONE, 240)

    assert grown.look() == ["grow"]
    assert grown.blocks == [ONE, TWO]


def test_a_server_that_is_away_changes_nothing_and_is_asked_less_and_less(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    host.registry.failure = AWAY
    tries = sum(len(host.look()) for _ in range(12))

    assert 2 <= tries <= 12
    assert host.node == NODE
    assert host.told["problem"] == AWAY.message
    assert host.told["hint"] == AWAY.hint
    assert host.told["full"] is False
    assert caplog.text.count("no further block") == 1

    host.registry.failure = None
    for _ in range(2):
        host.look()
    assert host.blocks == [ONE]
    assert host.told["problem"] == ""


def test_who_needs_a_block_looks_more_often(host: Host) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    host.registry.failure = AWAY
    host.look()
    host.registry.failure = None
    for _ in range(3):
        host.look(after=blocks.SHORT_LOOK)

    assert host.blocks == [ONE]


def test_a_busy_server_is_a_server_that_is_away(host: Host) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    host.registry.failure = TryAgain("it is busy")
    host.look()

    assert host.told["problem"] == "it is busy"


def test_a_full_pool_is_told_and_seldom_tried_again(host: Host) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    host.registry.failure = FULL
    tries = sum(host.look().count("grow") for _ in range(7))

    assert tries == 1
    assert host.told | {"set_aside": {}} == {
        "problem": FULL.message, "hint": FULL.hint, "full": True, "set_aside": {},
    }  # fmt: skip
    assert host.look(after=blocks.FULL_WAIT) == ["grow"]


def test_a_pool_that_is_added_is_tried_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    grow = Registry.grow

    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(Registry, "grow", full)
    for _ in range(3):
        host.look()
    monkeypatch.setattr(Registry, "grow", grow)
    host.registry.found = Pools((), {"new": "whatever"})

    host.look(after=blocks.POOLS_LOOK)

    assert host.blocks == [ONE]


def test_who_needs_no_block_any_more_has_no_problem(host: Host) -> None:
    host.look()
    host.pods_in(FIRST, 250)
    host.registry.failure = FULL
    host.look()
    host.registry.failure = None
    host.pods_in(FIRST, 10)

    assert host.look() == []
    assert host.told["problem"] == ""


# Giving back


def empty_for(host: Host, seconds: float) -> list[object]:
    """What is asked meanwhile."""
    asked = []
    end = host.clock.now + seconds
    while host.clock.now < end:
        asked += host.look()
    return asked


def test_a_block_that_is_empty_for_long_goes_step_by_step(grown: Host) -> None:
    grown.pods = set()

    assert empty_for(grown, blocks.EMPTY - blocks.FULL_LOOK) == []
    assert grown.blocks == [ONE]
    grown.look(after=2 * blocks.FULL_LOOK)
    assert grown.blocks == []
    assert grown.registry.listed == [ONE]
    assert empty_for(grown, blocks.REST + blocks.FULL_LOOK) == [("unpublish", ONE)]
    assert empty_for(grown, blocks.FORGOTTEN + blocks.FULL_LOOK) == [("release", ONE)]
    assert empty_for(grown, blocks.EMPTY) == []


def test_a_block_that_gets_a_pod_meanwhile_stays(grown: Host) -> None:
    grown.pods = set()
    empty_for(grown, blocks.EMPTY - 2 * blocks.FULL_LOOK)
    grown.pods_in(ONE, 1)
    grown.look()
    grown.pods = set()

    assert empty_for(grown, blocks.EMPTY - blocks.FULL_LOOK) == []
    assert grown.blocks == [ONE]


def test_an_add_that_was_under_way_brings_the_block_back(grown: Host) -> None:
    """It read the record before the block was taken out of it."""
    grown.pods = set()
    empty_for(grown, blocks.EMPTY + 2 * blocks.FULL_LOOK)
    assert grown.blocks == []

    grown.pods_in(ONE, 1)

    assert grown.look() == []
    assert grown.blocks == [ONE]
    assert grown.registry.listed == [ONE]


def test_a_need_brings_back_what_is_going(grown: Host) -> None:
    grown.pods = set()
    empty_for(grown, blocks.EMPTY + 2 * blocks.FULL_LOOK)
    grown.pods_in(FIRST, 250)

    assert grown.look() == []
    assert grown.blocks == [ONE]


def test_a_block_that_is_claimed_again_while_it_leaves_stays(grown: Host) -> None:
    """The node gets a claim first that it has still."""
    grown.pods = set()
    while ("unpublish", ONE) not in grown.look():
        pass
    grown.registry.free.insert(0, ONE)
    grown.pods_in(FIRST, 250)
    assert grown.look() == ["grow"]
    assert grown.blocks == [ONE]
    grown.pods_in(ONE, 3)

    assert empty_for(grown, blocks.FORGOTTEN + 2 * blocks.FULL_LOOK) == []
    assert grown.blocks == grown.registry.listed == [ONE]


def test_a_block_that_a_setup_takes_up_while_it_rests_stays(grown: Host) -> None:
    """It takes all that is published."""
    grown.pods = set()
    empty_for(grown, blocks.EMPTY + 2 * blocks.FULL_LOOK)
    assert grown.blocks == []
    replace(grown.node, blocks=(ONE,)).save(grown.settings)
    grown.pods_in(ONE, 3)

    assert empty_for(grown, blocks.REST + blocks.FORGOTTEN + blocks.EMPTY) == []
    assert grown.blocks == grown.registry.listed == [ONE]


def test_the_first_block_never_goes(grown: Host) -> None:
    grown.pods = set()
    empty_for(grown, 3 * blocks.EMPTY)

    assert grown.node.pod_cidrs == NODE.pod_cidrs


# Restarts, and news of the store


@pytest.mark.parametrize("step", range(5))
def test_an_agent_that_is_killed_at_any_step_loses_and_leaks_nothing(
    grown: Host, step: int
) -> None:
    """What is published is given again; a claim that is not is the store's to tidy up."""
    grown.pods = set()
    for _ in range(step):
        empty_for(grown, blocks.REST if step > 1 else blocks.EMPTY)
    grown.tender = grown.start()
    grown.look()

    assert grown.blocks == grown.registry.listed
    grown.pods_in(FIRST, 250)
    grown.look()
    assert len(grown.node.blocks) == 1


def test_blocks_are_restored_after_a_restart(grown: Host) -> None:
    NODE.save(grown.settings)  # a record of before
    grown.tender = grown.start()
    grown.look()

    assert grown.blocks == [ONE]


def test_without_the_server_a_restarted_agent_goes_on_with_its_blocks(grown: Host) -> None:
    grown.registry.failure = AWAY
    grown.tender = grown.start()
    with pytest.raises(StoreError):
        grown.look()

    assert grown.blocks == [ONE]
    assert grown.told["problem"] == AWAY.message


def test_a_server_that_goes_away_before_a_block_is_needed_is_told(grown: Host) -> None:
    """The loop begins anew, and cannot even open the store; a pod is refused later."""
    grown.known.tell([NodeRecord("one", 1, NODE.vtep, NODE.pod_cidrs)])
    grown.registry.failure = AWAY
    with pytest.raises(StoreError):
        grown.look()

    assert grown.told["problem"] == AWAY.message
    assert grown.told["hint"] == AWAY.hint
    assert grown.blocks == [ONE]


def test_a_block_that_another_node_has_now_is_given_no_more(
    grown: Host, caplog: pytest.LogCaptureFixture
) -> None:
    grown.registry.listed, grown.registry.others = [], [ONE]
    grown.pods_in(FIRST, 10)
    record = NodeRecord("one", 1, NODE.vtep, NODE.pod_cidrs)
    grown.known.tell([record])
    grown.look()

    assert grown.blocks == []
    assert "block is this node's no more" in caplog.text


def test_a_block_that_went_out_of_the_record_is_published_again(grown: Host) -> None:
    """The record was made again, as it was before the last claim."""
    grown.registry.listed = []
    grown.known.tell([NodeRecord("one", 1, NODE.vtep, NODE.pod_cidrs)])

    assert grown.look() == [("restore", ONE)]
    assert grown.registry.listed == grown.blocks == [ONE]


def test_news_that_are_older_than_the_last_claim_take_nothing_away(grown: Host) -> None:
    """The watch is a little behind."""
    grown.known.tell([NodeRecord("one", 1, NODE.vtep, NODE.pod_cidrs)])
    grown.look()

    assert grown.blocks == [ONE]


def test_news_that_agree_cost_no_request(grown: Host) -> None:
    grown.known.tell([NodeRecord("one", 1, NODE.vtep, NODE.pod_cidrs, blocks=(ONE,))])
    grown.registry.take_asked()
    grown.clock.now += blocks.FULL_LOOK
    grown.tender.look()

    assert grown.registry.take_asked() == []


def test_a_node_that_is_not_registered_keeps_its_blocks(grown: Host) -> None:
    grown.registry.listed = None
    grown.tender = grown.start()
    grown.look()

    assert grown.blocks == [ONE]


# Reviews


def test_pools_that_are_set_aside_are_told_once(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.registry.found = Pools((), {"bad": "it overlaps"})
    host.look()
    host.look(after=2 * blocks.REVIEW)

    assert host.told["set_aside"] == {"bad": "it overlaps"}
    assert caplog.text.count('pool set aside pool=bad reason="it overlaps"') == 1


def test_claims_are_tidied_up_but_those_that_are_in_hand(grown: Host) -> None:
    grown.clock.now += 2 * blocks.REVIEW
    grown.tender.look()

    assert ("tidy", ONE) in grown.registry.take_asked()


def test_at_rest_the_store_is_read_once_in_a_review(host: Host) -> None:
    host.look()
    host.registry.take_asked()
    for _ in range(20):
        host.clock.now += blocks.FULL_LOOK
        host.tender.look()

    assert host.registry.take_asked() == []


# The loop


def follow(monkeypatch: pytest.MonkeyPatch, host: Host, store: object, run: OneRun) -> None:
    monkeypatch.setattr(blocks, "open_store", lambda *_, **__: store)
    registered = threading.Event()
    wait: Callable[[float], None] = run.wait

    def waiting(seconds: float) -> None:
        """First it is not registered yet."""
        if registered.is_set():
            run.end()
        registered.set()
        wait(0.0)
        assert seconds in (blocks.LOOK, blocks.FULL_LOOK)

    monkeypatch.setattr(run, "wait", waiting)
    blocks.follow(host.settings, run, report=Report(host.settings), known=host.known,
                  registered=registered)  # fmt: skip


def test_where_there_are_no_pools_nothing_is_done(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OneRun()
    follow(monkeypatch, host, SimpleNamespace(blocks=lambda: None), run)

    assert run.rounds == 1
    assert host.told == {}


def test_a_node_that_is_registered_looks(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OneRun()
    host.pods_in(FIRST, 250)
    follow(monkeypatch, host, SimpleNamespace(blocks=lambda: host.registry), run)

    assert run.rounds == 1
    assert host.blocks == [ONE]
