# SPDX-License-Identifier: Apache-2.0
"""dispatch.py: a call from environment and stdin to exit status, stdout and stderr."""

import json
import os
from ipaddress import ip_interface
from pathlib import Path

import pytest

from pycni.attachments import dispatch
from pycni.cni import netns
from pycni.cni.call import Serving
from pycni.cni.plugin import VERSIONS
from pycni.cni.result import Address, Interface, Result
from pycni.errors import DuplicateAttachment
from pycni.kernel import forgetting
from pycni.settings import Settings

SETTINGS = Settings(node_name="node-one")
NETNS = "/var/run/netns/cni-5d2b6a"
ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": NETNS,
    "CNI_IFNAME": "eth0",
}
DEL = ADD | {"CNI_COMMAND": "DEL"}
CHECK = ADD | {"CNI_COMMAND": "CHECK"}
GC = {"CNI_COMMAND": "GC", "CNI_PATH": "/opt/cni/bin"}
STATUS = {"CNI_COMMAND": "STATUS", "CNI_CONTAINERID": "", "CNI_NETNS": ""}
POD = Address(ip_interface("10.244.0.2/32"), interface=0)
RESULT = Result((Interface("eth0", sandbox=NETNS),), (POD,))


class Work:
    """Stands in for verbs.WORK: notes its calls, raises what it is given."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.calls: list[str] = []
        self.seen = None

    def __getitem__(self, command):
        def do(call):
            self.calls.append(command)
            self.seen = call
            if self.error is not None:
                raise self.error
            return RESULT if command == "ADD" else None

        return do


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def pod(monkeypatch):
    """A descriptor that counts as a pod's namespace: it is our own, seen from elsewhere."""
    monkeypatch.setattr(netns, "OWN", Path("/proc/self/ns/mnt"))
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def conf(**keys: object) -> bytes:
    return json.dumps({"cniVersion": "1.0.0", "name": "podnet", "type": "pycni"} | keys).encode()


def ask(env, stdin, pod=None, *, work):
    return dispatch.answer(env, stdin, pod, settings=SETTINGS, work=work)


def error_of(reply):
    """The error object of a reply, checked for what every failure must have."""
    document = json.loads(reply.stdout)
    assert reply.status == 1
    assert document["code"] > 0
    assert isinstance(document["msg"], str)
    assert isinstance(document.get("details", ""), str)
    assert set(document) <= {"cniVersion", "code", "msg", "details"}
    assert reply.stderr.endswith(b"\n")
    return document


@pytest.mark.parametrize("version", VERSIONS)
def test_add_answers_in_the_configurations_version(work, pod, version):
    reply = ask(ADD, conf(cniVersion=version), pod, work=work)

    document = json.loads(reply.stdout)
    assert (reply.status, reply.stderr) == (0, b"")
    assert document["cniVersion"] == version
    assert ("ip4" in document) is (version in ("0.1.0", "0.2.0"))
    assert work.calls == ["ADD"]


def test_add_is_given_request_configuration_namespace_and_settings(work, pod):
    ask(ADD, conf(mtu=1400), pod, work=work)

    call = work.seen
    assert call.request.ifname == "eth0"
    assert call.conf.mtu == 1400
    assert (call.env, call.stdin) == (ADD, conf(mtu=1400))
    assert call.netns_fd == pod
    assert call.settings is SETTINGS


@pytest.mark.parametrize(
    ("env", "seconds"),
    [(ADD, 20), (CHECK, 10), (DEL, 15), (GC, 25), (STATUS, 1)],
    ids=["ADD", "CHECK", "DEL", "GC", "STATUS"],
)
def test_each_command_has_its_own_time(work, pod, env, seconds):
    ask(env, conf(cniVersion="1.1.0", prevResult={}), pod, work=work)

    assert seconds - 1 < work.seen.left() <= seconds


@pytest.mark.parametrize("env", [GC, STATUS])
def test_gc_and_status_print_nothing(work, env):
    reply = ask(env, conf(cniVersion="1.1.0"), work=work)

    assert (reply.status, reply.stdout, reply.stderr) == (0, b"", b"")
    assert work.calls == [env["CNI_COMMAND"]]


def test_add_keeps_the_previous_result_of_a_chain(work, pod):
    previous = {"interfaces": [{"name": "dummy0"}], "ips": [{"address": "192.0.2.1/32"}]}

    reply = ask(ADD, conf(prevResult=previous), pod, work=work)

    document = json.loads(reply.stdout)
    assert [one["name"] for one in document["interfaces"]] == ["dummy0", "eth0"]
    assert document["ips"][1] == {"interface": 1, "address": "10.244.0.2/32"}


@pytest.mark.parametrize("stdin", [conf(), conf(prevResult=None), conf(mtu="broken", dns=5)])
@pytest.mark.parametrize("namespace", ["", "/missing"])
def test_del_needs_no_namespace_no_previous_result_and_no_right_keys(work, stdin, namespace):
    reply = ask(DEL | {"CNI_NETNS": namespace}, stdin, work=work)

    assert (reply.status, reply.stdout, reply.stderr) == (0, b"", b"")
    assert work.calls == ["DEL"]


@pytest.mark.parametrize("previous", [5, "x", [], {"ips": "broken"}])
def test_del_takes_any_previous_result(work, previous):
    assert ask(DEL, conf(prevResult=previous), work=work).status == 0


def test_del_is_given_the_pods_namespace_while_it_is_there(work, pod):
    assert ask(DEL, conf(), pod, work=work).status == 0

    assert work.seen.netns_fd == pod


def test_del_is_not_given_the_nodes_own_namespace(work):
    with Path(netns.OWN).open() as own:
        assert ask(DEL, conf(), own.fileno(), work=work).status == 0

    assert work.seen.netns_fd == -1


def test_check_prints_nothing(work, pod):
    reply = ask(CHECK, conf(prevResult={}), pod, work=work)

    assert (reply.status, reply.stdout, reply.stderr) == (0, b"", b"")
    assert work.calls == ["CHECK"]


@pytest.mark.parametrize(
    ("env", "stdin", "code"),
    [
        pytest.param({"CNI_COMMAND": "FROB"}, conf(), 4, id="unknown command"),
        pytest.param({"CNI_COMMAND": "ADD"}, conf(), 4, id="missing variables"),
        pytest.param(ADD | {"CNI_CONTAINERID": "a/b"}, b"", 4, id="environment before stdin"),
        pytest.param(ADD | {"CNI_COMMAND": "FROB"}, OSError(21, "?"), 4, id="and before reading"),
        pytest.param(ADD, IsADirectoryError(21, "Is a directory"), 5, id="unreadable stdin"),
        pytest.param(DEL, OSError(9, "Bad file descriptor"), 5, id="closed stdin"),
        pytest.param(ADD, b"", 6, id="empty stdin"),
        pytest.param(DEL, b"{nope", 6, id="broken stdin"),
        pytest.param(ADD, b"null", 7, id="null"),
        pytest.param(DEL, b"{}", 7, id="no name"),
        pytest.param(ADD, conf(cniVersion="9.9.9"), 1, id="unknown version"),
        pytest.param(DEL, conf(cniVersion="9.9.9"), 1, id="unknown version on DEL"),
        pytest.param(ADD, conf(cniVersion=1), 6, id="version is a number"),
        pytest.param(CHECK, conf(cniVersion="0.3.1", prevResult={}), 1, id="CHECK before 0.4.0"),
        pytest.param({"CNI_COMMAND": "GC"}, conf(), 1, id="GC before 1.1.0"),
        pytest.param({"CNI_COMMAND": "STATUS"}, conf(), 1, id="STATUS before 1.1.0"),
        pytest.param(ADD, conf(mtu="1400"), 7, id="wrong value"),
        pytest.param(CHECK, conf(), 7, id="CHECK without prevResult"),
        pytest.param(CHECK, conf(prevResult="x"), 6, id="CHECK with a broken prevResult"),
        pytest.param(ADD, conf(prevResult="x"), 6, id="ADD with a broken prevResult"),
    ],
)
def test_bad_input_has_its_code_and_nothing_is_done(work, pod, env, stdin, code):
    reply = ask(env, stdin, pod, work=work)

    assert error_of(reply)["code"] == code
    assert work.calls == []


@pytest.mark.parametrize("env", [ADD, CHECK])
def test_a_path_that_cannot_be_opened_is_told_with_what_is_there(work, env, tmp_path):
    reply = ask(env | {"CNI_NETNS": str(tmp_path)}, conf(prevResult={}), work=work)

    error = error_of(reply)
    assert error["code"] == 8
    assert f"found a directory at {tmp_path}" in error["details"]
    assert work.calls == []


@pytest.mark.parametrize("env", [ADD, CHECK])
def test_the_nodes_own_namespace_is_refused(work, env):
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    reply = ask(env, conf(prevResult={}), descriptor, work=work)
    overridden = ask(
        env | {"CNI_NETNS_OVERRIDE": "true"}, conf(prevResult={}), descriptor, work=work
    )

    os.close(descriptor)
    assert error_of(reply)["code"] == 8
    assert overridden.status == 0


def test_an_error_of_ours_is_told_as_it_is(pod):
    work = Work(DuplicateAttachment("attached already", hint="run DEL first"))

    reply = ask(ADD, conf(cniVersion="0.4.0"), pod, work=work)

    assert error_of(reply) == {
        "cniVersion": "0.4.0",
        "code": 101,
        "msg": "attached already",
        "details": "run DEL first",
    }
    assert reply.stderr.count(b"\n") == 1
    assert reply.stderr.startswith(b'command=ADD container=c0ffee ifname=eth0 code=101 msg="')


def test_any_other_error_is_an_internal_one_with_a_traceback_in_the_log():
    work = Work(FileNotFoundError(2, "No such file or directory", "/proc/x"))

    reply = ask(DEL, conf(), work=work)

    error = error_of(reply)
    assert error["code"] == 999
    assert "FileNotFoundError" in error["msg"]
    assert "no such file" not in error["msg"].lower()
    assert b"Traceback" in reply.stderr


def test_an_interrupt_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        ask(DEL, conf(), work=Work(KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("stdin", "version"), [(conf(cniVersion="0.4.0"), "0.4.0"), (OSError(9, "?"), VERSIONS[-1])]
)
def test_version_lists_what_is_supported(work, stdin, version):
    reply = ask({"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy"}, stdin, work=work)

    assert json.loads(reply.stdout) == {
        "cniVersion": version,
        "supportedVersions": list(VERSIONS),
    }


def test_bytes_that_are_no_text_reach_the_error_as_ascii(work):
    reply = ask(ADD | {"CNI_CONTAINERID": "a\udcff"}, conf(), work=work)

    assert error_of(reply)["code"] == 4
    assert reply.stdout.isascii()


def test_a_result_that_cannot_be_told_is_taken_back(pod):
    """The form of 0.2.0 needs an address."""
    taken_back = []
    made = Result(take_back=lambda: taken_back.append(True))

    told = ask(ADD, conf(), pod, work={"ADD": lambda _: made})
    untold = ask(ADD, conf(cniVersion="0.2.0"), pod, work={"ADD": lambda _: made})

    assert (told.status, untold.status) == (0, 1)
    assert told.take_back is made.take_back
    assert taken_back == [True]


@pytest.mark.parametrize("error", [None, DuplicateAttachment("attached already")])
def test_connections_are_forgotten_before_the_answer_or_left_to_the_caller(pod, monkeypatch, error):
    forgotten = []
    monkeypatch.setattr(
        forgetting.conntrack, "forget_each", lambda some: forgotten.append(set(some)) or []
    )
    callers = forgetting.Forgetting()

    def leave(call):
        call.forgetting.soon([POD.address.ip])
        if error is not None:
            raise error

    dispatch.answer(
        DEL, conf(), pod, settings=SETTINGS, work={"DEL": leave}, serving=Serving(callers)
    )
    left = list(forgotten)
    callers.work()
    ask(DEL, conf(), pod, work={"DEL": leave})

    assert left == []
    assert forgotten == 2 * [{POD.address.ip}]
