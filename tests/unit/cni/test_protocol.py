# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/protocol.py: the CNI_* environment of a call."""

import pytest

from pycni.cni.plugin import VERSIONS
from pycni.cni.protocol import (
    check_command_version,
    check_version,
    parse_args,
    parse_request,
)
from pycni.errors import IncompatibleVersion, InvalidParameter

NETNS = "/var/run/netns/cni-5d2b6a"
ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": NETNS,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
DEL = ADD | {"CNI_COMMAND": "DEL"}


def test_a_complete_add_is_taken_over():
    request = parse_request(ADD | {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web-0"})

    assert request.command == "ADD"
    assert request.container_id == "c0ffee"
    assert request.netns == NETNS
    assert request.ifname == "eth0"
    assert request.args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "web-0"}
    assert not request.allow_own_netns


@pytest.mark.parametrize("command", ["FROB", "add", "ADD ", "ADD\n", ""])
def test_an_unknown_command_is_refused(command):
    with pytest.raises(InvalidParameter, match="unknown CNI_COMMAND"):
        parse_request(ADD | {"CNI_COMMAND": command})


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_all_missing_variables_are_named_at_once(command, empty):
    names = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
    env = {"CNI_COMMAND": command, **(dict.fromkeys(names, "") if empty else {})}

    with pytest.raises(InvalidParameter) as caught:
        parse_request(env)

    assert "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME" in caught.value.message
    assert "CNI_PATH" not in caught.value.message


def test_del_needs_container_and_ifname_only():
    with pytest.raises(InvalidParameter, match="CNI_CONTAINERID, CNI_IFNAME"):
        parse_request({"CNI_COMMAND": "DEL"})


@pytest.mark.parametrize("netns", [{}, {"CNI_NETNS": ""}])
def test_del_works_without_a_netns(netns):
    env = {key: value for key, value in DEL.items() if key != "CNI_NETNS"} | netns

    assert parse_request(env).netns == ""


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize(
    "container_id", ["a/b", "../x", ".a", "-a", "_a", "é", "a b", "abc\n", "١٢٣", "a\udcff"]
)
def test_a_container_id_with_other_characters_is_refused_by_every_command(command, container_id):
    with pytest.raises(InvalidParameter, match="CNI_CONTAINERID"):
        parse_request(ADD | {"CNI_COMMAND": command, "CNI_CONTAINERID": container_id})


@pytest.mark.parametrize("container_id", ["a", "a" * 64, "a" * 255, "a" * 300, "a..b", "A_-.9"])
def test_a_container_id_may_have_any_length(container_id):
    request = parse_request(ADD | {"CNI_CONTAINERID": container_id})

    assert request.container_id == container_id


BAD_IFNAMES = [
    *("a" * 16, "é" * 8, "é", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u00a0b", "eth0\n"),
    *("eth%d", "a\x7f", "a\x01", "lo", "all", "default", "-eth0"),
]


@pytest.mark.parametrize("ifname", BAD_IFNAMES)
def test_an_ifname_the_kernel_would_not_give_is_refused(ifname):
    with pytest.raises(InvalidParameter, match="CNI_IFNAME"):
        parse_request(ADD | {"CNI_IFNAME": ifname})


@pytest.mark.parametrize("ifname", BAD_IFNAMES)
def test_del_takes_any_ifname_because_nothing_can_exist_under_a_bad_one(ifname):
    assert parse_request(DEL | {"CNI_IFNAME": ifname}).ifname == ifname


@pytest.mark.parametrize("ifname", ["a" * 15, "net1", "eth0.100", "eth-0", "e", "lo0"])
def test_an_ifname_of_the_kernels_is_taken(ifname):
    assert parse_request(ADD | {"CNI_IFNAME": ifname}).ifname == ifname


@pytest.mark.parametrize("args", ["FOO", "A=1;FOO", "=1"])
def test_malformed_args_fail_add_but_not_del(args):
    with pytest.raises(InvalidParameter, match="CNI_ARGS"):
        parse_request(ADD | {"CNI_ARGS": args})

    assert parse_request(DEL | {"CNI_ARGS": args}).command == "DEL"


def test_args_come_in_any_order_and_values_may_have_an_equals_sign():
    text = "FOO=BAR;K8S_POD_NAME=x;IgnoreUnknown=1;LABEL=a=b;"

    assert parse_args(text) == {
        "FOO": "BAR",
        "K8S_POD_NAME": "x",
        "IgnoreUnknown": "1",
        "LABEL": "a=b",
    }


def test_unknown_variables_are_ignored():
    extra = {"CNI_FOO": "1", "TRACEPARENT": "00-4bf92f3577b34da6a3ce929d0e0e4736-00", "BAGGAGE": ""}

    assert parse_request(ADD | extra) == parse_request(ADD)


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("true", True), ("0", False)])
def test_the_override_allows_the_nodes_own_netns(value, allowed):
    assert parse_request(ADD | {"CNI_NETNS_OVERRIDE": value}).allow_own_netns is allowed


@pytest.mark.parametrize("command", ["VERSION", "GC", "STATUS"])
def test_commands_without_an_attachment_do_not_look_at_its_variables(command):
    junk = {"CNI_NETNS": "dummy", "CNI_IFNAME": "a/b", "CNI_PATH": "dummy", "CNI_CONTAINERID": ""}

    assert parse_request(junk | {"CNI_COMMAND": command}).command == command


@pytest.mark.parametrize("version", ["9.9.9", "1", "1.0", "abc", "1.2.0", "1.0.0\n", ""])
def test_an_unknown_version_is_refused_with_the_list_of_known_ones(version):
    with pytest.raises(IncompatibleVersion) as caught:
        check_version(version)

    assert caught.value.details == f"pycni supports {', '.join(VERSIONS)}"


@pytest.mark.parametrize("version", VERSIONS)
def test_add_and_del_came_with_the_first_version_and_check_with_0_4_0(version):
    check_version(version)
    check_command_version("ADD", version)
    check_command_version("DEL", version)
    if version in ("0.4.0", "1.0.0", "1.1.0"):
        check_command_version("CHECK", version)
    else:
        with pytest.raises(IncompatibleVersion, match="does not allow CHECK"):
            check_command_version("CHECK", version)


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_gc_and_status_came_after_1_0_0(command):
    with pytest.raises(IncompatibleVersion, match=f"does not allow {command}"):
        check_command_version(command, "1.0.0")
    check_command_version(command, "1.1.0")
