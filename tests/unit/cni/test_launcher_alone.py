# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/launcher without agent and Python: what is wrong with a call is told as the
agent tells it, and a call with nothing wrong is done, or to be tried again.

What it does to links is tested in tests/netns/test_bare_host.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pycni import locks
from pycni.attachments import dispatch
from pycni.cni import plugin
from pycni.cni.call import Call
from pycni.cni.launcher import AWAY_SECONDS
from pycni.errors import SWALLOWED
from pycni.names import AWAY_NOTE, AttachmentKey
from pycni.settings import Settings
from unit.cni.test_plugin import (
    ADD,
    CONF,
    LARGE,
    LAUNCHER,
    Agent,
    Node,
    answers,
    dies_after_taking,
    says_another_hello,
)

NEWEST = plugin.VERSIONS[-1]
NETWORK = json.dumps({"cniVersion": NEWEST, "name": "podnet"}).encode()
DEL = ADD | {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": f"of-a-test-{os.getpid()}"}
STATUS = {"CNI_COMMAND": "STATUS"}
SEED = 11
ROUNDS = 1500
EDITS = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\0",
    b"\xff",
    b"\\u00",
    b"1e",
    b"-",
    b"n",
)


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, LAUNCHER)
    made.place(python="")
    (made.run_dir / "locks").mkdir(parents=True)
    return made


def code_of(done: subprocess.CompletedProcess[bytes]) -> int:
    """The code of an error that a runtime can read; 0 for a success that says nothing."""
    if done.returncode == 0:
        assert done.stdout == b""
        return 0
    error = json.loads(done.stdout)
    assert done.returncode == 1
    assert error.keys() == {"cniVersion", "code", "msg", "details"}
    assert error["cniVersion"] in plugin.VERSIONS
    assert error["msg"]
    assert not SWALLOWED.search(error["msg"] + error["details"])
    assert done.stderr == b""
    return int(error["code"])


def nothing(_: Call) -> None:
    """The work of a call with nothing wrong."""


def code_of_the_agent(env: Mapping[str, str], stdin: bytes) -> int:
    """What the agent says to the same call, or 0 if nothing is wrong."""
    work = dict.fromkeys(dispatch.WORK, nothing)
    reply = dispatch.answer(env, stdin, None, settings=Settings(), work=work)
    return int(json.loads(reply.stdout)["code"]) if reply.status else 0


WRONG_ENVIRONMENTS: dict[str, dict[str, str]] = {
    "a command that nobody knows": {"CNI_COMMAND": "FROB"},
    "a command in lower case": {"CNI_COMMAND": "del"},
    "no container": {"CNI_CONTAINERID": ""},
    "a container with a slash": {"CNI_CONTAINERID": "../x"},
    "a container with a line break": {"CNI_CONTAINERID": "abc\n"},
    "a container that begins with a dot": {"CNI_CONTAINERID": ".a"},
    "no interface": {"CNI_IFNAME": ""},
    "nothing at all": {"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""},
}
WRONG_OF_ADD: dict[str, dict[str, str]] = {
    "no namespace": {"CNI_NETNS": ""},
    **{
        f"the interface {name!r}": {"CNI_IFNAME": name}
        for name in ("eth%d", "lo", ".", "..", "all", "default", "a/b", "a:b", "a b", "-a",
                     "e" * 16, "\u00e9", "a\tb", "a\x7f")
    },
    "arguments without a value": {"CNI_ARGS": "A=1;B"},
    "arguments without a key": {"CNI_ARGS": "=1"},
}  # fmt: skip


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize("wrong", WRONG_ENVIRONMENTS.values(), ids=WRONG_ENVIRONMENTS)
def test_a_wrong_environment_is_told_as_the_agent_tells_it(node, command, wrong):
    env = ADD | {"CNI_COMMAND": command} | wrong

    assert code_of(node.call(env, NETWORK)) == code_of_the_agent(env, NETWORK) == 4


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
@pytest.mark.parametrize("wrong", WRONG_OF_ADD.values(), ids=WRONG_OF_ADD)
def test_what_add_needs_is_checked(node, command, wrong):
    env = ADD | {"CNI_COMMAND": command} | wrong

    assert code_of(node.call(env, NETWORK)) == code_of_the_agent(env, NETWORK) == 4


@pytest.mark.parametrize("wrong", WRONG_OF_ADD.values(), ids=WRONG_OF_ADD)
def test_del_does_not_need_it(node, wrong):
    assert code_of(node.call(DEL | wrong, NETWORK)) == 0


def test_every_missing_variable_is_named(node):
    done = node.call({"CNI_COMMAND": "ADD"}, NETWORK)

    assert "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME" in json.loads(done.stdout)["details"]


DOCUMENTS: dict[bytes, int] = {
    b"": 6,
    b" ": 6,
    b"{nope": 6,
    b"\xef\xbb\xbf{}": 6,
    b'{"name": "a"} {}': 6,
    b'{"name": "a",}': 6,
    b'{"name": NaN}': 6,
    b'{"name": "a\nb"}': 6,
    b'{"name": "\\x"}': 6,
    b'{"name": "\\u12g4"}': 6,
    b'{"name": "a", "x": 01}': 6,
    b'{"name": "a", "x": 1.}': 6,
    b'{"name": "a", "x": -}': 6,
    b'{"name": "a", "x": [1 2]}': 6,
    b'{"name": "a", "x": {"y" 1}}': 6,
    b'{"name": "a", "x": {1: 2}}': 6,
    b'{"name": "a", "x": [1, ]}': 6,
    b'{"name": "a", "x": [1}}': 6,
    b'{"name": "a", "x": t}': 6,
    b'{"name": "a"': 6,
    b'{"name"': 6,
    b'{"name": "a': 6,
    b'{"name": "a\\': 6,
    b"[" * 100_000: 6,
    b'{"name":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}": 6,
    b"[]": 6,
    b'"text"': 6,
    b"17": 6,
    b'{"name": 5}': 6,
    b'{"name": ["a"]}': 6,
    b'{"cniVersion": 1.0, "name": "a"}': 6,
    b"null": 7,
    b"{}": 7,
    b'{"name": ""}': 7,
    b'{"name": null}': 7,
    b'{"name": "a/b"}': 7,
    b'{"name": "\\u00e9"}': 7,
    b'{"name": "a\\u0000b"}': 7,
    b'{"NAME": "a", "name": null}': 7,
    b'{"cniVersion": "9.9.9", "name": "a"}': 1,
    b'{"cniVersion": "1.0", "name": "a"}': 1,
    b'{"name": "a"}': 0,
    b'{"NAME": "a"}': 0,
    b'{"name": "a", "NAME": 5}': 0,
    b'{"name": "\\u0061\\u002D"}': 0,
    b'{"cniVersion": null, "name": "a"}': 0,
    b'{"cniVersion": "", "name": "a"}': 0,
    b' {"x":{"name":[{}]},\t"name" :"a","y":[],"z":-0.5e+7,"w":true,"v":false}\r\n': 0,
    b'{"name":"a","x":' + b"[" * 400 + b"]" * 400 + b"}": 0,
    b'{"name": "a", "x": "\xff\\ud800\\n"}': 0,
    b'{"name": "' + b"n" * 3000 + b'"}': 0,
    b'{"name": "a"}' + LARGE: 0,
}


@pytest.mark.parametrize(("stdin", "code"), DOCUMENTS.items(), ids=lambda one: repr(one)[:40])
def test_a_document_is_read_as_the_agent_reads_it(node, stdin, code):
    assert code_of_the_agent(DEL, stdin) == code
    assert code_of(node.call(DEL, stdin)) == code


def test_a_document_over_the_limit_is_refused(node):
    stdin = b'{"name": "a"}' + b" " * plugin.STDIN_LIMIT

    assert code_of(node.call(DEL, stdin)) == 6


@pytest.mark.parametrize(
    ("command", "version", "code"),
    [
        ("STATUS", "1.0.0", 1),
        ("GC", "1.0.0", 1),
        ("CHECK", "0.3.1", 1),
        ("CHECK", "0.4.0", 11),
        ("ADD", "0.1.0", 11),
        ("DEL", "0.1.0", 0),
    ],
)
def test_a_command_that_the_configurations_version_does_not_have_yet(node, command, version, code):
    stdin = json.dumps({"cniVersion": version, "name": "podnet"}).encode()

    done = node.call(DEL | {"CNI_COMMAND": command}, stdin)

    assert code_of(done) == code
    if code:
        assert json.loads(done.stdout)["cniVersion"] == version


def test_calls_damaged_at_random_are_read_as_the_agent_reads_them(node):
    """The seed is fixed: every run has the same calls."""
    chance = random.Random(SEED)
    found = set()
    for _ in range(ROUNDS):
        stdin = damaged(chance)
        env = DEL | {"CNI_COMMAND": chance.choice(("ADD", "CHECK", "DEL", "GC", "STATUS"))}
        wanted = code_of_the_agent(env, stdin)

        code = code_of(node.call(env, stdin))

        if env["CNI_COMMAND"] == "DEL" or wanted in (1, 4, 6):
            assert code == wanted, (env["CNI_COMMAND"], stdin)
        else:
            # what only the agent looks at, such as the namespace, is not looked at
            assert code in {wanted, 0, 7, 11, 50}, (env["CNI_COMMAND"], stdin)
        found.add(code)
    assert {0, 1, 6, 7, 11} <= found


def damaged(chance: random.Random) -> bytes:
    """A configuration with up to three of its parts changed."""
    document: dict[str, Any] = {
        chance.choice(("cniVersion", "CniVersion")): chance.choice((*plugin.VERSIONS, NEWEST, "2")),
        chance.choice(("name", "NAME", "other")): chance.choice(("podnet", "a b", "\u00e9", "", 1)),
        "ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}, None, True, 1.5e3]]},
    }
    text = bytearray(json.dumps(document, ensure_ascii=chance.random() < 0.5).encode())
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(text) + 1)
        text[at : at + chance.randrange(3)] = chance.choice(EDITS)
    return bytes(text)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC"])
@pytest.mark.parametrize("python", ["", "/nonexistent/python", "/"])
def test_what_it_cannot_do_is_to_be_tried_again(node, command, python):
    node.place(python=python)

    done = node.call(ADD | {"CNI_COMMAND": command}, NETWORK)

    assert code_of(done) == 11
    assert "agent does not answer on this node; try again" in json.loads(done.stdout)["msg"]
    assert "agent.sock: errno 2" in json.loads(done.stdout)["details"]


@pytest.mark.parametrize("behave", [says_another_hello, dies_after_taking])
def test_del_is_done_when_the_agent_does_not_answer(node, behave):
    agent = Agent(node.socket, behave)

    done = node.call(DEL, NETWORK)

    agent.finish()
    assert code_of(done) == 0


def is_busy(agent, connection):
    """For longer than one is waited for where Python could do the work."""
    time.sleep(2 * plugin.HELLO_SECONDS)
    agent.take(connection)
    connection.sendall(plugin.pack(b"7", b"{}", b""))


def test_a_busy_agent_is_waited_for_if_nobody_else_can_add(node):
    agent = Agent(node.socket, is_busy)

    done = node.call(ADD, NETWORK)

    agent.finish()
    assert done.returncode == 7


def hangs(agent, _connection):
    agent.done.wait(20)


def test_a_busy_agent_is_not_waited_for_by_what_can_be_done_without_it(node):
    agent = Agent(node.socket, hangs)
    start = time.monotonic()

    done = node.call(DEL, NETWORK)

    took = time.monotonic() - start
    agent.finish()
    assert (code_of(done), took < 4 * plugin.HELLO_SECONDS) == (0, True)


def test_an_add_whose_answer_is_lost_is_to_be_tried_again(node):
    agent = Agent(node.socket, dies_after_taking)

    done = node.call(ADD, CONF)

    agent.finish()
    assert code_of(done) == 11
    assert "stopped during ADD" in json.loads(done.stdout)["msg"]
    assert json.loads(done.stdout)["cniVersion"] == "0.4.0"


def test_del_of_what_was_never_added_succeeds_without_a_run_directory(node):
    node.place(python="", run_dir="/nonexistent")

    assert code_of(node.call(DEL, NETWORK)) == 0


@contextmanager
def locked(node: Node) -> Iterator[Path]:
    """The lock of the attachment of DEL, held by this process."""
    key = AttachmentKey("podnet", DEL["CNI_CONTAINERID"], DEL["CNI_IFNAME"])
    with locks.attachment_lock(node.run_dir, key.digest):
        (path,) = (node.run_dir / "locks").iterdir()
        yield path


def test_del_waits_for_who_works_on_the_attachment(node):
    with locked(node) as path:
        waiting = subprocess.Popen(
            [node.plugin], env=DEL, cwd=node.directory, stdin=subprocess.PIPE
        )
        waiting.stdin.write(NETWORK)
        waiting.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)

    assert waiting.wait(20) == 0
    assert not path.exists()


def test_del_does_not_wait_for_ever(node):
    with locked(node):
        start = time.monotonic()
        done = node.call(DEL, NETWORK)

    assert code_of(done) == 11
    assert locks.DEADLINE - 1 < time.monotonic() - start < 2 * locks.DEADLINE


def test_a_lock_whose_holder_was_killed_is_taken_and_removed(node):
    with locked(node) as path:
        pass
    path.write_text("12345")

    assert code_of(node.call(DEL, NETWORK)) == 0
    assert not path.exists()


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 300])
def test_the_lock_is_the_attachments_for_names_of_any_length(node, length):
    """By its name, which is a hash of a hash: SHA-256 pads by the length."""
    env = DEL | {"CNI_CONTAINERID": "c" * (length + 1)}
    key = AttachmentKey("podnet", env["CNI_CONTAINERID"], "eth0")
    digits = hashlib.sha256(key.digest.encode()).hexdigest()[: locks.NAME_DIGITS]
    path = node.run_dir / "locks" / f"attachment-{digits}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [node.plugin], env=env, cwd=node.directory, stdin=subprocess.PIPE
        )
        waiting.stdin.write(NETWORK)
        waiting.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.2)
        fcntl.flock(file, fcntl.LOCK_UN)

    assert waiting.wait(20) == 0


def test_status_without_a_dataplane_is_not_available(node):
    done = node.call(STATUS, NETWORK)

    assert code_of(done) in (50, 51)  # 51 if this machine itself has pods of pycni
    assert "no dataplane is loaded" in json.loads(done.stdout)["msg"]


@pytest.mark.parametrize("command", ["STATUS", "DEL"])
def test_status_notes_since_when_no_agent_answers_and_who_answers_ends_that(node, command):
    note = node.run_dir / AWAY_NOTE
    before = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    node.call(STATUS, NETWORK)
    first = note.read_text()
    node.call(STATUS, NETWORK)

    assert before <= int(first) <= before + 10
    assert note.read_text() == first

    agent = Agent(node.socket, answers(0, b"", b""))
    assert node.call(DEL | {"CNI_COMMAND": command}, NETWORK).returncode == 0
    agent.finish()
    assert not note.exists()


def test_how_long_an_agent_may_be_away_is_more_than_a_restart():
    assert 60 <= AWAY_SECONDS <= 120


@pytest.mark.parametrize("written", ["", "junk", "9" * 30, "-" + "9" * 30, "-1"])
def test_a_note_that_is_no_time_is_harmless(node, written):
    (node.run_dir / AWAY_NOTE).write_text(written)

    assert code_of(node.call(STATUS, NETWORK)) in (50, 51)
