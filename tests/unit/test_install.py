"""pycni/install.py: the plugin and the network configuration list."""

import json
import os
import stat
from pathlib import Path

import pytest

from pycni import install as installer
from pycni.errors import FileError, IncompatibleVersion, InvalidConfig
from pycni.install import install, render_plugin, uninstall

SOCKET = Path("/run/node-one/agent.sock")
PYTHON = Path("/opt/pycni/bin/python3")
SETTINGS = Path("/etc/node-one/pycni.toml")
FOREIGN = "#!/bin/sh\n"


@pytest.fixture
def dirs(tmp_path):
    return tmp_path / "bin", tmp_path / "net.d"


def put(dirs, **options):
    return install(*dirs, **{"socket": SOCKET, "settings": SETTINGS, "python": PYTHON} | options)


CAPABILITIES = dict.fromkeys(installer.CAPABILITIES, True)


def test_a_runtime_finds_an_executable_and_a_list(dirs):
    plugin, conflist = put(dirs, network_name="podnet", mtu=1400)

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
    _, conflist = put(dirs, ip_masq=False)

    (own,) = json.loads(conflist.read_text())["plugins"]
    assert own == {"type": "pycni", "ipMasq": False, "capabilities": CAPABILITIES}


def test_the_plugin_starts_isolated_with_its_paths_filled_in(dirs):
    plugin, _ = put(dirs)

    lines = plugin.read_text().splitlines()

    assert lines[0] == "#!/usr/bin/python3 -IS"
    assert f"SOCKET = '{SOCKET}'" in lines
    assert f"PYTHON = '{PYTHON}'" in lines
    assert f"SETTINGS = '{SETTINGS}'" in lines


@pytest.mark.parametrize("path", ["/it's", '/"quoted"\\', "/new\nline", "/é"])
def test_any_path_can_be_filled_in(path):
    filled = {}

    text = render_plugin(socket=Path(path), python=PYTHON, settings=None)
    exec(compile(text, "plugin", "exec"), filled | {"__name__": "plugin"}, filled)

    assert filled["SOCKET"] == path
    assert filled["SETTINGS"] == ""


def test_nothing_but_the_two_files_is_left_behind(dirs):
    put(dirs)
    put(dirs)

    assert os.listdir(dirs[0]) == ["pycni"]
    assert os.listdir(dirs[1]) == ["10-pycni.conflist"]


def test_a_running_plugin_is_replaced_by_rename(dirs):
    plugin, _ = put(dirs)
    running = plugin.open("rb")

    with running:
        put(dirs, socket=Path("/run/other.sock"))

        assert os.fstat(running.fileno()).st_ino != plugin.stat().st_ino
        assert str(SOCKET).encode() in running.read()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"network_name": "a/b"}, InvalidConfig),
        ({"mtu": 10}, InvalidConfig),
        ({"cni_version": "9.9.9"}, IncompatibleVersion),
    ],
)
def test_a_network_that_would_not_work_is_refused_before_anything_is_written(dirs, options, error):
    with pytest.raises(error):
        put(dirs, **options)

    assert not dirs[0].exists()


@pytest.mark.parametrize("name", ["bin/pycni", "net.d/10-pycni.conflist"])
def test_a_file_of_somebody_else_stays_and_the_other_is_not_written(dirs, tmp_path, name):
    foreign = tmp_path / name
    foreign.parent.mkdir()
    foreign.write_text(FOREIGN)

    with pytest.raises(FileError, match="pycni did not write it"):
        put(dirs)

    assert foreign.read_text() == FOREIGN
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [foreign]


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

    monkeypatch.setattr(installer.tempfile, "mkstemp", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)

    with pytest.raises(FileError, match="Read-only"):
        call(dirs)


def test_uninstall_removes_the_list_and_then_the_plugin_and_again_nothing(dirs):
    plugin, conflist = put(dirs)

    assert uninstall(*dirs) == [conflist, plugin]
    assert uninstall(*dirs) == []
    assert not plugin.exists()
    assert not conflist.exists()


def test_uninstall_leaves_a_list_that_has_another_plugin_now(dirs):
    _, conflist = put(dirs)
    document = json.loads(conflist.read_text())
    document["plugins"].append({"type": "portmap"})
    conflist.write_text(json.dumps(document))

    assert uninstall(*dirs) == [dirs[0] / "pycni"]
    assert conflist.exists()


@pytest.mark.parametrize("text", [FOREIGN, "{", "[]", "{}", '{"plugins": [{"type": "pycni"}]}'])
def test_uninstall_leaves_what_somebody_else_wrote(dirs, text):
    put(dirs)
    for directory, name in zip(dirs, ("pycni", "10-pycni.conflist"), strict=True):
        (directory / name).write_text(text)

    assert uninstall(*dirs) == []


def test_uninstall_leaves_what_is_no_text(dirs):
    plugin, _ = put(dirs)
    plugin.write_bytes(b"\x7fELF\xff\xfe")

    uninstall(*dirs)

    assert plugin.exists()
