# SPDX-License-Identifier: Apache-2.0
"""Follows Services while the settings say so: that pods reach them by pycni, or that they are
announced.

What that takes (HTTP, TLS, YAML) is loaded only then: it is a tenth of an agent's memory.
"""

from __future__ import annotations

from pycni.agent.current import Current
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.node.report import SERVICES, Report

LOOK = 2.0
"""Seconds between two looks at the settings while they say "off"."""


def follow(current: Current, run: Run, *, known: Known, report: Report) -> None:
    """Until the agent stops. Raises PycniError or OSError."""
    while not run.stopping:
        settings = current.settings
        if settings.services == "off":
            report.put(SERVICES, {"state": "off"})
        if settings.services == "off" and not settings.announces_services:
            run.well()
            run.wait(LOOK)
        else:
            from pycni.agent import services

            services.follow(current, run, known=known, report=report)
