# SPDX-License-Identifier: Apache-2.0
"""Holds the node as its description says: looks at events and every REVIEW, and mends.

A fault is mended by its part, under the network lock and after a second look, so that nobody's half
done ADD is taken for a fault. What a part cannot mend takes a whole setup. What somebody undoes
again and again is left alone for a while (upkeep/book.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from loader.errors import LoaderError
from pycni import locks
from pycni.agent.budget import Rest
from pycni.agent.current import Current
from pycni.agent.glance import Glance
from pycni.agent.known import Known
from pycni.agent.left import Left
from pycni.agent.loops import Run
from pycni.backoff import Backoff
from pycni.errors import FileError, PycniError, TryAgain
from pycni.faults import Fault
from pycni.files import mark_of
from pycni.kernel.memory import give_back
from pycni.kernel.node_events import NodeEvents, Notice, Subject
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node.overlay import DEVICE
from pycni.node.record import Node, record_path
from pycni.settings import Settings
from pycni.setup import provision
from pycni.upkeep import book, endpoints, hooks, lost_leases, parts, pods
from pycni.upkeep.book import MINUTE, OFTEN, Book, Key, key_of
from pycni.upkeep.description import Description
from pycni.upkeep.part import Part
from pycni.upkeep.seen import Seen
from pycni.upkeep.settled import Settled

REVIEW = 30.0
"""Seconds between two looks at everything."""
GLANCE = 2.0
"""Seconds, at least, between two looks at what has no events."""
QUIET, LONGEST_STORM = 0.05, 0.3
"""Seconds without an event after which a look is worth it, and how long that is waited for."""
ALONE = 1.0
"""Seconds to wait for everybody else to leave the network lock."""
LOOPBACK = 1
NAMED = 3
"""How many things of a part the log names at once."""

OF_PODS = frozenset({lost_leases.PART, hooks.PART, pods.PART, endpoints.PART})
"""Parts that `Scope.only` is about."""
OF_INTERFACES = (Subject.LINK, Subject.ADDRESS, Subject.QDISC, Subject.PARAMETER)
"""Subjects of one interface, or of all of them."""

log = logging.getLogger(__name__)


class Scope(NamedTuple):
    """What to look at."""

    parts: tuple[Part, ...]
    only: frozenset[int] | None = None
    """Of pods' links: those with these indexes. None: all."""


EVERYTHING = Scope(parts.PARTS)


def follow(current: Current, run: Run, *, known: Known, changed: Callable[[], object]) -> None:
    """Until the agent stops, in the node's namespace; calls `changed` after each setup.

    Raises PycniError, LoaderError or OSError.
    """
    with NodeEvents() as events, Rtnl() as ipr, Glance() as before:
        keeper = Keeper(current, ipr, known, changed)
        backoff, rest = Backoff(cap=REVIEW), Rest(run.budget)
        review, look, version = 0.0, 0.0, -1
        while not run.stopping:
            notices = _gather(events)
            if known.version != version and notices is not None:
                version = known.version
                notices.append(Notice(Subject.STORE))
            if notices is None or any(one.subject is Subject.LINK for one in notices):
                before.forget_links()
            now = time.monotonic()
            is_time = now >= look
            look = now + GLANCE if is_time else look
            if notices is None or now >= review or (is_time and keeper.saw_change(before)):
                left = keeper.look(EVERYTHING)
                give_back()
                review = now + (backoff.delay() if left else REVIEW)
            elif notices:
                left = keeper.look(keeper.scope(notices))
                review = min(review, now + backoff.delay()) if left else review
            if not keeper.left:
                backoff.reset()
            if keeper.mended:
                before.forget()
            run.well()
            due = rest.due()
            if notices != [] and not keeper.found:
                run.wait(due)  # false alarms without end must not be work without end


def _gather(events: NodeEvents) -> list[Notice] | None:
    """The events of one storm; an empty list after GLANCE without any, None if some were lost."""
    found = events.wait(GLANCE)
    end = time.monotonic() + LONGEST_STORM
    while found and time.monotonic() < end:
        time.sleep(QUIET)  # a wait would end with each event of a storm
        more = events.wait(0.0)
        if more is None:
            return None
        if not more:
            break
        found += more
    return found


class Keeper:
    """What one agent knows of its node, and has mended on it."""

    def __init__(
        self, current: Current, ipr: Rtnl, known: Known, changed: Callable[[], object]
    ) -> None:
        self._current = current
        self._ipr = ipr
        self._known = known
        self._changed = changed
        self._node: Node | None = None
        self._description: Description | None = None
        self._mark: object = None
        """What tells the record that was read from a later one."""
        self._book = Book()
        self._settled = Settled()
        self._aliases: dict[int, str] = {}
        """Of the pods' links, by their indexes."""
        self._left = Left()
        self._doers: dict[Subject, tuple[float, str]] = {}
        """When who last did something about a subject; an empty name if nobody was told."""
        self.found = False
        """Whether the last look found something to mend."""
        self.left = False
        """Whether something could not be mended that should be."""
        self.mended = False
        """Whether the last look mended something."""
        self._tried: dict[Key, Fault] = {}
        """What was not well yet after the last try to mend it."""
        self._problems: dict[str, str] = {}
        """Why the last mend of a part, or the last setup, failed."""
        self._is_written = False
        """Whether the book is in its file."""
        self._write_book()

    @property
    def _settings(self) -> Settings:
        return self._current.settings

    def saw_change(self, before: Glance) -> bool:
        """Whether anything changed that has no events."""
        d = self._describe()
        return d is not None and before.has_changed(d)

    def scope(self, notices: Iterable[Notice]) -> Scope:
        """What to look at after these events."""
        now = time.time()
        subjects: set[Subject] = set()
        others: set[int] = set()
        is_whole = False
        own = self._own_interfaces()
        told: dict[Subject, str] = {}
        for notice in notices:
            subjects.add(notice.subject)
            if not notice.is_own:
                told[notice.subject] = notice.by or told.get(notice.subject, "")
            if notice.ifindex > 0 and notice.ifindex not in own:
                others.add(notice.ifindex)
            elif notice.subject in OF_INTERFACES:
                is_whole = True
        self._doers |= {subject: (now, by) for subject, by in told.items()}
        woken = tuple(part for part in parts.PARTS if part.wakes & subjects)
        return Scope(woken, None if is_whole else frozenset(others))

    def look(self, scope: Scope) -> bool:
        """Look, and mend; returns whether something is left that should be mended."""
        self._read_book()
        begin = time.monotonic()
        faults = self._faults(scope)
        self._left.tell(faults, {part.name for part in scope.parts if part.is_others})
        self._note(self._mended_since(faults, scope), begin)
        found = self._to_mend(faults)
        self.found, self.left, self.mended = bool(found), False, False
        if found:
            mended, left = self._mend(found, scope)
            self._note(mended, begin)
            self._tried |= {key_of(fault): fault for fault in left}
            self.left, self.mended = bool(left), bool(mended)
        return self.left

    def _mended_since(self, faults: Iterable[Fault], scope: Scope) -> list[Fault]:
        """What was tried at an earlier look and is well now: the news of the store come late."""
        looked = {part.name for part in scope.parts}
        if scope.only is not None:
            looked -= OF_PODS
        present = {key_of(fault) for fault in faults}
        well = [
            fault
            for key, fault in self._tried.items()
            if fault.part in looked and key not in present
        ]
        for fault in well:
            del self._tried[key_of(fault)]
        return well

    def _own_interfaces(self) -> Collection[int]:
        names = [DEVICE, *([self._node.uplink] if self._node else [])]
        links = (self._ipr.link(name) for name in names)
        return {LOOPBACK} | {link.ifindex for link in links if link is not None}

    def _describe(self) -> Description | None:
        """By the record, or by what it was when it could be read last."""
        mark = mark_of(record_path(self._settings))
        if mark is None or mark != self._mark:
            self._node = Node.load_if_any(self._settings) or self._node
            self._mark = mark
        if self._node is None:
            return None
        now = Description(self._settings, self._node, self._known.nodes)
        if self._description is None or not self._description.is_made_of(now):
            self._description = now
        return self._description

    def _faults(self, scope: Scope) -> list[Fault]:
        d = self._describe()
        if d is None:
            return []
        return self._settled.look(d, lambda: self._see(scope), scope.parts)

    def _see(self, scope: Scope) -> Seen:
        return Seen(self._ipr, only=scope.only, aliases=self._aliases)

    def _to_mend(self, faults: Iterable[Fault]) -> list[Fault]:
        """Those that are ours to mend."""
        now = time.time()
        return [
            fault
            for fault in faults
            if not fault.todo
            and not self._book.is_resting(fault, now=now)
            and not self._gives_up(fault, now)
        ]

    def _gives_up(self, fault: Fault, now: float) -> bool:
        """Whether somebody undoes this so often that it is left alone from now on."""
        if not self._book.is_undone_often(fault, now=now):
            return False
        rest = self._book.rest(fault, now=now, by=self._doer(fault))
        self._write_book()
        log.warning("not mended for now part=%s thing=%s found=%s undone=%d by=%s rest_s=%.0f",
                    quoted(fault.part), quoted(fault.thing), quoted(fault.found), OFTEN,
                    quoted(rest.by or "unknown"), rest.length)  # fmt: skip
        return True

    def _doer(self, fault: Fault) -> str:
        """Who was the last to do something about the part, within a MINUTE; empty if not told.

        Of one storm a name counts for more than none: the kernel itself does the rest of what
        somebody began, such as removing the routes of a link.
        """
        told = [self._doers[one] for one in parts.named(fault.part).wakes if one in self._doers]
        when, who = max(told, default=(0.0, ""))
        return who if when > time.time() - MINUTE else ""

    def _mend(self, found: list[Fault], scope: Scope) -> tuple[list[Fault], list[Fault]]:
        """What was mended, and what should have been."""
        broken = {fault.part for fault in found}
        scope = Scope(tuple(part for part in scope.parts if part.name in broken), scope.only)
        needs_setup = any(part.mend is None for part in scope.parts)
        with self._alone():
            if not self._settings.socket_path.exists():
                return [], []  # torn down meanwhile
            self._read_book()  # set up meanwhile, by other settings
            confirmed = self._to_mend(self._faults(scope))
            left = confirmed
            if confirmed and not needs_setup:
                self._mend_parts(confirmed, scope)
                left = self._to_mend(self._faults(scope))
        if any(parts.named(fault.part).setup_helps for fault in left):
            self._set_up()
            left = self._to_mend(self._faults(EVERYTHING))
            if left:
                with self._alone():
                    self._mend_parts(left, EVERYTHING)
                left = self._to_mend(self._faults(EVERYTHING))
        remaining = {key_of(fault) for fault in left}
        return [fault for fault in confirmed if key_of(fault) not in remaining], left

    def _mend_parts(self, faults: Iterable[Fault], scope: Scope) -> None:
        """Each part by itself. What fails is seen at the next look."""
        broken = {fault.part for fault in faults}
        d = self._describe()
        for part in scope.parts:
            if d is None or part.mend is None or part.name not in broken:
                continue
            problem = ""
            try:
                part.mend(d, self._see(scope))
            except (PycniError, LoaderError, OSError) as error:
                problem = str(error)
            if self._is_news(part.name, problem):
                log.info("not mended part=%s error=%s", quoted(part.name), quoted(problem))

    def _set_up(self) -> None:
        mending = provision.Mending(self._known.nodes or ())
        problem = ""
        try:
            provision.setup(self._settings, mending=mending)
        except (PycniError, LoaderError) as error:
            problem = error.message
        except OSError as error:
            problem = str(error)
        if self._is_news("setup", problem):
            log.warning("node not mended error=%s", quoted(problem))
        self._changed()

    def _is_news(self, what: str, problem: str) -> bool:
        """Whether it failed, and for another reason than last time. No `problem`: it did not."""
        known = self._problems.get(what, "")
        self._problems[what] = problem
        return problem not in ("", known)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the network lock: alone if nobody holds it for long, else with others.

        Without any lock if its directory cannot be written to: nobody else gets one then, either.
        """
        run_dir = self._settings.run_dir
        held = locks.network_lock(run_dir, timeout=ALONE)
        try:
            held.__enter__()
        except TryAgain:
            held = locks.network_lock(run_dir, shared=True)
            held.__enter__()
        except FileError:
            yield
            return
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def _note(self, mended: list[Fault], begin: float) -> None:
        if not mended:
            return
        now, took = time.time(), 1000 * (time.monotonic() - begin)
        told: Counter[str] = Counter()
        for fault in mended:
            self._book.mended(fault, now=now)
            told[fault.part] += 1
            if told[fault.part] <= NAMED:
                log.warning("mended part=%s thing=%s found=%s by=%s took_ms=%.0f",
                            quoted(fault.part), quoted(fault.thing), quoted(fault.found),
                            quoted(self._doer(fault) or "unknown"), took)  # fmt: skip
        for part, count in told.items():
            if count > NAMED:
                log.warning("mended, and not named one by one part=%s things=%d",
                            quoted(part), count - NAMED)  # fmt: skip
        self._write_book()

    def _read_book(self) -> None:
        """A setup by a person removes the file; the settings may have changed before it."""
        self._book.forget_old(now=time.time())
        if self._is_closed():
            self._current.read_again()
            self._write_book()

    def _is_closed(self) -> bool:
        return self._is_written and not book.path_of(self._settings).exists()

    def _write_book(self) -> None:
        if self._is_closed():
            self._book.forgive()
        self._is_written = False
        try:
            self._book.save(self._settings)
            self._is_written = True
        except FileError as error:
            log.info("mends are not told error=%s", quoted(error.message))
