# SPDX-License-Identifier: Apache-2.0
"""Tells the cluster store, every HEARTBEAT_INTERVAL, that this node's agent lives, and hears from
it whether another machine does so under the same name."""

from __future__ import annotations

import logging
import threading

from pycni.agent.loops import Run
from pycni.agent.place import Place
from pycni.errors import PlaceLost, PycniError
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted
from pycni.node.record import Node
from pycni.node.report import RIVAL, Report
from pycni.settings import Settings
from pycni.stores import HEARTBEAT_INTERVAL, machine_instance, open_store

LOOK = 1.0
"""Seconds between two looks at whether the node is registered."""

log = logging.getLogger(__name__)


def follow(
    settings: Settings,
    run: Run,
    *,
    report: Report,
    place: Place,
    limit: LineLimit,
    registered: threading.Event,
) -> None:
    """Until the agent stops, from when the node is registered: a record of its last boot looks like
    another machine's. Raises NotAvailable, StoreError among it."""
    while not (registered.is_set() or run.stopping):
        run.wait(LOOK)
    try:
        _beat(settings, run, report=report, place=place, limit=limit)
    except PlaceLost as error:
        place.lose(error)
        raise
    except PycniError:
        place.repeat()
        raise


def _beat(settings: Settings, run: Run, *, report: Report, place: Place, limit: LineLimit) -> None:
    name = Node.load(settings).name
    instance = machine_instance()
    store = open_store(settings.store_url, settings.cluster, create=False)
    while not run.stopping:
        rival = store.heartbeat(name, instance=instance)
        run.well()
        place.beat(Node.load(settings), rival)
        report.put(RIVAL, str(rival) if rival else "")
        if rival and limit.take(name) is not None:
            log.warning("another machine has this node's name node=%s other=%s",
                        quoted(name), quoted(rival))  # fmt: skip
        run.wait(HEARTBEAT_INTERVAL)
