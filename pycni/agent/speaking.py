# SPDX-License-Identifier: Apache-2.0
"""Keeps BIRD's configuration true to the settings and the store, and hears what BGP tells.

Announces nothing before the store's nodes are in the maps (`Known`); a teardown withdraws before
it empties them. BIRD tells no one that its tables changed, so it is asked each second, or less
often where that would take a twentieth of a processor. Without BIRD nothing that was learnt is
forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from pycni import locks
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.bgp import file, learned, service_addresses
from pycni.bgp.answers import Session
from pycni.bgp.bird import Bird
from pycni.bgp.learned import Problem
from pycni.bgp.trust import Trust
from pycni.bgp.view import View, look
from pycni.errors import BirdError, FileError, InvalidSettings, PycniError
from pycni.line_limit import LineLimit, mention
from pycni.logfmt import quoted
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import open_store
from pycni.stores.bgp import BgpStore

INTERVAL = 1.0
"""Seconds between two looks at BIRD."""
NAMED = 20
"""Announcements that are not right and are told in the log, in each interval of LineLimit."""
CHANGES, SESSIONS = 4, 128
"""How often the log tells that a session changed, and of how many sessions, in the same time."""
SHARE = 20
"""A look is followed by as many times of the processor time that it took without one, at least."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run, *, known: Known) -> None:
    """Until the agent stops. Raises PycniError or OSError."""
    if settings.bgp is None:
        file.withdraw(settings)  # it was there before
        run.well()
        run.stop.wait()
        return
    if not settings.announces_services:
        service_addresses.forget(settings)  # those of former settings
    speaking = Speaking(settings)
    while not run.stopping:
        before = time.thread_time()
        speaking.turn(known, time.monotonic())
        run.well()
        run.wait(max(INTERVAL, SHARE * (time.thread_time() - before)))


class Speaking:
    """What outlives one look."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._trust = Trust()
        self._must_configure = True
        """Also at first: this process does not know what BIRD has read."""
        self._problem = ""
        self._up: dict[str, bool] = {}
        self._known_problems: set[str] = set()
        self._limit = LineLimit(subjects=NAMED)
        self._changes = LineLimit(lines=CHANGES, subjects=SESSIONS)

    def turn(self, known: Known, now: float) -> None:
        """Write, have BIRD read it, and take what it learnt. Settings from which nothing can be
        written do not end what BIRD has read before. Raises StoreError."""
        wrong: PycniError | None = None
        try:
            self._write(known)
        except (InvalidSettings, FileError) as error:
            wrong = error
        try:
            with Bird(file.socket_path(self._settings)) as bird:
                if self._must_configure and file.config_path(self._settings).exists():
                    bird.configure()
                    self._must_configure = False
                    log.info("BIRD has read its configuration")
                view = look(bird)
        except BirdError as error:
            self._trust.lost()
            self._tell(wrong or error)
        else:
            self._tell(wrong)
            self._tell_sessions(view.sessions)
            self._learn(view, now)

    def _write(self, known: Known) -> None:
        """Raises InvalidSettings or FileError."""
        node = Node.load_if_any(self._settings)
        if node is None or known.nodes is None:
            return
        content = file.text(self._settings, node, known.nodes)
        with locks.network_lock(self._settings.run_dir, shared=True):
            is_torn_down = not self._settings.socket_path.exists()
            if content is not None and not is_torn_down and file.write(self._settings, content):
                self._must_configure = True

    def _learn(self, view: View, now: float) -> None:
        node = Node.load_if_any(self._settings)
        bgp, cluster = self._settings.bgp, self._settings.cluster
        if node is None or bgp is None:
            return
        found = learned.learn(view.received, node, cluster, asn=bgp.asn)
        self._tell_problems(found.problems)
        if not self._settings.learns_pods:
            return
        store = open_store(self._settings.store_url, cluster, create=False)
        assert isinstance(store, BgpStore)
        behind = dict(found.behind)
        if not self._trust.is_complete(view.sessions, view.boot, now):
            behind = {**learned.behind_of(store.learned()), **behind}
        if store.learn(learned.records(behind)):
            log.info("pods of other nodes learnt networks=%d next_hops=%d",
                     len(behind), len(set(behind.values())))  # fmt: skip

    def _tell(self, error: PycniError | None) -> None:
        """A line when something begins, becomes another thing, or ends."""
        problem = "" if error is None else error.message
        if problem == self._problem:
            return
        self._problem = problem
        if error is None:
            log.info("BIRD answers again")
        else:
            log.warning("BGP fails error=%s to_do=%s", quoted(problem), quoted(error.hint))

    def _tell_problems(self, problems: Iterable[Problem]) -> None:
        """A line when one comes, within the limit of a few."""
        now = {f"{one.thing} is {one.found}" for one in problems}
        for problem in sorted(now - self._known_problems):
            if self._limit.take(problem) is not None:
                log.warning("announcement not right found=%s", quoted(problem))
        self._known_problems = now

    def _tell_sessions(self, sessions: tuple[Session, ...]) -> None:
        for one in sessions:
            if one.is_up == self._up.get(one.name, False):
                continue
            if (left_out := self._changes.take(one.name)) is not None:
                level = logging.INFO if one.is_up else logging.WARNING
                log.log(level, "session changed session=%s speaker=%s state=%s error=%s%s",
                        quoted(one.name), quoted(one.neighbour), quoted(one.state),
                        quoted(one.error), mention(left_out))  # fmt: skip
        self._up = {one.name: one.is_up for one in sessions}
