# SPDX-License-Identifier: Apache-2.0
"""pycni/ipam/ipam_plugin.py: another plugin, found, executed, and ended in time."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from pycni.errors import (
    DecodingError,
    DelegateError,
    DelegateFailed,
    InvalidParameter,
    MissingPlugin,
    PycniError,
)
from pycni.ipam import ipam_plugin

STDIN = b'{"cniVersion": "1.0.0",  "name": "podnet", "odd": "\xff"}'
GIVEN = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/24"}]}
QUICK = 5.0


class Plugin:
    """An IPAM plugin whose body is Python."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {"CNI_PATH": f"/nowhere:{directory}", "CNI_ARGS": "A=\udcff", "OTHER": "kept"}

    def does(self, body: str) -> None:
        path = self.directory / "ipam"
        path.write_text(f"#!{sys.executable} -IS\nimport json, os, signal, sys, time\n{body}\n")
        path.chmod(0o755)

    def execute(self, command: str = "DEL", *, lock: int | None = None, timeout: float = QUICK):
        return ipam_plugin.execute(
            command, "ipam", env=self.env, stdin=STDIN, lock=lock, timeout=timeout
        )

    def add(self):
        return ipam_plugin.add("ipam", "1.0.0", env=self.env, stdin=STDIN, lock=1, timeout=QUICK)


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def test_it_gets_our_environment_and_our_bytes(plugin: Plugin) -> None:
    plugin.does(
        "sys.stdout.buffer.write(sys.stdin.buffer.read() + b'|' + "
        "b'|'.join(b'='.join(pair) for pair in sorted(os.environb.items())))"
    )

    stdin, *env = plugin.execute("CHECK").split(b"|")

    assert stdin == STDIN
    assert {b"CNI_COMMAND=CHECK", b"OTHER=kept", b"CNI_ARGS=A=\xff"} <= set(env)


def test_it_holds_our_lock_while_it_runs_and_no_other_descriptor(
    plugin: Plugin, tmp_path: Path
) -> None:
    plugin.does("print([n for n in range(3, 4096) if os.path.exists(f'/proc/self/fd/{n}')])")
    lock = os.open(tmp_path, os.O_RDONLY)

    listed = json.loads(plugin.execute(lock=lock))

    os.close(lock)
    assert listed == [lock]


def test_a_result_is_read_in_its_version(plugin: Plugin) -> None:
    plugin.does(f"print({json.dumps(json.dumps(GIVEN))})")

    assert str(plugin.add().ips[0].address) == "10.1.0.5/24"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("", DecodingError),
        ("noise", DecodingError),
        ("null", DecodingError),
        ('{"ips": [{"address": "10.1.0.5"}]}', DecodingError),
        ('{"ips": [{"address": "10.1.0.5/24", "interface": 0}]}', DecodingError),
        ('{"cniVersion": "9.9.9", "ips": []}', DelegateFailed),
        ("{}", DelegateFailed),
        ('{"code": 7, "msg": "an error that exits with 0"}', DelegateFailed),
    ],
)
def test_a_result_that_is_none_is_told(plugin: Plugin, said: str, error: type[PycniError]) -> None:
    plugin.does(f"print({said!r})")

    with pytest.raises(error, match="IPAM plugin ipam"):
        plugin.add()


def test_what_is_wrong_with_a_result_is_told_as_it_is(plugin: Plugin) -> None:
    plugin.does("print('{}')")
    with pytest.raises(DelegateFailed, match="of the IPAM plugin ipam has no address"):
        plugin.add()

    of_interface = {"address": "10.1.0.5/24", "interface": 0}
    given = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [of_interface]}
    plugin.does(f"print({json.dumps(json.dumps(given))})")
    with pytest.raises(DelegateFailed, match=r"has 10\.1\.0\.5/24 with an interface"):
        plugin.add()


def test_its_own_error_is_passed_on_word_for_word(plugin: Plugin) -> None:
    told = {"code": 123, "msg": "address not found", "details": "no such file or directory"}
    plugin.does(f"print({json.dumps(json.dumps(told))}); sys.exit(1)")

    with pytest.raises(DelegateError) as caught:
        plugin.execute("ADD")

    assert caught.value.to_json("1.0.0") == {"cniVersion": "1.0.0", **told}


def test_on_del_it_cannot_say_what_a_runtime_takes_for_success(plugin: Plugin) -> None:
    plugin.does("print(json.dumps({'code': 5, 'msg': 'lease Not Found'})); sys.exit(1)")

    with pytest.raises(DelegateError) as caught:
        plugin.execute("DEL")

    assert caught.value.message == "lease missing"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("sys.exit(3)", "exit status 3"),
        ('print(\'{"code": 0, "msg": "x"}\'); sys.exit(1)', "exit status 1"),
        ("print('{\"code\": 9}'); sys.exit(1)", "exit status 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
    ],
)
def test_a_failure_without_a_word_is_told_as_ours(plugin: Plugin, body: str, told: str) -> None:
    plugin.does(body)

    with pytest.raises(DelegateFailed, match=told) as caught:
        plugin.execute()

    assert caught.value.code == 108


def test_one_that_does_not_end_is_killed_with_its_children(plugin: Plugin, tmp_path: Path) -> None:
    plugin.does(f"open({str(tmp_path / 'child')!r}, 'w').write(str(os.fork())); time.sleep(60)")

    with pytest.raises(DelegateFailed, match="did not end DEL"):
        plugin.execute(timeout=3.0)

    child = (tmp_path / "child").read_text()
    deadline = time.monotonic() + QUICK
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def test_a_child_that_keeps_its_output_open_keeps_nobody_waiting(plugin: Plugin) -> None:
    plugin.does("print('{}', flush=True)\nif os.fork() == 0: time.sleep(3)\nos._exit(0)")
    begin = time.monotonic()

    assert plugin.execute() == b"{}\n"
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("name", ["../ipam", "a/b", "..", "absent", "directory"])
def test_what_is_no_file_on_the_path_is_not_executed(plugin: Plugin, name: str) -> None:
    plugin.does("print('{}')")
    (plugin.directory / "directory").mkdir()

    with pytest.raises(MissingPlugin):
        ipam_plugin.find(name, plugin.env["CNI_PATH"])


def test_a_file_that_cannot_be_executed_has_done_nothing(plugin: Plugin) -> None:
    (plugin.directory / "ipam").write_text("no program")

    with pytest.raises(MissingPlugin, match="cannot be executed"):
        plugin.execute()


def test_without_a_path_the_variable_is_named() -> None:
    with pytest.raises(InvalidParameter, match="CNI_PATH"):
        ipam_plugin.find("ipam", "")


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
