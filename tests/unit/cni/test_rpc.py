# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/rpc.py: the agent's end of the plugin's socket."""

import array
import json
import logging
import os
import socket
import struct
import threading

import pytest

from pycni.cni import rpc
from pycni.cni.plugin import (
    FRAME_LIMIT,
    HELLO,
    pack,
    receive,
    send,
    unpack,
)
from pycni.cni.protocol import Reply
from pycni.errors import PycniError, TryAgain

ENV = b"CNI_COMMAND=ADD\0CNI_ARGS=A=1;B=2"
STDIN = b'{"name": "podnet"}'
REPLY = Reply(0, b"{}", b"")


class Agent:
    """serve_connection in a thread, and what its handler was called with."""

    def __init__(self, reply: Reply = REPLY) -> None:
        self.plugin, self._server = socket.socketpair()
        self.plugin.settimeout(10)
        self.reply = reply
        self.calls: list[tuple[dict[str, str], bytes, os.stat_result | None]] = []
        self._thread = threading.Thread(
            target=rpc.serve_connection, args=(self._server, self.handle)
        )
        self._thread.start()

    def handle(self, env, stdin, netns):
        self.calls.append((dict(env), stdin, None if netns is None else os.fstat(netns)))
        return self.reply

    def finish(self) -> None:
        self.plugin.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


class Attached:
    """What an ADD made, and whether it was taken back."""

    def __init__(self, error: PycniError | None = None) -> None:
        self.is_taken_back = False
        self.error = error

    def take_back(self) -> None:
        self.is_taken_back = True
        if self.error is not None:
            raise self.error


@pytest.fixture
def agent():
    agent = Agent()
    yield agent
    agent.finish()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_call_reaches_the_handler_and_its_reply_the_plugin(agent):
    agent.reply = Reply(1, b'{"code": 7}', b"a log line")

    hello = agent.plugin.recv(1)
    send(agent.plugin, pack(ENV, STDIN), None)
    fields = unpack(receive(agent.plugin.recv))

    assert hello == HELLO
    assert fields == [b"1", b'{"code": 7}', b"a log line"]
    assert agent.calls == [({"CNI_COMMAND": "ADD", "CNI_ARGS": "A=1;B=2"}, STDIN, None)]
    assert agent.plugin.recv(1) == b""


def test_of_two_variables_with_one_name_the_first_counts(agent):
    agent.plugin.recv(1)
    send(agent.plugin, pack(b"A=1\0A=2\0nothing\0\0=3\0B=", STDIN), None)
    receive(agent.plugin.recv)

    assert agent.calls[0][0] == {"A": "1", "": "3", "B": ""}


def test_the_network_namespace_comes_as_a_descriptor_and_is_closed_afterwards(tmp_path):
    namespace = tmp_path / "netns"
    namespace.touch()
    before = open_descriptors()
    agent = Agent()

    with namespace.open("rb") as file:
        agent.plugin.recv(1)
        send(agent.plugin, pack(ENV, STDIN), file.fileno())
        receive(agent.plugin.recv)
    agent.finish()

    ((_, _, seen),) = agent.calls
    assert os.path.samestat(seen, namespace.stat())
    assert open_descriptors() == before


def test_a_large_call_is_received_whole(agent):
    stdin = b"x" * (3 << 20)

    agent.plugin.recv(1)
    send(agent.plugin, pack(ENV, stdin), None)
    receive(agent.plugin.recv)

    assert agent.calls[0][1] == stdin


def test_a_call_that_is_cut_off_is_dropped_without_a_reply(agent, caplog):
    agent.plugin.recv(1)
    agent.plugin.sendall(pack(ENV, STDIN)[:-1])
    agent.plugin.shutdown(socket.SHUT_WR)

    assert agent.plugin.recv(1) == b""
    assert agent.calls == []
    assert "call not received" in caplog.text


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param((FRAME_LIMIT + 1).to_bytes(4, "big"), id="too long"),
        pytest.param(pack(ENV), id="a field short"),
        pytest.param(pack(), id="no field"),
        pytest.param((5).to_bytes(4, "big") + b"\0\0\1\0x", id="a field over the end"),
    ],
)
def test_what_is_no_call_is_answered_with_what_to_do(agent, sent, caplog):
    agent.plugin.recv(1)
    agent.plugin.sendall(sent)
    agent.plugin.shutdown(socket.SHUT_WR)

    status, stdout, stderr = unpack(receive(agent.plugin.recv))
    error = json.loads(stdout)
    assert (status, stderr, error["code"]) == (b"1", b"", 6)
    assert "pycni install" in error["details"]
    assert agent.calls == []
    assert "call not understood" in caplog.text


def test_what_is_no_call_of_a_caller_that_is_gone_is_only_logged(caplog):
    agent = Agent()
    agent.plugin.recv(1)
    agent.plugin.sendall(pack(ENV))

    agent.finish()

    assert "call not understood" in caplog.text


def test_what_a_later_plugin_adds_to_its_call_is_ignored(agent):
    agent.plugin.recv(1)
    agent.plugin.sendall(pack(ENV, STDIN, b"more", b""))

    assert unpack(receive(agent.plugin.recv)) == [b"0", b"{}", b""]
    assert agent.calls[0][1] == STDIN


def test_an_earlier_plugin_gets_what_it_knows(agent):
    """It takes answers of three fields only."""
    agent.plugin.recv(1)
    agent.plugin.sendall(pack(ENV, STDIN))

    assert len(unpack(receive(agent.plugin.recv))) == 3


@pytest.mark.parametrize("reads_hello", [True, False])
def test_a_peer_that_only_asks_for_an_agent_is_no_warning(reads_hello, caplog):
    agent = Agent()
    if reads_hello:
        agent.plugin.recv(1)

    with caplog.at_level(logging.INFO):
        agent.finish()

    assert agent.calls == []
    assert caplog.text == ""


def test_a_peer_that_was_gone_before_hello_is_no_warning(caplog):
    ours, theirs = socket.socketpair()
    ours.close()

    rpc.serve_connection(theirs, lambda *_: REPLY)

    assert caplog.text == ""


def test_a_peer_that_connects_and_says_nothing_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(rpc, "SEND_SECONDS", 0.05)
    agent = Agent()
    agent.plugin.recv(1)

    assert agent.plugin.recv(1) == b""
    agent.finish()
    assert "call not received" in caplog.text


def test_what_a_caller_writes_into_its_ids_stays_within_its_line(agent, caplog):
    forged = b"CNI_COMMAND=ADD\0CNI_CONTAINERID=a status=0\nlevel=ERROR\0CNI_IFNAME=\x1b[2J"

    with caplog.at_level(logging.INFO):
        agent.plugin.recv(1)
        send(agent.plugin, pack(forged, STDIN), None)
        receive(agent.plugin.recv)

    (line,) = [record.getMessage() for record in caplog.records]
    assert r'container="a status=0\nlevel=ERROR" ifname="\u001b[2J"' in line
    assert line.isprintable()


def test_a_call_with_two_descriptors_is_refused_and_both_are_closed(tmp_path):
    before = open_descriptors()
    agent = Agent()

    with (tmp_path / "one").open("wb") as one:
        agent.plugin.recv(1)
        rights = array.array("i", [one.fileno(), one.fileno()])
        request = pack(ENV, STDIN)
        agent.plugin.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        status, *_ = unpack(receive(agent.plugin.recv))
    agent.finish()

    assert status == b"1"
    assert agent.calls == []
    assert open_descriptors() == before


def test_a_plugin_that_was_killed_during_the_call_is_only_logged(caplog):
    ours, theirs = socket.socketpair()

    def handler(_env, _stdin, _netns):
        ours.close()
        return REPLY

    send(ours, pack(ENV, STDIN), None)
    rpc.serve_connection(theirs, handler)

    assert "the caller is gone" in caplog.text


def test_a_plugin_has_left_when_it_is_gone_and_not_when_it_has_said_all():
    ours, theirs = socket.socketpair()
    with theirs:
        waits = rpc.has_left(theirs)
        ours.shutdown(socket.SHUT_WR)
        has_said_all = rpc.has_left(theirs)
        ours.close()

        assert (waits, has_said_all, rpc.has_left(theirs)) == (False, False, True)


def test_everything_is_closed_when_the_handler_raises(tmp_path):
    before = open_descriptors()
    ours, theirs = socket.socketpair()

    def handler(_env, _stdin, _netns):
        raise RuntimeError("a bug")

    with ours, (tmp_path / "netns").open("wb") as file:
        send(ours, pack(ENV, STDIN), file.fileno())
        with pytest.raises(RuntimeError):
            rpc.serve_connection(theirs, handler)

        assert ours.recv(2) == HELLO
        assert ours.recv(1) == b""
    assert open_descriptors() == before


def test_a_stranger_gets_no_hello(monkeypatch, caplog):
    monkeypatch.setattr(rpc, "peer_is_trusted", lambda _: False)
    agent = Agent()

    assert agent.plugin.recv(1) == b""
    agent.finish()
    assert agent.calls == []
    assert "refused" in caplog.text


@pytest.mark.parametrize(
    ("peer", "own", "trusted"), [(0, 1000, True), (1000, 1000, True), (1001, 1000, False)]
)
def test_root_and_our_own_user_are_trusted(monkeypatch, peer, own, trusted):
    class Connection:
        def getsockopt(self, *_):
            return struct.pack("iII", 4711, peer, 4712)

    monkeypatch.setattr(rpc.os, "geteuid", lambda: own)

    assert rpc.peer_is_trusted(Connection()) is trusted


def test_the_peer_of_a_real_socket_is_trusted(agent):
    assert rpc.peer_is_trusted(agent.plugin)


def test_what_a_caller_has_read_is_not_taken_back(agent):
    attached = Attached()
    agent.reply = Reply(0, b"{}", take_back=attached.take_back)

    send(agent.plugin, pack(ENV, STDIN), None)
    agent.plugin.recv(1)
    assert unpack(receive(agent.plugin.recv))[1] == b"{}"
    agent.finish()

    assert not attached.is_taken_back


@pytest.mark.parametrize("error", [None, TryAgain("locked by process 7")])
def test_what_a_caller_has_not_read_is_taken_back(agent, caplog, error):
    """It goes away with the reply in its socket."""
    attached = Attached(error)
    agent.reply = Reply(0, b"{}", take_back=attached.take_back)
    caplog.set_level(logging.INFO)

    agent.plugin.recv(1)
    send(agent.plugin, pack(ENV, STDIN), None)
    agent.plugin.recv(1, socket.MSG_PEEK)  # the reply is there
    agent.finish()

    assert attached.is_taken_back
    assert "reply not taken" in caplog.text
    assert ("locked by process 7" in caplog.text) is (error is not None)


def test_a_caller_that_is_gone_before_the_reply_has_it_taken_back():
    attached = Attached()
    agent = Agent(Reply(0, b"{}", take_back=attached.take_back))
    agent.plugin.recv(1)
    send(agent.plugin, pack(ENV, STDIN), None)
    agent.finish()

    assert attached.is_taken_back


def test_a_caller_that_was_stopped_keeps_what_it_will_read(monkeypatch):
    monkeypatch.setattr(rpc, "SEND_SECONDS", 0.1)
    attached = Attached()
    agent = Agent(Reply(0, b"{}", take_back=attached.take_back))
    agent.plugin.recv(1)
    send(agent.plugin, pack(ENV, STDIN), None)
    agent._thread.join(10)  # it waits no longer

    fields = unpack(receive(agent.plugin.recv))
    agent.finish()

    assert fields[1] == b"{}"
    assert not attached.is_taken_back
