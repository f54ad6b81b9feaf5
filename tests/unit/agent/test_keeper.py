# SPDX-License-Identifier: Apache-2.0
"""What the keeper looks at, what it mends by which means, and what it leaves alone."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import glance, keeper
from pycni.agent.current import Current
from pycni.agent.glance import Glance
from pycni.agent.keeper import EVERYTHING, Keeper, Scope
from pycni.agent.known import Known
from pycni.errors import FileError, SetupError, TryAgain
from pycni.faults import Fault, Weight
from pycni.kernel.node_events import Notice, Subject
from pycni.logfmt import quoted
from pycni.settings import Settings
from pycni.upkeep import parts
from pycni.upkeep.book import OFTEN, Book, path_of
from pycni.upkeep.part import Part
from unit.agent.runs import OneRun

LOOPBACK, DEVICE, UPLINK, POD, OTHER_POD = 1, 2, 3, 40, 41
LIGHT, HEAVY = "light", "heavy"
LINKS = {"pycni0": DEVICE, "eth0": UPLINK}


class Kernel:
    """A node with two parts, of which the first can mend itself."""

    def __init__(self) -> None:
        self.faults: dict[str, list[Fault]] = {LIGHT: [], HEAVY: []}
        self.setups = 0
        self.mends = 0
        self.can_mend = self.can_set_up = True

    def link(self, ifname: str) -> Any:
        return SimpleNamespace(ifindex=LINKS[ifname])

    def mend(self, *_: object) -> None:
        self.mends += 1
        if not self.can_mend:
            raise SetupError("it is taken")
        self.faults[LIGHT] = []

    def set_up(self, *_: object, **__: object) -> None:
        self.setups += 1
        if not self.can_set_up:
            raise SetupError("there is no uplink")
        self.faults = {LIGHT: [], HEAVY: []}

    def hurt(self, part: str = LIGHT, *, todo: str = "", thing: str = "it") -> Fault:
        fault = Fault(part, thing, "gone", todo, Weight.BROKEN)
        self.faults[part].append(fault)
        return fault


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    both = (
        Part(LIGHT, lambda *_: made.faults[LIGHT], made.mend, frozenset({Subject.LINK})),
        Part(HEAVY, lambda *_: made.faults[HEAVY], None, frozenset({Subject.TABLES})),
    )
    monkeypatch.setattr(parts, "PARTS", both)
    monkeypatch.setattr(keeper, "EVERYTHING", Scope(both))
    monkeypatch.setattr(keeper.provision, "setup", made.set_up)
    node = SimpleNamespace(uplink="eth0", name="one")
    monkeypatch.setattr(keeper.Node, "load_if_any", lambda _: node)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(node_name="one", run_dir=tmp_path / "run", state_dir=tmp_path / "state")
    made.run_dir.mkdir(mode=0o700)
    made.socket_path.touch()
    return made


@pytest.fixture
def held(settings: Settings, kernel: Kernel) -> Keeper:
    return Keeper(Current(settings, lambda: settings), kernel, Known(), lambda: None)


def everything() -> Scope:
    return keeper.EVERYTHING


def test_a_node_that_is_whole_is_left_alone(held: Keeper, kernel: Kernel) -> None:
    assert not held.look(everything())
    assert (kernel.mends, kernel.setups) == (0, 0)


def test_a_part_mends_itself(
    held: Keeper, kernel: Kernel, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.hurt()

    with caplog.at_level(logging.WARNING):
        assert not held.look(everything())

    assert (kernel.mends, kernel.setups) == (1, 0)
    assert Book.load(settings).tallies[LIGHT].count == 1
    (line,) = [line for line in caplog.messages if line.startswith("mended")]
    assert "part=light thing=it found=gone" in line


def test_what_cannot_be_mended_is_told_once_for_each_reason(
    held: Keeper, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.hurt()
    kernel.can_mend = kernel.can_set_up = False

    with caplog.at_level(logging.INFO):
        for _ in range(3):
            held.look(everything())

    assert kernel.mends > 2
    assert [line for line in caplog.messages if "not mended" in line and "for now" not in line] == [
        'not mended part=light error="it is taken"',
        'node not mended error="there is no uplink"',
    ]


def test_what_no_part_mends_takes_a_setup(held: Keeper, kernel: Kernel) -> None:
    kernel.hurt(HEAVY)

    assert not held.look(everything())

    assert (kernel.mends, kernel.setups) == (0, 1)


def test_a_part_that_fails_takes_a_setup(held: Keeper, kernel: Kernel) -> None:
    kernel.hurt()
    kernel.can_mend = False

    assert not held.look(everything())

    assert (kernel.mends, kernel.setups) == (1, 1)


def test_a_part_that_no_setup_can_mend_takes_none(
    held: Keeper, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    light, heavy = everything().parts
    both = (replace(light, setup_helps=False), heavy)
    monkeypatch.setattr(parts, "PARTS", both)
    monkeypatch.setattr(keeper, "EVERYTHING", Scope(both))
    kernel.hurt()
    kernel.can_mend = False

    assert held.look(everything())

    assert (kernel.mends, kernel.setups) == (1, 0)


def test_a_setup_that_fails_is_told_once_and_tried_again(
    held: Keeper, kernel: Kernel, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.hurt(HEAVY)
    kernel.can_set_up = False

    with caplog.at_level(logging.WARNING):
        assert [held.look(everything()) for _ in range(3)] == [True] * 3

    assert kernel.setups == 3
    assert len([line for line in caplog.messages if "there is no uplink" in line]) == 1
    assert Book.load(settings).tallies == {}


def test_what_gets_well_after_the_look_is_mended_all_the_same(
    held: Keeper, kernel: Kernel, settings: Settings
) -> None:
    """The store tells of this node's new record a moment later."""
    fault = kernel.hurt(HEAVY)
    kernel.can_set_up = False
    assert held.look(everything())

    kernel.faults[HEAVY] = []
    assert not held.look(everything())
    held.look(everything())

    assert Book.load(settings).tallies[fault.part].count == 1


def test_what_a_person_must_do_is_left_to_a_person(held: Keeper, kernel: Kernel) -> None:
    kernel.hurt(HEAVY, todo="plug it in")

    assert not held.look(everything())

    assert kernel.setups == 0


def test_what_was_half_done_and_is_done_now_is_no_fault(
    held: Keeper, kernel: Kernel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an ADD that was under way at the first look."""
    kernel.hurt()

    @contextmanager
    def alone(*_: object, **__: object) -> Iterator[int]:
        kernel.faults[LIGHT] = []
        yield 7

    monkeypatch.setattr(keeper.locks, "network_lock", alone)

    assert not held.look(everything())

    assert (kernel.mends, Book.load(settings).tallies) == (0, {})


class Storm:
    """In the place of NodeEvents: the same notice for some rounds, with what it tells of."""

    def __init__(self, run: OneRun, rounds: int, happen: Callable[[], object]) -> None:
        self._run, self._left, self._happen = run, rounds, happen

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, seconds: float) -> list[Notice]:
        if seconds < keeper.GLANCE:
            return []
        self._happen()
        self._left -= 1
        if not self._left:
            self._run.end()
        return [Notice(Subject.LINK, POD)]


@pytest.mark.parametrize("is_hurt", [False, True])
def test_events_that_mean_nothing_make_the_next_look_later(
    settings: Settings, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, is_hurt: bool
) -> None:
    run, waits = OneRun(), list[float]()
    happen = kernel.hurt if is_hurt else lambda: None
    monkeypatch.setattr(keeper, "NodeEvents", lambda: Storm(run, 3, happen))
    monkeypatch.setattr(keeper, "Rtnl", lambda: nullcontext(kernel))
    monkeypatch.setattr(keeper, "Rest", lambda _: SimpleNamespace(due=lambda: 0.7))
    monkeypatch.setattr(Glance, "has_changed", lambda *_: False)
    monkeypatch.setattr(run, "wait", waits.append)

    keeper.follow(Current(settings, lambda: settings), run, known=Known(), changed=lambda: None)

    assert waits == ([] if is_hurt else [0.7] * 3)


def _placed(d: Any) -> Any:
    return SimpleNamespace(description=d)


def test_the_same_damage_right_after_its_mend_is_seen_at_the_next_glance(
    settings: Settings, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The glance that led to the mend shows the same as the one after it."""
    run, rounds, seen = OneRun(), itertools.count(), list[int]()

    class Silence(Storm):
        def wait(self, seconds: float) -> list[Notice]:  # noqa: ARG002
            if next(rounds) > 0:  # the first round is the review of a start
                self._happen()
            seen.append(kernel.mends)
            if len(seen) == 4:
                run.end()
            return []

    monkeypatch.setattr(keeper, "NodeEvents", lambda: Silence(run, 4, kernel.hurt))
    monkeypatch.setattr(keeper, "Rtnl", lambda: nullcontext(kernel))
    monkeypatch.setattr(keeper, "GLANCE", 0.0)
    monkeypatch.setattr(glance, "_place", _placed)
    monkeypatch.setattr(Glance, "_take", lambda *_: len(kernel.faults[LIGHT]))

    keeper.follow(Current(settings, lambda: settings), run, known=Known(), changed=lambda: None)

    assert seen == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("notices", "times"),
    [([], 0), ([Notice(Subject.ROUTE)], 0), ([Notice(Subject.LINK, POD)], 3), (None, 3)],
)
def test_links_are_listed_anew_after_events_of_links_only(
    settings: Settings, kernel: Kernel, monkeypatch: pytest.MonkeyPatch,
    notices: list[Notice] | None, times: int,
) -> None:  # fmt: skip
    run, rounds, forgotten = OneRun(), itertools.count(1), list[Glance]()

    def gather(_: object) -> list[Notice] | None:
        if next(rounds) == 3:
            run.end()
        return notices and list(notices)

    monkeypatch.setattr(keeper, "NodeEvents", lambda: nullcontext(None))
    monkeypatch.setattr(keeper, "Rtnl", lambda: nullcontext(kernel))
    monkeypatch.setattr(keeper, "_gather", gather)
    monkeypatch.setattr(Glance, "has_changed", lambda *_: False)
    monkeypatch.setattr(Glance, "forget_links", lambda self: forgotten.append(self))

    keeper.follow(Current(settings, lambda: settings), run, known=Known(), changed=lambda: None)

    assert len(forgotten) == times


def test_a_glance_lists_links_once_until_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    d: Any = None
    links = [DEVICE]
    monkeypatch.setattr(glance, "_list_links", lambda: list(links))
    monkeypatch.setattr(glance, "_place", _placed)
    monkeypatch.setattr(Glance, "_take", lambda _, __, seen: list(seen))
    before = Glance()

    first, second = before.has_changed(d), before.has_changed(d)
    links.append(UPLINK)
    unseen = before.has_changed(d)
    before.forget_links()

    assert (first, second, unseen, before.has_changed(d)) == (True, False, False, True)


def test_a_node_that_is_torn_down_is_not_mended(
    held: Keeper, kernel: Kernel, settings: Settings
) -> None:
    kernel.hurt()
    kernel.hurt(HEAVY)
    settings.socket_path.unlink()

    held.look(everything())

    assert (kernel.mends, kernel.setups) == (0, 0)


@pytest.mark.parametrize("error", [TryAgain("busy"), FileError("read-only")], ids=repr)
def test_a_lock_that_cannot_be_had_alone_keeps_nobody_from_mending(
    held: Keeper, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    @contextmanager
    def lock(*_: object, shared: bool = False, **__: object) -> Iterator[int]:
        if not shared:
            raise error
        yield 7

    monkeypatch.setattr(keeper.locks, "network_lock", lock)
    kernel.hurt()

    assert not held.look(everything())

    assert kernel.mends == 1


def test_a_quarrel_is_given_up_and_told(
    held: Keeper, kernel: Kernel, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    held.scope([Notice(Subject.LINK, POD, "ufw (pid 7)")])
    for _ in range(OFTEN):
        kernel.hurt()
        held.look(everything())
    kernel.hurt()

    with caplog.at_level(logging.WARNING):
        assert not held.look(everything())
        held.look(everything())

    assert kernel.mends == OFTEN
    (line,) = [line for line in caplog.messages if line.startswith("not mended for now")]
    assert f'found=gone undone={OFTEN} by="ufw (pid 7)"' in line
    assert (LIGHT, "it") in Book.load(settings).rests


@pytest.mark.parametrize(
    ("storms", "by"),
    [
        ([[Notice(Subject.LINK, POD, "ip (pid 7)")], [Notice(Subject.LINK, POD)]], "unknown"),
        ([[Notice(Subject.LINK, POD, "ip (pid 7)"), Notice(Subject.LINK, POD)]], "ip (pid 7)"),
        (
            [
                [Notice(Subject.LINK, POD, "ip (pid 7)")],
                [Notice(Subject.LINK, POD, is_own=True)],
            ],
            "ip (pid 7)",
        ),
    ],
    ids=["a later one of nobody known", "the rest of one storm", "what the agent did since"],
)
def test_only_the_last_to_do_something_is_named(
    held: Keeper,
    kernel: Kernel,
    caplog: pytest.LogCaptureFixture,
    storms: list[list[Notice]],
    by: str,
) -> None:
    for notices in storms:
        held.scope(notices)
    kernel.hurt()

    with caplog.at_level(logging.WARNING):
        held.look(everything())

    assert f"by={quoted(by)}" in caplog.messages[0]


def test_a_quarrel_about_one_thing_is_none_about_another(held: Keeper, kernel: Kernel) -> None:
    for _ in range(OFTEN):
        kernel.hurt()
        held.look(everything())
    kernel.hurt()
    held.look(everything())

    kernel.hurt(thing="something else")
    held.look(everything())

    assert kernel.mends == OFTEN + 1


def test_a_person_ends_a_quarrel(held: Keeper, kernel: Kernel, settings: Settings) -> None:
    for _ in range(OFTEN + 1):
        kernel.hurt()
        held.look(everything())
    kernel.faults[LIGHT] = []

    path_of(settings).unlink()
    kernel.hurt()
    held.look(everything())

    assert kernel.mends == OFTEN + 1


def test_a_person_ends_a_quarrel_while_something_is_mended(
    held: Keeper, kernel: Kernel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the mend writes down afterwards does not hide that."""
    for _ in range(OFTEN - 1):
        kernel.hurt()
        held.look(everything())
    light, heavy = everything().parts

    def meanwhile(*_: object) -> None:
        kernel.mend()
        path_of(settings).unlink()

    both = (replace(light, mend=meanwhile), heavy)
    monkeypatch.setattr(parts, "PARTS", both)
    kernel.hurt()
    held.look(Scope(both))
    kernel.hurt()
    held.look(everything())

    assert kernel.mends == OFTEN + 1


def test_a_setup_by_other_settings_that_ends_before_the_second_look_counts(
    kernel: Kernel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks wrong by the settings of before is just what that setup has made."""
    new = settings.model_copy(update={"answer_unreachable": False})
    held = Keeper(Current(settings, lambda: new), kernel, Known(), lambda: None)
    fault = kernel.hurt()
    light = Part(
        LIGHT,
        lambda d, _: [fault] if d.settings.answer_unreachable else [],
        kernel.mend,
        frozenset({Subject.LINK}),
    )
    monkeypatch.setattr(parts, "PARTS", (light,))

    @contextmanager
    def waiting(*_: object, **__: object) -> Iterator[int]:
        path_of(settings).unlink()
        yield 0

    monkeypatch.setattr(keeper.locks, "network_lock", waiting)
    held.look(Scope((light,)))

    assert (kernel.mends, kernel.setups) == (0, 0)


def test_many_things_of_one_part_are_few_lines(
    held: Keeper, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(250):
        kernel.hurt(thing=f"pod {number}")

    with caplog.at_level(logging.WARNING):
        held.look(everything())

    assert len(caplog.messages) == keeper.NAMED + 1
    assert caplog.messages[-1] == (
        f"mended, and not named one by one part=light things={250 - keeper.NAMED}"
    )


def test_events_of_pods_links_wake_what_looks_at_them_only(held: Keeper) -> None:
    held.look(everything())

    scope = held.scope([Notice(Subject.LINK, POD), Notice(Subject.LINK, OTHER_POD)])

    assert [part.name for part in scope.parts] == [LIGHT]
    assert scope.only == frozenset({POD, OTHER_POD})


@pytest.mark.parametrize("ifindex", [LOOPBACK, DEVICE, UPLINK, 0, -1])
def test_events_of_the_nodes_own_interfaces_wake_all_pods(held: Keeper, ifindex: int) -> None:
    held.look(everything())
    assert held.scope([Notice(Subject.LINK, POD), Notice(Subject.LINK, ifindex)]).only is None


def test_events_that_no_part_is_about_wake_nothing(held: Keeper) -> None:
    assert held.scope([Notice(Subject.ROUTE)]).parts == ()


def test_everything_is_all_parts() -> None:
    assert Scope(parts.PARTS) == EVERYTHING
