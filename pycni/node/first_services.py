# SPDX-License-Identifier: Apache-2.0
"""Whether the maps of Services that are pinned now were ever written completely: a file in the run
directory, which goes with a reboot as the maps do.

Until then a pod would not reach Services. So STATUS keeps a node without pods from getting any; one
that has pods is not made unready for it.
"""

from __future__ import annotations

from pathlib import Path

from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.files import remove_file, replace_file
from pycni.settings import Settings

FILE = "services-written"
SIZE_MAX = 100
"""Bytes that are read of it."""


def tell(settings: Settings, number: int) -> None:
    """All is in the maps; `number` is the id of `services`. Raises FileError."""
    replace_file(_path(settings), _text(number), durable=False)


def teardown(settings: Settings) -> None:
    """Remove the file. Raises FileError."""
    remove_file(_path(settings))


def refuse_unwritten(settings: Settings) -> None:
    """Raise NotAvailable while Services are on and were never written."""
    if settings.services == "off":
        return
    with maps.open_map(settings.pin_root, "services") as services:
        now = services.info.id
    try:
        with _path(settings).open("rb") as file:
            written = file.read(SIZE_MAX)
    except OSError:
        written = b""
    if written != _text(now):
        raise NotAvailable(
            "no Service is forwarded yet: the agent has not listed them",
            hint="wait; if it takes longer than seconds, see the agent's log, and apply rbac.yaml",
        )


def _path(settings: Settings) -> Path:
    return settings.run_dir / FILE


def _text(number: int) -> bytes:
    return f"{number}\n".encode()
