# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/install.py: the plugin and the network configuration list."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from pycni import files
from pycni.cni import launcher
from pycni.errors import FileError, IncompatibleVersion, InvalidConfig, NoLauncher
from pycni.settings import Settings
from pycni.setup import conflist
from pycni.setup import install as installer
from pycni.setup.install import (
    Network,
    Places,
    Request,
    install,
    plan,
    plan_removal,
    remove,
    render_plugin,
    uninstall,
    write,
)

SOCKET = Path("/run/node-one/agent.sock")
PYTHON = Path("/opt/pycni/bin/python3")
SETTINGS = Path("/etc/node-one/pycni.toml")
FOREIGN = "#!/bin/sh\n"


@pytest.fixture
def dirs(tmp_path):
    return tmp_path / "bin", tmp_path / "net.d"


@pytest.fixture
def without_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    return "no C compiler"


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    """The one that has pycni installed."""
    monkeypatch.setattr(sys, "executable", str(PYTHON))


def places(*, socket=SOCKET, python: Path | None = PYTHON) -> Places:
    return Places(socket, socket.parent, Path("/sys/fs/bpf/one"), SETTINGS, python)


def put(dirs, *, socket=SOCKET, report=print, **network):
    return install(*dirs, places=places(socket=socket), network=Network(**network), report=report)


CAPABILITIES = dict.fromkeys(conflist.CAPABILITIES, True)


def test_a_runtime_finds_an_executable_and_a_list(dirs):
    _, plugin, conflist = put(dirs, name="podnet", mtu=1400)

    assert plugin == dirs[0] / "pycni"
    assert stat.S_IMODE(plugin.stat().st_mode) == 0o755
    assert conflist == dirs[1] / "10-pycni.conflist"
    assert stat.S_IMODE(conflist.stat().st_mode) == 0o644
    assert json.loads(conflist.read_text()) == {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "podnet",
        "writtenBy": "pycni install",
        "plugins": [{"type": "pycni", "ipMasq": True, "mtu": 1400, "capabilities": CAPABILITIES}],
    }


def test_without_an_mtu_the_node_chooses(dirs):
    *_, conflist = put(dirs, ip_masq=False)

    (own,) = json.loads(conflist.read_text())["plugins"]
    assert own == {"type": "pycni", "ipMasq": False, "capabilities": CAPABILITIES}


def test_the_script_starts_isolated_with_its_paths_filled_in(dirs, without_compiler):
    script, *_ = put(dirs)

    lines = script.read_text().splitlines()

    assert lines[0] == "#!/usr/bin/python3 -IS"
    assert f"SOCKET = '{SOCKET}'" in lines
    assert f"PYTHON = '{PYTHON}'" in lines
    assert f"SETTINGS = '{SETTINGS}'" in lines
    assert without_compiler


def test_the_launcher_has_its_paths_beside_it(dirs):
    beside, *_ = put(dirs)

    assert beside == dirs[0] / ".pycni.paths"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o644
    assert beside.read_text().splitlines() == [
        "# Written by `pycni install`; `pycni uninstall` removes it.",
        f"socket={SOCKET}",
        "run_dir=/run/node-one",
        "pins=/sys/fs/bpf/one",
        f"python={PYTHON}",
        f"settings={SETTINGS}",
    ]


def test_a_host_without_python_is_told_of_none(dirs):
    beside, *_ = install(*dirs, places=places(python=None))

    assert "python=" in beside.read_text().splitlines()


def test_a_host_without_python_gets_no_script_for_a_plugin(dirs, without_compiler):
    with pytest.raises(NoLauncher, match=without_compiler):
        install(*dirs, places=places(python=None))

    assert not dirs[0].exists()


def test_a_launcher_that_came_with_pycni_needs_no_compiler(
    dirs, without_compiler, monkeypatch, tmp_path
):
    prebuilt = tmp_path / "prebuilt"
    prebuilt.write_bytes(b"\x7fELF as it came")
    monkeypatch.setattr(launcher, "PREBUILT", prebuilt)

    _, plugin, _ = put(dirs)

    assert without_compiler
    assert plugin.read_bytes() == prebuilt.read_bytes()


def test_places_are_those_of_the_settings():
    found = Places.of(Settings(), SETTINGS)

    assert (found.config, found.python) == (SETTINGS, PYTHON)
    assert launcher.USUAL["socket"] == str(found.socket)
    assert launcher.USUAL["run_dir"] == str(found.run_dir)
    assert launcher.USUAL["pins"] == str(found.pins)
    assert Places.of(Settings(), SETTINGS, without_python=True).python is None


def test_what_an_earlier_release_had_beside_its_launcher_is_removed(dirs):
    beside, *_ = put(dirs)
    former = beside.with_name(".pycni.py")
    former.write_text(f"#!/usr/bin/python3 -IS\n{launcher.MARKER}\n")

    put(dirs)

    assert not former.exists()


@pytest.mark.parametrize("path", ["/it's", '/"quoted"\\', "/new\nline", "/é"])
def test_any_path_can_be_filled_in(path):
    filled: dict[str, Any] = {}

    text = render_plugin(Places(Path(path), Path("/run"), Path("/pins"), None, PYTHON))
    exec(compile(text, "plugin", "exec"), filled | {"__name__": "plugin"}, filled)

    assert filled["SOCKET"] == path
    assert filled["SETTINGS"] == ""


def test_nothing_but_the_three_files_is_left_behind(dirs):
    put(dirs)
    put(dirs)

    assert sorted(os.listdir(dirs[0])) == [".pycni.paths", "pycni"]
    assert os.listdir(dirs[1]) == ["10-pycni.conflist"]


def test_a_running_plugin_is_replaced_by_rename(dirs):
    beside, plugin, _ = put(dirs)
    running, known = plugin.open("rb"), beside.open("rb")

    with running, known:
        put(dirs, socket=Path("/run/other.sock"))

        assert os.fstat(running.fileno()).st_ino != plugin.stat().st_ino
        assert str(SOCKET).encode() in known.read()
        assert b"/run/other.sock" in beside.read_bytes()


def test_without_a_compiler_the_plugin_is_the_python_alone(dirs, without_compiler):
    notes: list[str] = []

    plugin, _ = put(dirs, report=notes.append)

    assert plugin.read_text().startswith("#!/usr/bin/python3 -IS\n")
    assert os.listdir(dirs[0]) == ["pycni"]
    assert [without_compiler in note for note in notes] == [True]
    assert uninstall(*dirs) == [dirs[1] / "10-pycni.conflist", plugin]


def test_a_compiler_that_comes_or_goes_changes_the_plugin(dirs, monkeypatch, tmp_path):
    beside, plugin, _ = put(dirs)

    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        put(dirs)
    alone = plugin.read_bytes()
    assert not beside.exists()
    put(dirs)

    assert alone == render_plugin(places())
    assert plugin.read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize("name", [".pycni.py", ".pycni.paths"])
def test_what_somebody_else_has_there_stays_when_there_is_no_compiler(dirs, without_compiler, name):
    dirs[0].mkdir()
    foreign = dirs[0] / name
    foreign.write_text(FOREIGN)

    put(dirs)

    assert without_compiler
    assert foreign.read_text() == FOREIGN


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": "a/b"}, InvalidConfig),
        ({"mtu": 10}, InvalidConfig),
        ({"cni_version": "9.9.9"}, IncompatibleVersion),
    ],
)
def test_a_network_that_would_not_work_is_refused_before_anything_is_written(dirs, options, error):
    with pytest.raises(error):
        put(dirs, **options)

    assert not dirs[0].exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bin/pycni", "pycni did not write it"),
        ("bin/.pycni.paths", "pycni did not write it"),
        ("net.d/10-pycni.conflist", "is no network list with the plugin pycni"),
    ],
)
def test_a_file_of_somebody_else_stays_and_the_other_is_not_written(dirs, tmp_path, name, reason):
    foreign = tmp_path / name
    foreign.parent.mkdir()
    foreign.write_text(FOREIGN)

    with pytest.raises(FileError, match=reason):
        put(dirs)

    assert foreign.read_text() == FOREIGN
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [foreign]


@pytest.mark.parametrize("name", ["bin/pycni", "bin/.pycni.paths", "net.d/10-pycni.conflist"])
@pytest.mark.parametrize("share", [0, 2], ids=["empty", "half"])
def test_a_file_whose_write_did_not_end_is_written_again(dirs, tmp_path, name, share):
    put(dirs)
    file = tmp_path / name
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2 if share else 0])

    put(dirs)

    assert file.read_bytes() == whole
    assert not list(tmp_path.rglob("*.bak*"))


def edit(path: Path) -> str:
    """Change a list as an operator may; returns the text."""
    document = json.loads(path.read_text())
    document["plugins"][0]["tcx"] = True
    document["plugins"].append({"type": "bandwidth"})
    path.write_text(json.dumps(document))
    path.chmod(0o640)
    return path.read_text()


def asked(dirs, **options: Any) -> Request:
    """What `pycni install` asks for, with a network of the options that a Network has."""
    bin_dir, conf_dir = dirs
    force = options.pop("force", False)
    return Request(bin_dir, conf_dir, places(), Network(**options), force=force)


def test_an_operators_edits_stay_at_the_next_install(dirs):
    *_, listed = put(dirs)
    text = edit(listed)

    written = write(plan(asked(dirs)))

    assert listed not in written
    assert listed.read_text() == text
    assert os.listdir(dirs[1]) == [listed.name]


def test_a_change_that_is_asked_for_keeps_a_copy_and_the_mode(dirs):
    *_, listed = put(dirs)
    text = edit(listed)

    written = write(plan(asked(dirs, mtu=1300)))

    copy = listed.with_name(f"{listed.name}.bak")
    assert written[-1] == listed
    assert copy.read_text() == text
    assert json.loads(listed.read_text())["plugins"][0]["mtu"] == 1300
    assert json.loads(listed.read_text())["plugins"][1] == {"type": "bandwidth"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in (listed, copy)} == {0o640}


def test_no_copy_replaces_an_older_one(dirs):
    *_, listed = put(dirs)
    first = listed.read_text()
    for mtu in (1300, 1310):
        write(plan(asked(dirs, mtu=mtu)))

    assert listed.with_name(f"{listed.name}.bak").read_text() == first
    assert '"mtu": 1300' in listed.with_name(f"{listed.name}.bak1").read_text()


@pytest.mark.parametrize("text", [FOREIGN, '{"plugins": [{"type": "bridge"}]}'])
def test_by_force_a_list_is_written_anew_and_a_copy_of_it_kept(dirs, text):
    dirs[1].mkdir()
    listed = dirs[1] / "10-pycni.conflist"
    listed.write_text(text)

    write(plan(asked(dirs, force=True)))

    assert json.loads(listed.read_text())["writtenBy"] == "pycni install"
    assert listed.with_name(f"{listed.name}.bak").read_text() == text


def test_a_list_of_ours_under_another_name_is_the_list(dirs):
    """Somebody renamed it, so that it sorts first: a second list would make a second network."""
    *_, listed = put(dirs)
    renamed = listed.rename(listed.with_name("00-first.conflist"))

    write(plan(asked(dirs, mtu=1300)))

    assert sorted(os.listdir(dirs[1])) == [renamed.name, f"{renamed.name}.bak"]
    assert json.loads(renamed.read_text())["plugins"][0]["mtu"] == 1300


def test_a_link_to_a_list_stays_a_link(dirs, tmp_path):
    *_, listed = put(dirs)
    managed = listed.rename(tmp_path / "managed.conflist")
    listed.symlink_to(managed)

    write(plan(asked(dirs, mtu=1300)))

    assert listed.is_symlink()
    assert '"mtu": 1300' in managed.read_text()


def test_a_plan_changes_nothing(dirs, tmp_path):
    files = plan(asked(dirs))

    assert [file.path.name for file in files] == [".pycni.paths", "pycni", "10-pycni.conflist"]
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_the_list_as_it_was(dirs, monkeypatch):
    *_, listed = put(dirs)
    text = edit(listed)
    files = plan(asked(dirs, mtu=1300))

    def read_only(*_args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(installer, "_copy", read_only)
    with pytest.raises(FileError, match="Read-only"):
        write(files)

    assert listed.read_text() == text
    assert os.listdir(dirs[1]) == [listed.name]


def test_what_cannot_be_removed_is_said_to_be_so(dirs):
    put(dirs)
    removal = installer.plan_removal(*dirs)
    for path in removal.paths:
        path.unlink()
        path.mkdir()

    with pytest.raises(FileError, match="cannot be removed: Is a directory"):
        installer.remove(removal)


def test_a_pipe_in_the_place_of_the_plugin_is_not_waited_for(dirs):
    dirs[0].mkdir()
    os.mkfifo(dirs[0] / "pycni")

    with pytest.raises(FileError, match="cannot be replaced: it is a pipe"):
        put(dirs)


def test_a_directory_that_cannot_be_made_is_told(dirs, tmp_path):
    dirs[1].write_text("a file, not a directory")

    with pytest.raises(FileError, match="cannot be written"):
        put(dirs)

    assert list(tmp_path.rglob("pycni")) == []


def test_a_write_that_fails_leaves_no_temporary_file(dirs, tmp_path, monkeypatch):
    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(installer.os, "fsync", full_disk)

    with pytest.raises(FileError, match="No space left"):
        put(dirs)

    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("call", [put, lambda dirs: uninstall(*dirs)])
def test_a_directory_that_cannot_be_changed_is_told(dirs, monkeypatch, call):
    put(dirs)

    def read_only(*_args: object, **_options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "mkstemp", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)

    with pytest.raises(FileError, match="Read-only"):
        call(dirs)


def test_uninstall_removes_the_list_and_then_the_plugin_and_again_nothing(dirs):
    beside, plugin, conflist = put(dirs)

    assert uninstall(*dirs) == [conflist, plugin, beside]
    assert uninstall(*dirs) == []
    assert [*dirs[0].iterdir(), *dirs[1].iterdir()] == []


def unmark(path: Path) -> None:
    document = json.loads(path.read_text())
    del document["writtenBy"]
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("change", [edit, unmark])
def test_a_list_that_stays_keeps_its_plugin(dirs, change):
    """Without it, the runtime could neither make nor remove a pod."""
    beside, plugin, listed = put(dirs)
    change(listed)

    removal = plan_removal(*dirs)

    assert remove(removal) == []
    assert all(file.exists() for file in (beside, plugin, listed))
    assert removal.stays[listed].endswith("it uses the plugin")
    assert removal.stays[plugin] == removal.stays[beside] == "a list that stays uses it"


def test_a_list_of_somebody_else_that_uses_the_plugin_keeps_it(dirs):
    _, plugin, listed = put(dirs)
    other = listed.with_name("50-mine.conflist")
    other.write_text('{"plugins": [{"type": "pycni"}]}')

    assert uninstall(*dirs) == [listed]
    assert plugin.exists()

    other.unlink()
    assert plugin in uninstall(*dirs)


def test_copies_of_lists_stay_and_are_named(dirs):
    *_, listed = put(dirs)
    write(plan(asked(dirs, mtu=1300)))

    removal = plan_removal(*dirs)

    assert listed.with_name(f"{listed.name}.bak") in removal.stays
    assert listed in remove(removal)


@pytest.mark.parametrize("text", [FOREIGN, "{", "[]", "{}", '{"plugins": [{"type": "bridge"}]}'])
def test_uninstall_leaves_what_somebody_else_wrote(dirs, text):
    put(dirs)
    bin_dir, conf_dir = dirs
    for name in ("pycni", ".pycni.paths", ".pycni.py"):
        (bin_dir / name).write_text(text)
    (conf_dir / "10-pycni.conflist").write_text(text)

    assert uninstall(*dirs) == []


def test_uninstall_leaves_what_is_no_text(dirs):
    _, plugin, _ = put(dirs)
    plugin.write_bytes(b"\x7fELF\xff\xfe")

    uninstall(*dirs)

    assert plugin.exists()
