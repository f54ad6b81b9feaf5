# SPDX-License-Identifier: Apache-2.0
"""plugin.py, alone and behind the launcher: the CNI executable, as a runtime runs it, against
agents of all kinds. What only the launcher does is tested in test_launcher.py.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import pytest

from pycni.cni import plugin
from pycni.cni.launcher import PATHS, compile_launcher, render_paths
from pycni.cni.plugin import (
    HELLO,
    VERSIONS,
    pack,
    receive,
    unpack,
)
from pycni.setup import install
from pycni.setup.install import Places, render_plugin

CONF = b'{"cniVersion": "0.4.0", "name": "podnet"}'
ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_IFNAME": "eth0",
}
SETTINGS = "/etc/node-one/pycni.toml"
SOCKET = "agent.sock"
LARGE = b" " * (3 << 20)

INTERPRETER = """#!/usr/bin/python3 -IS
import json, os, sys
try:
    stdin = os.read(0, 1 << 30).decode()
except OSError as error:
    stdin = error.errno
print(json.dumps({"argv": sys.argv[1:], "stdin": stdin, "env": dict(os.environ)}), end="")
sys.exit(3)
"""
"""In the place of the full interpreter: tells how it was run."""


LAUNCHER, SCRIPT = "launcher", "script"


@cache
def launcher() -> bytes:
    """One for all nodes."""
    return compile_launcher()


class Node:
    """An installed plugin, the interpreter behind it and the place of an agent's socket."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        self.socket = directory / SOCKET
        self.interpreter = directory / "python"
        self.interpreter.write_text(INTERPRETER)
        self.run_dir = directory / "run"
        self.plugin = directory / install.PLUGIN
        if kind == LAUNCHER:
            self.plugin.write_bytes(launcher())
            self.place()
        else:
            socket, pins = Path(SOCKET), directory / "pins"
            places = Places(socket, self.run_dir, pins, Path(SETTINGS), self.interpreter)
            self.plugin.write_bytes(render_plugin(places))
        for executable in (self.interpreter, self.plugin):
            executable.chmod(0o755)

    def place(self, **changes: object) -> None:
        """Write the file that tells the launcher where things are."""
        usual = {
            "socket": SOCKET,
            "run_dir": self.run_dir,
            "pins": self.directory / "pins",
            "python": self.interpreter,
            "settings": SETTINGS,
        }
        (self.directory / PATHS).write_bytes(render_paths(usual | changes))

    def call(self, env, stdin=CONF, **options):
        given = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
        return subprocess.run(
            [self.plugin],
            env=env,
            cwd=self.directory,
            capture_output=True,
            timeout=30,
            check=False,
            **given,
            **options,
        )


class Agent:
    """Accepts one connection, in a thread, and lets `behave` have it."""

    def __init__(self, path: Path, behave) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(20)
        self.done = threading.Event()
        self.request: list[bytes] = []
        self.descriptors: list[int] = []
        self._behave = behave
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(20)
            self._behave(self, connection)

    def take(self, connection) -> None:
        def read(count: int) -> bytes:
            data, descriptors, _, _ = socket.recv_fds(connection, count, 8)
            self.descriptors += descriptors
            return data

        connection.sendall(HELLO)
        self.request = unpack(receive(read))

    def finish(self) -> None:
        self.done.set()
        self._thread.join(20)
        self.listener.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        assert not self._thread.is_alive()


@pytest.fixture(params=[LAUNCHER, SCRIPT])
def node(request, tmp_path):
    return Node(tmp_path, request.param)


@pytest.fixture
def agent_that(node):
    agents: list[Agent] = []

    def start(behave) -> Agent:
        agents.append(Agent(node.socket, behave))
        return agents[-1]

    yield start
    for agent in agents:
        agent.finish()


def answers(status, stdout, stderr):
    def behave(agent, connection):
        agent.take(connection)
        connection.sendall(pack(b"%d" % status, stdout, stderr))

    return behave


def dies_after_taking(agent, connection):
    agent.take(connection)


def says(raw):
    def behave(agent, connection):
        agent.take(connection)
        connection.sendall(raw)

    return behave


LOST_ANSWERS = {
    "none": b"",
    "cut in its length": b"\0\0",
    "cut": pack(b"0", b"{}", b"")[:-1],
    "too long": (plugin.FRAME_LIMIT + 1).to_bytes(4, "big"),
    "of no field": pack(),
    "of one field": pack(b"0"),
    "of two fields": pack(b"0", b"{}"),
    "with a fourth field that is cut": b"\0\0\0\x10" + pack(b"0", b"{}", b"")[4:] + b"\0",
    "with a field that is too long": pack(b"0\0\0\0\2{}\0\0\0\1"),
    "with an end that is no field": b"\0\0\0\x0e" + pack(b"0", b"{}", b"")[4:-3],
    "without a status": pack(b"", b"{}", b""),
    "with a status that is no number": pack(b"zero", b"{}", b""),
}


def hangs_up(_agent, _connection):
    pass


def takes_and_says_nothing(agent, connection):
    agent.take(connection)
    agent.done.wait(20)


def says_another_hello(agent, connection):
    connection.sendall(b"9")
    agent.done.wait(20)


def says_nothing(agent, _connection):
    agent.done.wait(20)


def hangs_up_after_hello(_agent, connection):
    connection.sendall(HELLO)


def assert_done_in_process(done, *, command="ADD", stdin=CONF):
    told = json.loads(done.stdout)
    assert done.returncode == 3
    assert told["argv"] == ["-I", "-m", "pycni.once", SETTINGS]
    assert told["stdin"] == stdin.decode()
    assert told["env"]["CNI_COMMAND"] == command


def test_the_agents_answer_is_passed_on_unchanged(node, agent_that):
    agent_that(answers(7, b'{"code": \xff}', b"a log line\n"))

    done = node.call(ADD)

    assert done.returncode == 7
    assert done.stdout == b'{"code": \xff}'
    assert done.stderr == b"a log line\n"


def test_the_agent_is_given_the_whole_environment_stdin_and_the_namespace(node, agent_that):
    agent = agent_that(answers(0, b"{}", b""))
    args = {"CNI_ARGS": "A=1;B=\udcff", "PATH": "/bin", "PYTHONPATH": "/nowhere"}

    node.call(ADD | args, LARGE)

    env, stdin = agent.request
    pairs = dict(pair.split(b"=", 1) for pair in env.split(b"\0"))
    for key, value in (ADD | args).items():
        assert pairs[os.fsencode(key)] == os.fsencode(value)
    assert stdin == LARGE
    (descriptor,) = agent.descriptors
    assert os.path.samestat(os.fstat(descriptor), Path("/proc/self/ns/net").stat())


def test_what_a_later_agent_adds_to_its_answer_is_ignored(node, agent_that):
    agent_that(says(pack(b"7", b"{}", b"log", b"more", b"")))

    done = node.call(ADD)

    assert (done.returncode, done.stdout, done.stderr) == (7, b"{}", b"log")


def test_an_earlier_agent_is_sent_what_it_knows(node, agent_that):
    """It takes calls of two fields only."""
    agent = agent_that(answers(0, b"{}", b""))

    node.call(ADD)

    assert len(agent.request) == 2


def test_a_command_of_a_later_specification_is_for_the_agent_to_judge(node, agent_that):
    agent_that(answers(0, b"{}", b""))

    done = node.call(ADD | {"CNI_COMMAND": "MEND"})

    assert (done.returncode, done.stdout) == (0, b"{}")


@pytest.mark.parametrize("kind", ["unset", "empty", "missing", "directory", "fifo", "socket"])
def test_a_path_that_cannot_be_a_namespace_is_not_opened(node, agent_that, tmp_path, kind):
    agent = agent_that(answers(0, b"", b""))
    os.mkfifo(tmp_path / "fifo")
    paths = {"empty": "", "directory": str(tmp_path), "socket": str(node.socket)}
    netns = {"CNI_NETNS": paths.get(kind, str(tmp_path / kind))} if kind != "unset" else {}

    done = node.call({"CNI_COMMAND": "DEL"} | netns)

    assert done.returncode == 0
    assert agent.descriptors == []


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "FROB"])
def test_without_a_socket_the_work_is_done_in_process(node, command):
    done = node.call(ADD | {"CNI_COMMAND": command})

    assert_done_in_process(done, command=command)


def test_a_socket_that_a_killed_agent_left_is_no_agent(node):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.socket))

    assert_done_in_process(node.call(ADD))


@pytest.mark.parametrize("behave", [hangs_up, says_another_hello, says_nothing])
def test_an_agent_that_does_not_take_the_call_is_no_agent(node, agent_that, behave):
    agent_that(behave)
    start = time.monotonic()

    done = node.call(ADD, LARGE)

    assert_done_in_process(done, stdin=LARGE)
    assert time.monotonic() - start < 5


def test_an_agent_that_ends_before_it_has_the_whole_call_cannot_have_acted(node, agent_that):
    agent_that(hangs_up_after_hello)

    assert_done_in_process(node.call(ADD, LARGE), stdin=LARGE)


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_all_but_add_is_done_again_when_the_agent_dies(node, agent_that, command):
    agent_that(dies_after_taking)

    done = node.call(ADD | {"CNI_COMMAND": command})

    assert_done_in_process(done, command=command)


def test_status_waits_for_an_answer_no_longer_than_runtimes_do(node, agent_that):
    agent_that(takes_and_says_nothing)
    start = time.monotonic()

    done = node.call({"CNI_COMMAND": "STATUS"})

    assert_done_in_process(done, command="STATUS")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("answer", LOST_ANSWERS)
def test_add_is_to_be_tried_again_when_the_answer_is_lost(node, agent_that, answer):
    agent_that(says(LOST_ANSWERS[answer]))

    done = node.call(ADD)

    error = json.loads(done.stdout)
    assert done.returncode == 1
    assert error["code"] == 11
    assert error["cniVersion"] == "0.4.0"


def test_a_call_over_the_limit_is_left_to_the_other_side_to_refuse(node, agent_that):
    agent = agent_that(answers(0, b"", b""))

    node.call(ADD, b" " * (plugin.STDIN_LIMIT + 100))

    assert len(agent.request[1]) == plugin.STDIN_LIMIT + 1


def test_a_descriptor_that_is_closed_is_not_taken_for_the_agents(node, agent_that):
    """Whatever is opened gets the lowest number that is free."""
    agent = agent_that(answers(7, b"{}", b"log"))

    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" >&- 2>&-', node.plugin],
        env=ADD | {"CNI_COMMAND": "DEL"},
        cwd=node.directory,
        input=CONF,
        check=False,
    )

    assert agent.request[1] == CONF
    assert done.returncode in (1, 7)


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (CONF, "0.4.0"),
        (b"", VERSIONS[-1]),
        (b"{nope", VERSIONS[-1]),
        (b"[]", VERSIONS[-1]),
        (b"[" * 100_000, VERSIONS[-1]),
        (b"\xff", VERSIONS[-1]),
        (b'{"cniVersion": "9.9.9"}', VERSIONS[-1]),
        (b'{"cniVersion": []}', VERSIONS[-1]),
        (b' {"cniVersion"\n:\t"0.3.1" } ', "0.3.1"),
        (b'{"cniVersion": " 0.3.1"}', VERSIONS[-1]),
        (b'{"cniVersion": "0.3.1"}}', VERSIONS[-1]),
        (b'["cniVersion", "0.3.1"]', VERSIONS[-1]),
        (b'{"name": "cniVersion"}', VERSIONS[-1]),
        (b'{"net": {"cniVersion": "0.3.1"}}', VERSIONS[-1]),
        (b'{"cniVersion": "9.9.9", "cniVersion": "0.3.1"}', "0.3.1"),
    ],
)
def test_version_is_answered_without_agent_and_interpreter(node, stdin, version):
    node.interpreter.unlink()
    junk = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}

    done = node.call(junk | {"CNI_COMMAND": "VERSION"}, stdin)

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == {
        "cniVersion": version,
        "supportedVersions": list(VERSIONS),
    }


@pytest.mark.parametrize("written", [b"", CONF])
def test_version_does_not_wait_for_a_pipe_that_stays_open(node, written):
    reader, writer = os.pipe()
    os.write(writer, written)
    start = time.monotonic()

    done = node.call({"CNI_COMMAND": "VERSION"}, reader)

    waited = time.monotonic() - start
    os.close(reader)
    os.close(writer)
    assert json.loads(done.stdout)["cniVersion"] == ("0.4.0" if written else VERSIONS[-1])
    assert waited < 5


def test_version_does_without_a_stdin(node):
    with Path("/dev/null").open("wb") as for_writing_only:
        done = node.call({"CNI_COMMAND": "VERSION"}, for_writing_only.fileno())

    assert json.loads(done.stdout)["cniVersion"] == VERSIONS[-1]


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}])
def test_without_a_command_it_says_on_stderr_what_it_is(node, env):
    done = node.call(env)

    assert (done.returncode, done.stdout) == (0, b"")
    assert b"CNI plugin" in done.stderr
    assert b"1.0.0" in done.stderr


def test_a_closed_stdout_is_an_exit_status(node, agent_that):
    agent_that(answers(0, b"{}", b""))
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [node.plugin],
        env=ADD,
        cwd=node.directory,
        input=CONF,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )

    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_bug_in_the_plugin_is_an_internal_error(tmp_path):
    node = Node(tmp_path, SCRIPT)
    text = node.plugin.read_text()
    node.plugin.write_text(text.replace("def read_stdin() -> bytes:", "def renamed() -> bytes:"))

    done = node.call(ADD)

    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 999
    assert b"NameError" in done.stderr


def test_no_module_written_in_python_is_imported():
    """They take long. Whether those in C are built in is for a distribution to say."""
    code = (
        "import sys; before = set(sys.modules); "
        f"exec(compile(open({plugin.__file__!r}).read(), 'plugin', 'exec'), {{'__name__': 'x'}}); "
        "new = [sys.modules[name] for name in set(sys.modules) - before]; "
        "print(*[one for one in new if getattr(one, '__file__', '').endswith('.py')])"
    )

    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""


@pytest.mark.parametrize("fields", [(), (b"",), (b"a", b""), (b"a", b"\0b", b"x" * 70_000)])
def test_a_frame_gives_its_fields_back_however_it_is_cut(fields):
    frame = pack(*fields)
    rest = bytearray(frame)

    def read(count: int) -> bytes:
        piece = bytes(rest[: min(count, 7)])
        del rest[: len(piece)]
        return piece

    assert unpack(receive(read)) == list(fields)
    assert not rest
