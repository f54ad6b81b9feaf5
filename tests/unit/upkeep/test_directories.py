# SPDX-License-Identifier: Apache-2.0
"""Directories: what is wrong with one, in a sentence with its name and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycni.settings import Settings
from pycni.upkeep import directories
from pycni.upkeep.description import Description

UNUSED: Any = None


@pytest.fixture
def description(tmp_path: Path) -> Description:
    settings = Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    made = Description(settings, UNUSED)
    directories.mend(made, UNUSED)
    return made


def test_directories_as_setup_makes_them_are_right(description: Description) -> None:
    assert list(directories.faults(description, UNUSED)) == []


def test_a_directory_that_is_gone_is_made_again(description: Description) -> None:
    state = description.settings.state_dir
    state.rmdir()

    (fault,) = directories.faults(description, UNUSED)
    directories.mend(description, UNUSED)

    assert (fault.sentence, fault.todo) == (f"{state} is gone", "")
    assert list(directories.faults(description, UNUSED)) == []


def test_a_directory_that_others_may_write_to_is_a_persons_to_close(
    description: Description,
) -> None:
    state = description.settings.state_dir
    state.chmod(0o777)

    (fault,) = directories.faults(description, UNUSED)

    assert fault.sentence == f"the directory {state} is writable by others (mode 0777)"
    assert fault.todo == f"close it: chmod 0700 {state}"
