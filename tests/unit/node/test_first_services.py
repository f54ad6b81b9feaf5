# SPDX-License-Identifier: Apache-2.0
"""pycni/node/first_services.py: whether the maps that are pinned now were written completely."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from pycni.errors import NotAvailable
from pycni.node import first_services
from pycni.settings import Settings


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The map `services`."""
    info = SimpleNamespace(id=7)
    opened = SimpleNamespace(info=info)
    monkeypatch.setattr(first_services.maps, "open_map", lambda *_: nullcontext(opened))
    return info


@pytest.fixture
def settings(tmp_path: Path, pinned: SimpleNamespace) -> Settings:
    assert pinned.id == 7
    return Settings(node_name="one", run_dir=tmp_path / "run", services="pods")


def test_what_was_never_written_is_refused(settings: Settings) -> None:
    with pytest.raises(NotAvailable, match="no Service is forwarded yet"):
        first_services.refuse_unwritten(settings)


def test_what_was_written_is_not(settings: Settings) -> None:
    first_services.tell(settings, 7)

    first_services.refuse_unwritten(settings)


def test_other_maps_are_others(settings: Settings, pinned: SimpleNamespace) -> None:
    first_services.tell(settings, 7)
    pinned.id = 71

    with pytest.raises(NotAvailable):
        first_services.refuse_unwritten(settings)


def test_services_that_are_off_need_no_write(settings: Settings) -> None:
    first_services.refuse_unwritten(settings.model_copy(update={"services": "off"}))


def test_nothing_is_left(settings: Settings) -> None:
    for _ in range(2):
        first_services.tell(settings, 7)
        first_services.teardown(settings)
        first_services.teardown(settings)

    assert list(settings.run_dir.iterdir()) == []
