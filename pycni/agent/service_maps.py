# SPDX-License-Identifier: Apache-2.0
"""The pinned maps of Services, as an agent reads and writes them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from loader.closing import Closing
from pycni.dataplane import maps
from pycni.dataplane.maps import Table
from pycni.dataplane.service_maps import Backend, FrontendKey, ServiceEntry
from pycni.services.table import Changes, Have, Room


class ServiceMaps(Closing):
    """Owns their descriptors. Methods raise OSError."""

    def __init__(self, root: Path) -> None:
        """Those pinned at `root`. Raises NotAvailable."""
        with ExitStack() as undo:
            services: Table[FrontendKey, ServiceEntry]
            slots: Table[int, int]
            backends: Table[int, Backend]
            services = undo.enter_context(maps.open_table(root, "services"))
            slots = undo.enter_context(maps.open_table(root, "slots"))
            backends = undo.enter_context(maps.open_table(root, "backends"))
            self._close = undo.pop_all()
        self._services, self._slots, self._backends = services, slots, backends
        infos = (services.info, slots.info, backends.info)
        self.ids = tuple(info.id for info in infos)
        """What tells them from maps that a setup puts in their place."""
        self.room = Room(*(info.max_entries for info in infos))

    def __enter__(self) -> Self:
        return self

    def read(self) -> Have:
        """What is in them."""
        return Have(
            dict(self._services.items()),
            dict(self._backends.marked("generation")),
            dict(self._slots.marked("backend")),
        )

    def write(self, made: Changes) -> None:
        """In the order that `Changes` tells."""
        for index, backend in made.backends.items():
            self._backends.put(index, backend)
        for number, slot in made.slots.items():
            self._slots.put(number, slot)
        for key, entry in made.services.items():
            self._services.put(key, entry)
        for key in made.removed:
            self._services.remove(key)
        for index, backend in made.gone.items():
            self._backends.put(index, backend)

    def close(self) -> None:
        self._close.close()
