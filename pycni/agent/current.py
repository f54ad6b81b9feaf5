# SPDX-License-Identifier: Apache-2.0
"""The settings that a node is held to: those of the last setup, not those of the agent's start."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pycni.errors import InvalidSettings
from pycni.logfmt import quoted
from pycni.settings import Settings

HOST = ("node_name", "state_dir", "run_dir", "bpffs")
"""Settings that tell one node from another."""

log = logging.getLogger(__name__)


class Current:
    """Outlives the threads that use it. `read` reads the file that the agent was started with."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        self.settings = settings
        self._read = read

    def read_again(self) -> None:
        """Take what the file says now, unless it is wrong or about another node."""
        try:
            now = self._read()
        except InvalidSettings as error:
            log.warning("settings not read again error=%s", quoted(error.message))
            return
        if now == self.settings:
            return
        changed = [
            name
            for name in Settings.model_fields
            if getattr(now, name) != getattr(self.settings, name)
        ]
        if set(changed) & set(HOST):
            log.warning("settings not taken, of another node changed=%s", quoted(",".join(changed)))
            return
        self.settings = now
        log.info("the node is held to other settings changed=%s", quoted(",".join(changed)))
