# SPDX-License-Identifier: Apache-2.0
"""Every map that must not begin empty has a source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from loader import PROGRAMS, NewMaps
from loader.bpf import MapInfo, Object
from loader.compile import compile_programs
from loader.migration import OF_PROGRAMS
from pycni.errors import SetupError
from pycni.setup import refill
from pycni.setup.refill import Facts

FACTS = cast(Facts, SimpleNamespace())


def test_every_map_that_programs_do_not_fill_has_a_source(tmp_path: Path) -> None:
    objects = compile_programs(tmp_path / "cache")
    declared: dict[str, MapInfo] = {}
    for program in PROGRAMS:
        with Object.open(objects.path(program)) as opened:
            declared |= opened.maps()

    assert {n for n, m in declared.items() if m.type_name not in OF_PROGRAMS} == set(refill.SOURCES)


def test_only_what_is_empty_is_filled_and_two_maps_of_one_source_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled: list[tuple[str, Path]] = []

    def peers(root: Path, _: Facts) -> None:
        filled.append(("peers", root))

    monkeypatch.setattr(refill, "SOURCES", dict.fromkeys(("vteps", "remotes"), peers) | {"self": 0})

    refill.refill(NewMaps(Path("beside"), frozenset({"vteps", "remotes"})), FACTS)

    assert filled == [("peers", Path("beside"))]


def test_a_map_without_a_source_is_named_before_anything_is_written() -> None:
    with pytest.raises(SetupError, match="map policies has another layout"):
        refill.refill(NewMaps(Path("beside"), frozenset({"policies", "self"})), FACTS)
