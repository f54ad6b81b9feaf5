# SPDX-License-Identifier: Apache-2.0
"""Registers a node that was set up without its store, as soon as the store answers."""

from __future__ import annotations

import logging
import threading

from pycni.agent.loops import Run
from pycni.agent.place import Place
from pycni.errors import PlaceLost
from pycni.logfmt import quoted
from pycni.settings import Settings
from pycni.setup import provision
from pycni.stores import open_store

REST = 60.0
"""Seconds between two looks at whether to stop, when all is done."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run, *, place: Place, registered: threading.Event) -> None:
    """Until the agent stops. Raises PycniError, LoaderError or OSError; PlaceLost is told to the
    plugin, too."""
    if not registered.is_set():
        open_store(settings.store_url, settings.cluster, create=False)
        try:
            provision.setup(settings)
        except PlaceLost as error:
            place.lose(error)
            raise
        registered.set()
        log.info("registered, the store answers again node=%s", quoted(settings.node_name))
    run.well()
    while not run.stopping:
        run.wait(REST)
