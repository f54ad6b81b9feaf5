# SPDX-License-Identifier: Apache-2.0
"""Says which addresses of Services BIRD is to announce (bgp/service_addresses.py), as often as that
changes.

None while nobody forwards here what comes to them: pycni forwards what pods send, and all else is
kube-proxy's. It is looked for again and again, since it may come later, or go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pycni.bgp import service_addresses
from pycni.bgp.service_addresses import Told
from pycni.line_limit import LineLimit, mention
from pycni.logfmt import quoted
from pycni.node import kube_proxy
from pycni.services.announced import Choice
from pycni.services.catalog import Catalog
from pycni.settings import Settings

LOOK = 2.0
"""Seconds between two looks for kube-proxy."""
SHARE = 20
"""What is done is followed by as many times of what it took without it, at least."""

log = logging.getLogger(__name__)


def choice(settings: Settings) -> Choice:
    """What the settings name."""
    bgp = settings.bgp
    return Choice() if bgp is None else Choice(bgp.of_services, bgp.service_networks)


class Announcing:
    """What outlives one look."""

    def __init__(
        self, settings: Settings, catalog: Catalog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._clock = clock
        self._forwarded = frozenset[int]()
        self._is_due = True
        self._look_at = self._tell_at = 0.0
        self._limit = LineLimit()

    def turn(self, *, changed: bool) -> None:
        """Both kinds are listed; `changed`: whether there was news of them. Raises FileError,
        SetupError or OSError; then what was said stays. A node that is torn down says no more."""
        is_torn_down = not self._settings.socket_path.exists()
        if not self._settings.announces_services or is_torn_down:
            return
        self._is_due |= changed or not service_addresses.path(self._settings).exists()
        if (began := self._clock()) >= self._look_at:
            forwarded = kube_proxy.versions()
            self._is_due |= forwarded != self._forwarded
            self._forwarded = forwarded
            self._look_at = self._after(began, LOOK)
        if self._is_due and (began := self._clock()) >= self._tell_at:
            self._tell(self._forwarded)
            self._is_due = False
            self._tell_at = self._after(began, 0)

    def _after(self, began: float, pause: float) -> float:
        """When to do again what began then."""
        now = self._clock()
        return now + max(pause, SHARE * (now - began))

    def _tell(self, forwarded: frozenset[int]) -> None:
        wanted = self._catalog.announced
        told = Told(
            addresses=tuple(sorted((one for one in wanted if one.version in forwarded), key=str)),
            unforwarded=tuple(sorted({one.version for one in wanted} - forwarded)),
        )
        if not service_addresses.save(self._settings, told):
            return
        if (left_out := self._limit.take("announced")) is not None:
            without = ",".join(f"IPv{version}" for version in told.unforwarded)
            log.info("Services' addresses told addresses=%d nobody_forwards=%s%s",
                     len(told.addresses), quoted(without), mention(left_out))  # fmt: skip
