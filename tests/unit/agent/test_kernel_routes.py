# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/kernel_routes.py: when the kernel is asked, and what is written and vouched for."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pycni.agent import kernel_routes
from pycni.agent.kernel_routes import News, Waker
from pycni.kernel.fib import NeighbourChange, OtherChange
from unit.agent.runs import OneRun

PORT, ERRORS_FILENO = 8472, 9999
NODE = "192.0.2.7"
NOTHING: list[object] = []
ROUTE = [OtherChange()]
LOST = None


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Follow a kernel that tells of these changes, a list each second; gives what was done.

    `errors_at` are seconds in which ICMP errors tell of a narrower path.
    """

    def run(*told, wake_at=(), nodes_at=(), errors_at=(), narrow_at=(), record_at=()):
        one, waker, done, marks = OneRun(), Waker(), [], [0]
        waiting = list(enumerate(told))
        clock = SimpleNamespace(monotonic=lambda: 1000.0 + len(told) - len(waiting))

        class Fib:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def changes(self):
                second, changes = waiting.pop(0)
                self.second = second
                if second in wake_at:
                    waker.wake()
                if second in nodes_at:
                    waker.tell_nodes()
                if second in record_at:
                    marks.append(second)
                if not waiting:
                    one.end()
                return changes

            def wait(self, seconds, *others):
                assert seconds < kernel_routes.next_hops.LEASE / 2
                assert others == (waker.fileno(), ERRORS_FILENO)

        class Errors:
            def filenos(self):
                return [ERRORS_FILENO]

            def take(self, port):
                assert port == PORT
                return {NODE} if Copy.fib.second in errors_at else set()

        class Copy:
            def __init__(self, fib, _known):
                Copy.fib = fib

            @property
            def narrow(self):
                return {NODE: 1350} if Copy.fib.second in narrow_at else {}

            def take_in(self, changes):
                return any(isinstance(change, OtherChange) for change in changes)

            def take_again(self, vteps):
                return bool(vteps)

        def write_path_mtus(_, nodes):
            done.append("path_mtus")
            return bool(nodes)

        monkeypatch.setattr(kernel_routes, "hearing_errors", lambda: nullcontext(Errors()))
        monkeypatch.setattr(kernel_routes.path_mtus, "write", write_path_mtus)

        monkeypatch.setattr(kernel_routes, "Fib", Fib)
        monkeypatch.setattr(kernel_routes, "mark_of", lambda _: marks[-1])
        monkeypatch.setattr(kernel_routes, "Copy", Copy)
        monkeypatch.setattr(kernel_routes, "time", clock)
        for verb in ("review", "review_some", "follow_nodes", "write", "confirm", "vouch"):
            monkeypatch.setattr(
                kernel_routes.next_hops, verb, lambda *_, verb=verb: done.append(verb)
            )
        kernel_routes.follow(
            SimpleNamespace(run_dir=tmp_path, state_dir=tmp_path, port=PORT),
            one,
            waker=waker,
            others=tuple,
        )
        assert one.rounds == len(told)
        return done

    return run


def test_at_first_everything_is_asked_for_and_vouched_for(follow) -> None:
    assert follow(NOTHING) == ["review", "path_mtus", "confirm", "vouch"]


def test_the_table_is_vouched_for_in_every_round(follow) -> None:
    assert follow(*[NOTHING] * 4)[4:] == ["vouch"] * 3


def test_what_matters_is_written_and_nothing_else(follow) -> None:
    neighbour = [NeighbourChange(7, "192.0.2.1", None)]

    assert follow(NOTHING, neighbour, ROUTE)[4:] == ["vouch", "write", "vouch"]


def test_after_lost_events_everything_is_asked_for(follow) -> None:
    assert follow(NOTHING, LOST)[4:] == ["review", "path_mtus", "vouch"]


def test_after_a_setup_everything_is_asked_for(follow) -> None:
    assert follow(NOTHING, NOTHING, wake_at=[1], nodes_at=[1])[4:] == [
        "review",
        "path_mtus",
        "vouch",
    ]


def test_after_a_setup_by_another_process_everything_is_asked_for(follow) -> None:
    done = follow(NOTHING, NOTHING, record_at=(1,))

    assert done[4:] == ["review", "path_mtus", "vouch"]


def test_other_nodes_are_asked_for_at_once_and_alone(follow) -> None:
    assert follow(NOTHING, NOTHING, nodes_at=[1])[4:] == ["follow_nodes", "vouch"]
    assert follow(NOTHING, NOTHING, nodes_at=[1], narrow_at=[1])[4:] == [
        "follow_nodes",
        "path_mtus",
        "vouch",
    ]


def test_other_nodes_do_not_hide_what_else_changed(follow) -> None:
    """Each of them writes all that is different."""
    done = follow(NOTHING, ROUTE, nodes_at=[1], errors_at=[1])

    assert done[4:] == ["follow_nodes", "vouch"]


def test_the_kernel_is_asked_again_and_use_confirmed_now_and_then(follow) -> None:
    seconds = int(kernel_routes.REVIEW)

    done = follow(*[NOTHING] * (seconds + 1))

    assert (done.count("review"), done.count("review_some")) == (1, 1)
    assert done.count("path_mtus") == 2
    assert done.count("confirm") == 1 + seconds / kernel_routes.CONFIRMATION


def test_an_error_about_a_path_is_taken_in_at_once(follow) -> None:
    done = follow(NOTHING, NOTHING, errors_at=[1], narrow_at=[1])

    assert done[4:] == ["write", "path_mtus", "vouch"]


def test_narrow_paths_are_written_until_they_are_wide_again(follow) -> None:
    """And not at every change where no path is narrow."""
    done = follow(NOTHING, ROUTE, ROUTE, ROUTE, narrow_at=[1])

    assert done[4:] == ["write", "path_mtus", "vouch"] * 2 + ["write", "vouch"]


def test_who_may_not_hear_errors_goes_on(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(kernel_routes, "IcmpErrors", refuse)

    with kernel_routes.hearing_errors() as errors:
        assert errors is None
    assert "CAP_NET_RAW" in caplog.text


def test_a_waker_wakes_once_for_the_most_that_was_told() -> None:
    waker = Waker()

    waker.tell_nodes()
    assert [waker.take(), waker.take()] == [News.NODES, News.NOTHING]
    waker.wake()
    waker.tell_nodes()
    waker.wake()
    assert [waker.take(), waker.take()] == [News.EVERYTHING, News.NOTHING]
    waker.tell_nodes()
    assert waker.take() is News.NODES


class Sockets:
    """In the place of TunnelSockets; `kept` are those that are open."""

    kept: ClassVar[list[int]] = []

    def __init__(self, version: int) -> None:
        self.version = version

    def __enter__(self) -> Sockets:
        self.kept.append(self.version)
        return self

    def __exit__(self, *_: object) -> None:
        self.kept.remove(self.version)


def test_sockets_for_ipip_are_there_while_the_node_sends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_routes, "TunnelSockets", Sockets)
    node: Any = SimpleNamespace(vtep=ip_address("192.0.2.3"), ipip=True)
    kept = []
    with kernel_routes.Learning() as learning:
        for one in (None, node, node, SimpleNamespace(vtep=ip_address("2001:db8::3"), ipip=True),
                    SimpleNamespace(vtep=node.vtep, ipip=False), node):  # fmt: skip
            learning.follow(one)
            kept.append(tuple(Sockets.kept))

    assert kept == [(), (4,), (4,), (6,), (), (4,)]
    assert Sockets.kept == []


def test_without_the_right_to_it_nothing_is_learnt_of_ipip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> Any:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(kernel_routes, "TunnelSockets", refuse)
    node: Any = SimpleNamespace(vtep=ip_address("192.0.2.3"), ipip=True)
    with kernel_routes.Learning() as learning:
        learning.follow(node)
