# SPDX-License-Identifier: Apache-2.0
"""A setup that fails leaves no directory that it made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pycni import locks
from pycni.errors import SetupError
from pycni.settings import Settings, make_directories
from pycni.setup import new_directories


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        node_name="one",
        state_dir=tmp_path / "a/state",
        run_dir=tmp_path / "b/run",
        cache_dir=tmp_path / "c/cache",
        bpffs=tmp_path / "bpf",
        store=f"sqlite:{tmp_path}/d/store/cluster.db",
    )


def fail(settings: Settings, then: Callable[[], object] = lambda: None) -> None:
    with new_directories.taken_back(settings):
        make_directories(settings)
        assert settings.store_file is not None
        settings.store_file.parent.mkdir(parents=True)
        with locks.network_lock(settings.run_dir):
            pass
        then()
        raise SetupError("no uplink", hint="name one")


def test_what_a_failed_setup_made_goes_away(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SetupError):
        fail(settings)

    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_is_not_empty_stays(settings: Settings, tmp_path: Path) -> None:
    settings.run_dir.mkdir(parents=True, mode=0o700)
    (tmp_path / "a").mkdir()

    with pytest.raises(SetupError):
        fail(settings, (settings.cache_dir / "object").touch)

    left = {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")}
    assert {"a", "b/run", "b/run/locks", "c/cache/object"} <= left
    assert not left & {"a/state", "d"}


def test_a_lock_that_somebody_else_holds_stays(settings: Settings) -> None:
    with ExitStack() as held:
        with pytest.raises(SetupError):
            fail(settings, lambda: held.enter_context(locks.network_lock(settings.run_dir)))

        assert (settings.run_dir / locks.LOCK_DIRECTORY).is_dir()


def test_a_setup_that_succeeds_keeps_its_directories(settings: Settings) -> None:
    with new_directories.taken_back(settings):
        make_directories(settings)

    assert settings.state_dir.is_dir()
