# SPDX-License-Identifier: Apache-2.0
"""Whatever a runtime hands over: an answer that it can read, and never our own failure (999)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz import calls
from fuzz.profiles import examples
from pycni.attachments import dispatch
from pycni.cni import netns, plugin, requests
from pycni.cni.call import Call
from pycni.cni.plugin import VERSIONS
from pycni.cni.protocol import Reply
from pycni.cni.result import Address, Interface, Result
from pycni.errors import SWALLOWED, MissingPlugin
from pycni.ipam import allocation, ipam_plugin, pools
from pycni.names import AttachmentKey
from pycni.node.record import Node
from pycni.pods import host_ports, rate_limits
from pycni.pods.lease import Lease
from pycni.settings import Settings

SETTINGS = Settings(node_name="node-one")
NODE = Node(
    name="node-one",
    node_id=1,
    vtep=ip_address("192.0.2.1"),
    pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
    cluster_cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    uplink="eth0",
    mtu=1450,
    port=4789,
)
INTERNAL = 999

LONG_NAME = {"ipam": {"type": "x" * 300}}
HALF_A_CHARACTER = {"cni.dev/valid-attachments": [{"containerID": "\ud800", "ifname": "eth0"}]}
DEEP_RANGES = {"ipam": {"ranges": "lists in lists: 2000"}}
"""Found by these tests: a file name that is too long, a key that is no UTF-8, recursion."""
HEAD = {"cniVersion": VERSIONS[-1], "name": "podnet"}
ERROR_KEYS = {"cniVersion", "code", "msg", "details"}


def read_all(call: Call) -> Result:
    """All that ADD reads of a call before it does anything, and a result from what was asked."""
    request, conf = call.request, call.conf
    if conf.delegate:
        ipam_plugin.find(conf.delegate, call.env.get("CNI_PATH", ""))
        given = [ip_address("10.244.1.2")]
    else:
        found = allocation.pools_of(conf, NODE).values()
        given = [pools.take(first, None, lambda _: True) for first, *_ in found]
    asked = requests.addresses(request, conf) or tuple(given)
    mtu = NODE.pod_mtu(conf.mtu)
    limits = rate_limits.parse(conf.runtime_config)
    for rate in (limits.ingress, limits.egress):
        if rate is not None:
            rate.bucket(mtu)
    host_ports.plan(host_ports.parse(conf.runtime_config), asked, owner=request.container_id)
    mac = requests.mac(request, conf) or call.key.mac
    Lease(
        key_digest=call.key.digest,
        network=call.key.network,
        container_id=call.key.container_id,
        ifname=call.key.ifname,
        mac=mac,
        addresses=asked,
        masquerade=conf.ip_masq,
    ).alias()
    return Result(
        (Interface(request.ifname, mac=mac, mtu=mtu, sandbox=request.netns),),
        tuple(Address(ip_interface(str(one)), interface=0) for one in asked),
        dns=requests.dns(conf),
    )


def read_key(call: Call) -> None:
    """What DEL reads."""
    assert call.key.host_ifname
    if call.conf.delegate:
        with suppress(MissingPlugin):
            ipam_plugin.find(call.conf.delegate, call.env.get("CNI_PATH", ""))


def read_previous(call: Call) -> None:
    """What CHECK reads."""
    call.conf.previous_result()


def read_valid(call: Call) -> None:
    """What GC reads."""
    for one in call.conf.valid_attachments() or ():
        assert AttachmentKey(call.conf.name, *one).digest


def read_nothing(call: Call) -> None:
    """What STATUS reads."""


WORK = {
    "ADD": read_all,
    "DEL": read_key,
    "CHECK": read_previous,
    "GC": read_valid,
    "STATUS": read_nothing,
}
"""The verbs, without what they do: they only read what they were given."""


@pytest.fixture(scope="module")
def pod() -> Iterator[int]:
    """A descriptor that counts as a pod's namespace: it is our own, seen from elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(netns, "OWN", Path("/proc/self/ns/mnt"))
        descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        yield descriptor
        os.close(descriptor)


def answer(env: dict[str, str], stdin: bytes, pod: int | None) -> Reply:
    return dispatch.answer(env, stdin, pod, settings=SETTINGS, work=WORK)


def check(reply: Reply) -> None:
    """Assert that a runtime can read a reply, and that it is no failure of our own."""
    assert b"Traceback" not in reply.stderr, reply.stderr.decode()
    if reply.status == 0:
        assert reply.stdout == b"" or isinstance(json.loads(reply.stdout), dict)
        assert reply.stderr == b""
        return
    check_error(reply.status, reply.stdout)
    assert reply.stderr.count(b"\n") == 1


def check_error(status: int, stdout: bytes) -> None:
    document = json.loads(stdout)
    assert status == 1
    assert set(document) <= ERROR_KEYS
    assert document["cniVersion"] in VERSIONS
    assert type(document["code"]) is int
    assert 0 < document["code"] < 2**32
    assert document["code"] != INTERNAL
    assert isinstance(document["msg"], str)
    assert document["msg"]
    assert isinstance(document.get("details", ""), str)
    assert not SWALLOWED.search(document["msg"] + document.get("details", ""))


@examples(short=300, long=8_000)
@given(env=calls.environments, stdin=calls.stdins, found=st.booleans())
def test_any_environment_and_any_bytes_have_an_answer(
    pod: int, env: dict[str, str], stdin: bytes, found: bool
) -> None:
    check(answer(env, stdin, pod if found else None))


@examples(short=500, long=12_000)
@given(env=st.sampled_from(tuple(WORK)).flatmap(calls.complete), document=calls.configurations)
@example(env=calls.usual("ADD"), document=HEAD | LONG_NAME)
@example(env=calls.usual("ADD"), document=HEAD | DEEP_RANGES)
@example(env=calls.usual("GC"), document=HEAD | HALF_A_CHARACTER)
def test_any_configuration_has_an_answer(
    pod: int, env: dict[str, str], document: dict[str, Any]
) -> None:
    check(answer(env, calls.encoded(document), pod))


@examples(short=250, long=8_000)
@given(env=calls.complete("DEL"), head=calls.heads, own=calls.own_parts)
@example(env=calls.usual("DEL"), head=HEAD, own=LONG_NAME)
def test_del_never_fails_for_what_is_wrong_in_our_own_keys(
    env: dict[str, str], head: dict[str, Any], own: dict[str, Any]
) -> None:
    reply = answer(env, calls.encoded(head | own), None)

    assert (reply.status, reply.stdout, reply.stderr) == (0, b"", b"")


@examples(short=150, long=8_000)
@given(stdin=calls.stdins)
def test_version_is_answered_whatever_is_on_stdin(stdin: bytes) -> None:
    document = json.loads(plugin.version_reply(stdin))

    assert document["cniVersion"] in VERSIONS
    assert document["supportedVersions"] == list(VERSIONS)


@examples(short=200, long=3_000)
@given(stdin=calls.stdins)
def test_the_plugin_itself_reports_errors_whatever_is_on_stdin(stdin: bytes) -> None:
    status, stdout, _ = plugin.failure(11, "the agent stopped during ADD", stdin)

    check_error(status, stdout)
