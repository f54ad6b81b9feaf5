# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/launcher.py and launcher.c: what only they do.

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

from pycni.cni import launcher, plugin
from pycni.cni.launcher import compile_launcher
from pycni.cni.plugin import pack
from pycni.errors import NoLauncher
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


def compiled(at="/run/agent.sock"):
    return compile_launcher(socket=Path(at), script=install.SCRIPT, marker=install.MARKER)


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

    assert compiled().startswith(b"\x7fELF")


def test_without_a_compiler_the_error_names_those_that_would_do(path):
    assert list(path.iterdir()) == []

    with pytest.raises(NoLauncher, match=r"no C compiler \(clang or cc\)"):
        compiled()


def test_the_second_compiler_does_when_the_first_does_not(path):
    put_compiler(path, "clang", "exit 1")
    put_compiler(path, "cc", 'while [ "$1" != -o ]; do shift; done; echo made >"$2"')

    assert compiled() == b"made\n"


def test_what_the_compiler_says_is_in_the_error(path):
    put_compiler(path, "cc", "echo no headers >&2; exit 1")

    with pytest.raises(NoLauncher, match="cannot compile") as caught:
        compiled()

    assert caught.value.details == "no headers"


def test_install_tells_what_the_compiler_says(path, tmp_path):
    put_compiler(path, "cc", "echo no headers >&2; exit 1")
    notes: list[str] = []

    install.install(
        tmp_path / "bin", tmp_path / "net.d", socket=Path("/x"), settings=None, report=notes.append
    )

    assert notes[1:] == ["no headers"]


@pytest.mark.parametrize("name", ["it's", '"quoted"\\', "new\nline", "é", "%s?"])
def test_any_path_of_the_socket_is_right(node, name):
    node.plugin.write_bytes(compiled(name))
    agent = Agent(node.directory / name, answers(7, b"{}", b""))

    done = node.call(DEL)

    agent.finish()
    assert done.returncode == 7


def test_a_socket_whose_path_is_too_long_is_no_agent(node):
    node.plugin.write_bytes(compiled("x" * 108))

    assert json.loads(node.call(DEL).stdout)["stdin"] == CONF.decode()


@pytest.mark.parametrize("command", ["ADD", "DEL", "GC", "STATUS", "VERSION", "FROB"])
def test_a_directory_for_stdin_is_as_a_stdin_that_cannot_be_read(node, command):
    """CPython by itself ends with a message that is no CNI error."""
    with_directory = os.open(node.directory, os.O_RDONLY | os.O_DIRECTORY)

    done = node.call(ADD | {"CNI_COMMAND": command}, with_directory)

    os.close(with_directory)
    told = json.loads(done.stdout)
    assert done.stderr == b""
    if command == "VERSION":
        assert told["cniVersion"] == plugin.VERSIONS[-1]
    else:
        assert told["stdin"] == errno.EBADF


def test_a_stdin_that_is_closed_cannot_be_read(node):
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" <&-', node.plugin],
        env=DEL,
        cwd=node.directory,
        capture_output=True,
        check=False,
    )

    assert json.loads(done.stdout)["stdin"] == errno.EBADF


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_an_agent_that_did_not_take_the_call_is_not_asked_again(node, agent_that, verb):
    agent = agent_that(says_another_hello)

    node.call(ADD | {"CNI_COMMAND": verb})

    agent.listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        agent.listener.accept()


def test_what_was_read_of_stdin_is_given_to_the_script(node):
    done = node.call(DEL, LARGE)

    assert json.loads(done.stdout)["stdin"] == LARGE.decode()


def test_the_script_is_found_beside_the_launcher_through_a_link(node, tmp_path):
    link = tmp_path / "elsewhere" / "pycni"
    link.parent.mkdir()
    link.symlink_to(node.plugin)
    node.plugin = link

    assert json.loads(node.call(DEL).stdout)["stdin"] == CONF.decode()


@pytest.mark.parametrize("command", ["DEL", "VERSION"])
def test_without_its_script_the_error_says_what_to_do(node, command):
    node.script.unlink()

    error = error_of(node.call(ADD | {"CNI_COMMAND": command}))

    assert error["code"] == 50
    assert "pycni install" in error["msg"]


def test_without_memory_nothing_is_done(node):
    limited = only(resource.RLIMIT_DATA, len(LARGE) // 2)

    error = error_of(node.call(DEL, LARGE, preexec_fn=limited))

    assert error["code"] == 11
    assert "memory" in error["msg"]


def test_a_stdin_that_cannot_be_kept_for_the_script_is_not_lost_silently(node):
    error = error_of(node.call(DEL, preexec_fn=only(resource.RLIMIT_NOFILE, 4)))

    assert error["code"] == 50
    assert f"errno {errno.EMFILE}" in error["msg"]


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
    constants = launcher.constants(Path("/x"), script="y", marker="z")

    for name in plugin.SECONDS:
        hello, reply = (round(1000 * one) for one in plugin.patience(name))
        quoted = "".join(f"\\{byte:03o}" for byte in name)
        assert f'{{ "{quoted}", {hello}, {reply} }}' in constants["COMMANDS"]
    assert constants["COMMANDS"].count("{") == len(plugin.SECONDS)


def wait_until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
