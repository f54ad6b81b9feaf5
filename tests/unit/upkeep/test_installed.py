# SPDX-License-Identifier: Apache-2.0
"""What an agent holds: kept, read again, let go."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.kernel import mounts
from pycni.kernel.mounts import Mount
from pycni.settings import Settings
from pycni.upkeep import installed
from pycni.upkeep.installed import Wanted


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(run_dir=tmp_path / "run", state_dir=tmp_path / "state")


def files(directory: Path) -> list[Wanted]:
    return [
        Wanted(directory / ".pycni.paths", b"paths", 0o644),
        Wanted(directory / "pycni", b"program", 0o755),
        Wanted(directory / "list", b"{}", 0o644),
    ]


def test_what_is_held_is_read_again(settings: Settings, tmp_path: Path) -> None:
    installed.save(settings, files(tmp_path))

    held = installed.load(settings)

    assert held is not None
    assert held.executable.path == tmp_path / "pycni"
    assert held.paths == [tmp_path / name for name in (".pycni.paths", "pycni", "list")]
    assert (held.listed.mode, held.listed.size) == (0o644, 2)
    assert held.listed.digest == installed.digest_of(b"{}")


def test_other_files_take_the_places_of_those_before(settings: Settings, tmp_path: Path) -> None:
    installed.save(settings, files(tmp_path / "before"))
    installed.save(settings, files(tmp_path / "now"))

    held = installed.load(settings)

    assert held is not None
    assert {path.parent for path in held.paths} == {tmp_path / "now"}


def test_nothing_is_held_by_default_and_after_the_end(settings: Settings, tmp_path: Path) -> None:
    assert installed.load(settings) is None
    installed.save(settings, files(tmp_path))
    installed.close(settings)

    assert installed.load(settings) is None
    assert not installed.record_path(settings).parent.exists()
    installed.close(settings)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"files": []}', '{"files": [{"path": "/x"}]}', "[" * 100_000]
)
def test_a_list_that_is_not_ours_holds_nothing(settings: Settings, text: str) -> None:
    path = installed.record_path(settings)
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert installed.load(settings) is None


def test_a_copy_that_is_gone_says_nothing_of_a_content(settings: Settings, tmp_path: Path) -> None:
    installed.save(settings, files(tmp_path))
    held = installed.load(settings)
    assert held is not None

    assert installed.is_part_of(settings, held.executable, b"prog")
    assert not installed.is_part_of(settings, held.executable, b"program")
    assert not installed.is_part_of(settings, held.executable, b"perl")
    (installed.record_path(settings).parent / "pycni").unlink()
    assert not installed.is_part_of(settings, held.executable, b"prog")


def test_directories_that_are_mount_points_are_known_by_what_is_mounted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {
        Path("/opt/cni/bin"): Mount(Path("/opt/cni/bin"), True, False, "ext4", "/dev/a", "/cni"),
        Path("/etc/cni/net.d"): Mount(Path("/"), True, False, "ext4", "/dev/a", "/"),
    }
    monkeypatch.setattr(mounts, "covering", table.get)

    found = installed.roots([Path("/opt/cni/bin/pycni"), Path("/etc/cni/net.d/list"), Path("/x/y")])

    assert found == {Path("/opt/cni/bin"): "/cni"}


def test_they_are_written_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever compares two states of a host sees no difference where there is none."""
    monkeypatch.setattr(
        mounts, "covering", lambda at: Mount(at, True, False, "ext4", "/dev/a", "/x")
    )
    places = [Path(f"/{letter}") for letter in "abcdefghijkl"]

    assert [*installed.roots(place / "file" for place in reversed(places))] == places
