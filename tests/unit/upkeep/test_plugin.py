# SPDX-License-Identifier: Apache-2.0
"""Plugin and network list: what is written again, what is left to others, and what is said."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.launcher import ELF, MARKER
from pycni.errors import FileError
from pycni.faults import Fault, Weight
from pycni.settings import Settings
from pycni.upkeep import installed, plugin
from pycni.upkeep.description import Description
from pycni.upkeep.installed import Wanted

UNUSED: Any = None
PROGRAM = ELF + b"code " * 100 + MARKER.encode() + b" more code" * 100
PATHS = f"{MARKER}\nsocket=/run/pycni/agent.sock\n".encode()
LIST = b'{"cniVersion": "1.0.0", "name": "pycni", "plugins": [{"type": "pycni"}]}'
OTHER_LIST = '{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge"}]}'


class Host:
    """A host with the plugin and its list, which an agent holds."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(run_dir=directory / "run", state_dir=directory / "state")
        self.description = Description(self.settings, UNUSED)
        self.bin_dir, self.conf_dir = directory / "bin", directory / "net.d"
        self.paths = self.bin_dir / ".pycni.paths"
        self.plugin = self.bin_dir / "pycni"
        self.listed = self.conf_dir / "10-pycni.conflist"
        self.wanted = (Wanted(self.paths, PATHS, 0o644), Wanted(self.plugin, PROGRAM, 0o755),
                       Wanted(self.listed, LIST, 0o644))  # fmt: skip
        for path, content, mode in self.wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)
        installed.save(self.settings, self.wanted)

    def faults(self) -> list[Fault]:
        return list(plugin.faults(self.description, UNUSED))

    def mend(self) -> None:
        plugin.mend(self.description, UNUSED)

    @property
    def is_whole(self) -> bool:
        return all(
            path.read_bytes() == content and path.stat().st_mode & 0o777 == mode
            for path, content, mode in self.wanted
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_files_as_they_were_installed_are_right(host: Host) -> None:
    assert host.faults() == []
    assert plugin.details(host.settings) == f"{host.plugin}, {host.listed}"


def test_files_that_no_agent_holds_are_nobodys_fault(host: Host) -> None:
    installed.close(host.settings)
    host.plugin.unlink()

    host.mend()

    assert host.faults() == []
    assert not host.plugin.exists()
    assert plugin.details(host.settings).startswith("not watched")


DAMAGES: dict[str, tuple[Callable[[Host], object], str]] = {
    "plugin gone": (lambda host: host.plugin.unlink(), "gone"),
    "paths gone": (lambda host: host.paths.unlink(), "gone"),
    "list gone": (lambda host: host.listed.unlink(), "gone"),
    "plugin empty": (lambda host: host.plugin.write_bytes(b""), "empty"),
    "plugin cut": (lambda host: host.plugin.write_bytes(PROGRAM[:50]), "cut short"),
    "list empty": (lambda host: host.listed.write_bytes(b""), "empty"),
    "list cut": (lambda host: host.listed.write_bytes(LIST[:20]), "cut short"),
    "plugin of an old release": (
        lambda host: host.plugin.write_bytes(PROGRAM.replace(b"more", b"less")),
        "not as it was installed",
    ),
    "paths edited": (
        lambda host: host.paths.write_bytes(PATHS + b"python=/x\n"), "not as it was installed"
    ),
    "plugin not executable": (lambda host: host.plugin.chmod(0o644), "of mode 0644, not 0755"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_taken_away_is_written_again_as_it_was(host: Host, damage: str) -> None:
    do, found = DAMAGES[damage]
    do(host)

    (fault,) = host.faults()
    host.mend()

    assert (fault.part, fault.found, fault.todo) == ("plugin", found, "")
    assert fault.weight is Weight.DEGRADED
    assert host.is_whole
    assert host.faults() == []
    names = {path.name for path in (*host.bin_dir.iterdir(), *host.conf_dir.iterdir())}
    assert names == {path.name for path, _, _ in host.wanted}


def test_directories_that_are_gone_are_made_again(host: Host) -> None:
    for path, _, _ in host.wanted:
        path.unlink()
    host.bin_dir.rmdir()
    host.conf_dir.rmdir()

    assert [fault.thing for fault in host.faults()] == [str(path) for path, _, _ in host.wanted]
    host.mend()

    assert host.is_whole


def test_somebody_elses_program_is_left_alone(host: Host) -> None:
    theirs = ELF + b"another plugin, as long as ours or longer" * 100
    host.plugin.write_bytes(theirs)
    host.listed.unlink()

    foreign, gone = host.faults()
    host.mend()

    assert foreign.sentence == f"{host.plugin} is somebody else's file"
    assert "move it away" in foreign.todo
    assert (gone.thing, gone.todo) == (str(host.listed), "")
    assert host.plugin.read_bytes() == theirs
    assert host.listed.read_bytes() == LIST


def test_an_edit_of_the_list_is_the_operators(host: Host) -> None:
    edited = json.loads(LIST)
    edited["plugins"] = [{"type": "pycni", "mtu": 1300}, {"type": "tuning"}]
    host.listed.write_text(json.dumps(edited))

    assert host.faults() == []


def test_a_list_of_another_name_is_as_good(host: Host) -> None:
    host.listed.rename(host.conf_dir / "05-mine.conflist")

    assert host.faults() == []


def test_a_list_that_names_pycni_no_more_is_a_persons(host: Host) -> None:
    host.listed.write_text(OTHER_LIST)

    (fault,) = host.faults()
    host.mend()

    assert "does not name the plugin pycni" in fault.found
    assert fault.todo
    assert host.listed.read_text() == OTHER_LIST


def test_a_list_that_goes_first_is_left(host: Host) -> None:
    other = host.conf_dir / "05-other.conflist"
    other.write_text(OTHER_LIST)

    assert host.faults() == []
    host.mend()

    assert other.read_text() == OTHER_LIST


def test_our_list_does_not_come_back_behind_a_successors(host: Host) -> None:
    """Whoever moves the node to another plugin takes ours away: that is no damage."""
    other = host.conf_dir / "05-other.conflist"
    other.write_text(OTHER_LIST)
    host.listed.unlink()

    (fault,) = host.faults()
    host.mend()

    assert fault.found == f"gone, and {other} is used instead"
    assert str(other) in fault.todo
    assert not host.listed.exists()


def test_our_list_comes_back_before_one_that_sorts_after_it(host: Host) -> None:
    (host.conf_dir / "87-other.conflist").write_text(OTHER_LIST)
    host.listed.unlink()

    host.mend()

    assert host.listed.read_bytes() == LIST


@pytest.mark.parametrize("kind", ["multus", "multus-shim"])
def test_multus_goes_first_and_calls_us(host: Host, kind: str) -> None:
    (host.conf_dir / "00-multus.conf").write_text(json.dumps({"name": "all", "type": kind}))

    assert host.faults() == []
    host.listed.unlink()
    host.mend()

    assert host.listed.read_bytes() == LIST


def test_a_file_that_cannot_be_read_is_a_persons(host: Host) -> None:
    for path in (host.plugin, host.listed):
        path.unlink()
        path.mkdir()

    program, listed = host.faults()
    host.mend()

    assert (
        program.found == listed.found == ("not to be read: it is a directory, not a regular file")
    )
    assert program.todo == f"look at it: ls -ld {host.plugin}"
    assert listed.todo == f"look at it: ls -ld {host.listed}"


def test_a_directory_that_is_read_only_is_a_persons(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.plugin.unlink()
    real = os.statvfs(host.bin_dir)
    read_only = os.statvfs_result([*real[:8], real.f_flag | os.ST_RDONLY, *real[9:]])
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)

    (fault,) = host.faults()
    host.mend()

    assert fault.todo == f"make {host.bin_dir} writable; then the agent writes the file"
    assert not host.plugin.exists()


def test_a_directory_that_cannot_be_used_is_a_persons(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.plugin.unlink()

    def refuse(_: object) -> os.statvfs_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "statvfs", refuse)

    (fault,) = host.faults()

    assert fault.todo == f"{host.bin_dir} cannot be used: Permission denied"


def test_a_file_that_cannot_be_written_again_is_named(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.plugin.unlink()

    def refuse(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)

    with pytest.raises(FileError, match=r"bin/pycni cannot be written again: No space left"):
        host.mend()
    assert [path.name for path in host.bin_dir.iterdir()] == [".pycni.paths"]


def test_an_agent_that_has_the_hosts_old_directory_ends(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, a directory that the host made anew is not there (proc(5), mountinfo)."""
    monkeypatch.setattr(installed, "roots", lambda _: {host.conf_dir: "/etc/cni/net.d"})
    installed.save(host.settings, host.wanted)
    monkeypatch.setattr(installed, "roots", lambda _: {host.conf_dir: "/etc/cni/net.d//deleted"})
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    host.listed.unlink()

    (fault,) = host.faults()
    host.mend()

    assert fault.thing == str(host.conf_dir)
    assert "/etc/cni/net.d//deleted" in fault.found
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert not host.listed.exists()
