# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/launcher: what only it does, its compiler's options included. How it works where
the host has no Python is tested in test_launcher_alone.py.

What the launcher and the plugin's Python have in common is tested in test_plugin.py, with both.
"""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pycni import locks
from pycni.cni import launcher, plugin
from pycni.cni.launcher import PATHS, compile_launcher, render_paths
from pycni.cni.plugin import pack
from pycni.errors import FileError, NoLauncher
from pycni.node import overlay
from pycni.pods import source_rules
from pycni.settings import Settings
from pycni.setup import install
from unit.cni.test_plugin import (
    ADD,
    CONF,
    LARGE,
    LAUNCHER,
    Agent,
    Node,
    answers,
    says_another_hello,
)

PT_INTERP = 3
"""elf(5)"""

DEL = ADD | {"CNI_COMMAND": "DEL"}


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path, LAUNCHER)


@pytest.fixture
def agent_that(node):
    agents = []

    def start(behave):
        agents.append(Agent(node.socket, behave))
        return agents[-1]

    yield start
    for agent in agents:
        agent.finish()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The only directory in which compilers are looked for."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def put_compiler(directory, name, text):
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


def only(limit, value):
    return lambda: resource.setrlimit(limit, (value, value))


def error_of(done):
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["cniVersion"] == plugin.VERSIONS[-1]
    return document


@pytest.mark.parametrize("compiler", launcher.COMPILERS)
def test_it_compiles_without_a_warning(monkeypatch, compiler):
    monkeypatch.setattr(launcher, "COMPILERS", (compiler,))
    monkeypatch.setattr(launcher, "FLAGS", (*launcher.FLAGS, "-Werror"))

    assert compile_launcher().startswith(b"\x7fELF")


def test_without_a_compiler_the_error_names_those_that_would_do(path):
    assert list(path.iterdir()) == []

    with pytest.raises(NoLauncher, match=r"no C compiler \(clang or cc\)"):
        compile_launcher()


def test_the_second_compiler_does_when_the_first_does_not(path):
    put_compiler(path, "clang", "exit 1")
    put_compiler(path, "cc", 'while [ "$1" != -o ]; do shift; done; echo made >"$2"')

    assert compile_launcher() == b"made\n"


def test_a_compiler_that_was_asked_for_is_the_only_one(path):
    put_compiler(path, "clang", "exit 1")
    put_compiler(path, "other-gcc", 'while [ "$1" != -o ]; do shift; done; echo other >"$2"')

    assert compile_launcher(("other-gcc",)) == b"other\n"
    (path / "other-gcc").unlink()
    with pytest.raises(NoLauncher, match=r"no C compiler \(other-gcc\)"):
        compile_launcher(("other-gcc",))


def test_what_the_compiler_says_is_in_the_error(path):
    put_compiler(path, "cc", "echo no headers >&2; exit 1")

    with pytest.raises(NoLauncher, match="cannot compile") as caught:
        compile_launcher()

    assert caught.value.details == "no headers"


def test_install_tells_what_the_compiler_says(path, tmp_path):
    put_compiler(path, "cc", "echo no headers >&2; exit 1")
    notes: list[str] = []

    install.install(
        tmp_path / "bin",
        tmp_path / "net.d",
        places=install.Places.of(Settings(), None),
        report=notes.append,
    )

    assert notes[1:] == ["no headers"]


@pytest.mark.parametrize("name", ["it's", '"quoted"\\', " a = b ", "é", "%s?"])
def test_any_path_of_the_socket_is_right(node, name):
    node.place(socket=name)
    agent = Agent(node.directory / name, answers(7, b"{}", b""))

    done = node.call(DEL)

    agent.finish()
    assert done.returncode == 7


def test_a_socket_whose_path_is_too_long_is_no_agent(node):
    node.place(socket="x" * 108)

    assert json.loads(node.call(DEL).stdout)["stdin"] == CONF.decode()


def test_a_path_with_a_line_break_is_refused():
    with pytest.raises(FileError, match="socket is a path with a line break"):
        render_paths({"socket": "/run/a\nb"})


@pytest.mark.parametrize("command", ["ADD", "DEL", "GC", "STATUS", "VERSION"])
def test_a_directory_for_stdin_is_as_a_stdin_that_cannot_be_read(node, command):
    with_directory = os.open(node.directory, os.O_RDONLY | os.O_DIRECTORY)

    done = node.call(ADD | {"CNI_COMMAND": command}, with_directory)

    os.close(with_directory)
    assert done.stderr == b""
    if command == "VERSION":
        assert json.loads(done.stdout)["cniVersion"] == plugin.VERSIONS[-1]
    else:
        assert error_of(done)["code"] == 5


def test_a_stdin_that_is_for_writing_only_cannot_be_read(node):
    with Path("/dev/null").open("wb") as for_writing_only:
        error = error_of(node.call(ADD, for_writing_only.fileno()))

    assert (error["code"], error["msg"]) == (5, "stdin cannot be read")
    assert f"errno {errno.EBADF}" in error["details"]


def test_a_stdin_that_is_closed_cannot_be_read(node):
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" <&-', node.plugin],
        env=DEL,
        cwd=node.directory,
        capture_output=True,
        check=False,
    )

    assert error_of(done)["code"] == 5


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_an_agent_that_did_not_take_the_call_is_not_asked_again(node, agent_that, verb):
    agent = agent_that(says_another_hello)

    node.call(ADD | {"CNI_COMMAND": verb})

    agent.listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        agent.listener.accept()


def test_what_was_read_of_stdin_is_given_to_python(node):
    done = node.call(DEL, LARGE)

    assert json.loads(done.stdout)["stdin"] == LARGE.decode()


def test_its_paths_are_found_beside_the_launcher_through_a_link(node, tmp_path):
    link = tmp_path / "elsewhere" / "pycni"
    link.parent.mkdir()
    link.symlink_to(node.plugin)
    node.plugin = link

    assert json.loads(node.call(DEL).stdout)["stdin"] == CONF.decode()


def test_a_file_of_paths_that_is_damaged_is_told_with_its_line(node):
    (node.directory / PATHS).write_text("# a comment\n\nsocket=/x\nrun_dir /run\n")

    error = error_of(node.call(DEL))

    assert error["code"] == 7
    assert "line 4 is not KEY=VALUE; run `pycni install` again" in error["details"]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(LARGE)])
def test_a_file_of_paths_that_cannot_be_read_is_told(node, make):
    (node.directory / PATHS).unlink()
    make(node.directory / PATHS)

    error = error_of(node.call(DEL))

    assert (error["code"], error["msg"]) == (5, f"{PATHS} beside the plugin cannot be read")


def test_paths_of_a_later_release_are_ignored(node, agent_that):
    agent_that(answers(7, b"{}", b""))
    with (node.directory / PATHS).open("a") as file:
        file.write("cgroups=/sys/fs/cgroup\n")

    assert node.call(DEL).returncode == 7


def test_without_memory_nothing_is_done(node):
    limited = only(resource.RLIMIT_DATA, len(LARGE) // 2)

    error = error_of(node.call(DEL, LARGE, preexec_fn=limited))

    assert error["code"] == 11
    assert "memory" in error["msg"]


def test_a_stdin_that_cannot_be_kept_for_python_is_not_lost_silently(node):
    error = error_of(node.call(DEL, preexec_fn=only(resource.RLIMIT_NOFILE, 4)))

    assert error["code"] == 11
    assert f"errno {errno.EMFILE}" in error["details"]


def test_a_caller_that_is_stopped_goes_on_waiting_for_its_answer(node, agent_that):
    """recv(2) with a timeout gives EINTR then, though there is no handler: signal(7)."""
    taken, answered = threading.Event(), threading.Event()

    def behave(agent, connection):
        agent.take(connection)
        taken.set()
        answered.wait(20)
        connection.sendall(pack(b"7", b"{}", b""))

    agent_that(behave)
    with subprocess.Popen(
        [node.plugin], env=ADD, cwd=node.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as caller:
        caller.stdin.write(CONF)
        caller.stdin.close()
        assert taken.wait(20)
        for number, state in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S")):
            caller.send_signal(number)
            wait_until(lambda state=state: state_of(caller.pid) == state)

        answered.set()

        assert caller.wait(20) == 7


def test_no_descriptor_is_inherited_by_what_it_becomes(node):
    node.interpreter.write_text(
        "#!/usr/bin/python3 -IS\nimport os\nprint(sorted(map(int, os.listdir('/proc/self/fd'))))\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.socket))
        listener.listen()
        done = node.call(DEL)

    inherited = json.loads(done.stdout)
    assert inherited[:3] == [0, 1, 2]
    assert len(inherited) <= 4  # and the listing's own


def test_deadlines_are_the_plugins():
    constants = launcher.constants()

    for name in plugin.SECONDS:
        hello, reply = (round(1000 * one) for one in plugin.patience(name))
        quoted = "".join(f"\\{byte:03o}" for byte in name)
        assert f'{{ "{quoted}", {hello}, {reply}, ' in constants["COMMANDS"]
    assert constants["COMMANDS"].count("{") == len(plugin.SECONDS)


def test_what_it_has_in_common_with_modules_that_it_does_not_import():
    assert launcher.DEVICE == overlay.DEVICE
    assert launcher.RULE_PRIORITY == source_rules.PRIORITY
    assert launcher.LOCK_SECONDS == locks.DEADLINE


def test_it_is_one_static_file_that_is_small():
    """Nothing of the host is needed, not even a loader: a static file names none."""
    executable = compile_launcher()

    assert PT_INTERP not in program_headers(executable)
    assert len(executable) <= 1 << 20


def program_headers(elf: bytes) -> set[int]:
    """The types of a 64-bit file's program headers, elf(5)."""
    at, size, count = (
        int.from_bytes(elf[i : i + n], "little") for i, n in ((32, 8), (54, 2), (56, 2))
    )
    return {int.from_bytes(elf[at + i * size :][:4], "little") for i in range(count)}


def wait_until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
