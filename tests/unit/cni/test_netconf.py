# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/netconf.py: the network configuration on stdin."""

import json

import pytest

from pycni.cni.netconf import parse_netconf
from pycni.cni.plugin import VERSIONS
from pycni.cni.result import Dns, Result
from pycni.errors import (
    DecodingError,
    IncompatibleVersion,
    InvalidConfig,
    PycniError,
)

HEAD = {"cniVersion": "1.0.0", "name": "podnet", "type": "pycni"}


def conf(**keys: object) -> bytes:
    return json.dumps(HEAD | keys).encode()


def test_known_keys_are_taken_over():
    read = parse_netconf(
        conf(
            ipMasq=True,
            mtu=1400,
            dns={"nameservers": ["10.1.0.1"], "domain": "d", "search": ["s"], "options": ["o"]},
            runtimeConfig={"portMappings": [{"HostPort": 80}]},
            args={"cni": {"ips": ["10.1.0.7"]}},
        )
    )

    assert read.cni_version == "1.0.0"
    assert read.name == "podnet"
    assert read.ip_masq is True
    assert read.mtu == 1400
    assert read.dns_result() == Dns(("10.1.0.1",), "d", ("s",), ("o",))
    assert read.runtime_config == {"portMappings": [{"HostPort": 80}]}
    assert read.args == {"cni": {"ips": ["10.1.0.7"]}}


def test_absent_keys_have_their_defaults():
    read = parse_netconf(conf())

    assert (read.ip_masq, read.mtu, read.dns_result()) == (False, None, Dns())


@pytest.mark.parametrize(
    "stdin", [b"", b"{nope", b"[]", b'"x"', b"5", b"{}{}", b"{} xx", b'{"name": NaN}']
)
def test_stdin_without_one_json_object_cannot_be_decoded(stdin):
    with pytest.raises(DecodingError, match="network configuration on stdin"):
        parse_netconf(stdin)


@pytest.mark.parametrize("stdin", [b"null", b"{}", b'{"name": null}', b'{"name": ""}'])
def test_a_missing_name_is_a_wrong_configuration(stdin):
    with pytest.raises(InvalidConfig, match="has no name"):
        parse_netconf(stdin)


@pytest.mark.parametrize("name", ["a/b", ".a", "a b", "é", "a\n"])
def test_a_name_with_other_characters_is_told(name):
    with pytest.raises(InvalidConfig) as caught:
        parse_netconf(conf(name=name))

    assert caught.value.details == f"found {name!r}"


@pytest.mark.parametrize("key", ["name", "cniVersion"])
@pytest.mark.parametrize("value", [5, True, ["1.0.0"], {}])
def test_name_and_version_must_be_strings(key, value):
    with pytest.raises(DecodingError, match=f"{key} in the network configuration is not a string"):
        parse_netconf(conf(**{key: value}))


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("version", ["9.9.9", "1", "1.0", "abc", "1.2.0"])
def test_an_unknown_version_is_incompatible_for_every_command(version, lenient):
    with pytest.raises(IncompatibleVersion):
        parse_netconf(conf(cniVersion=version), lenient=lenient)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_known_version_is_taken(version):
    assert parse_netconf(conf(cniVersion=version)).cni_version == version


@pytest.mark.parametrize("version", ["", None])
def test_without_a_version_the_configuration_is_in_the_oldest(version):
    assert parse_netconf(conf(cniVersion=version)).cni_version == "0.1.0"


def test_a_bad_name_is_told_before_an_unknown_version():
    with pytest.raises(InvalidConfig, match="name"):
        parse_netconf(conf(name="", cniVersion="9.9.9"))


WRONG_VALUES = [
    ("mtu", "1400"),
    ("mtu", 10),
    ("mtu", 67),
    ("mtu", 65536),
    ("mtu", 70000),
    ("mtu", -1),
    ("mtu", 1400.5),
    ("mtu", True),
    ("ipMasq", "yes"),
    ("forwards", "yes"),
    ("tcx", "yes"),
    ("device", "bridge"),
    ("device", "Netkit"),
    ("device", True),
    ("ipMasq", 1),
    ("dns", []),
    ("dns", {"nameservers": ["ns.example"]}),
    ("dns", {"nameservers": "10.1.0.1"}),
    ("dns", {"domain": 5}),
    ("runtimeConfig", []),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_a_wrong_value_is_told_with_its_key(key, value):
    with pytest.raises(InvalidConfig) as caught:
        parse_netconf(conf(**{key: value}))

    assert caught.value.message.startswith(key)
    assert caught.value.details.startswith("found ")


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_a_wrong_value_is_left_out_when_lenient(key, value):
    read = parse_netconf(conf(**{key: value}, args=["kept"]), lenient=True)

    assert read == parse_netconf(conf(args=["kept"]))


@pytest.mark.parametrize("mtu", [68, 1280, 65535])
def test_the_limits_of_the_mtu_are_taken(mtu):
    assert parse_netconf(conf(mtu=mtu)).mtu == mtu


@pytest.mark.parametrize(
    "keys",
    [
        {"ipam": {}},
        {"ipam": None},
        {"dns": {}},
        {"dns": None},
        {"dns": {"nameservers": None, "other": 1}},
        {"mtu": None},
        {"args": "garbage"},
        {"capabilities": {"portMappings": True}},
        {"type": 5},
        {"other": {"mtu": "x"}, "runtimeConfig": {"other": 1}},
        {"prevResult": None},
    ],
)
def test_unknown_and_empty_keys_are_accepted(keys):
    assert parse_netconf(conf(**keys)).name == "podnet"


def test_a_large_configuration_is_accepted():
    assert parse_netconf(conf(other="x" * (3 << 20))).name == "podnet"


def test_keys_match_without_regard_to_case():
    read = parse_netconf(
        b'{"CNIVERSION": "0.4.0", "Name": "n", "IPMASQ": true, '
        b'"DNS": {"NameServers": ["10.1.0.1"]}}'
    )

    assert read.cni_version == "0.4.0"
    assert read.ip_masq
    assert read.dns_result() == Dns(("10.1.0.1",))


def test_the_previous_result_is_read_in_the_configurations_version():
    read = parse_netconf(conf(cniVersion="0.2.0", prevResult={"ip4": {"ip": "10.1.0.5/24"}}))

    assert str(read.previous_result().ips[0].address) == "10.1.0.5/24"
    assert parse_netconf(conf(prevResult={})).previous_result() == Result()


@pytest.mark.parametrize(("value", "code"), [(None, 7), ("garbage", 6), ([], 6)])
def test_a_previous_result_that_is_missing_or_none_is_told_when_it_is_asked_for(value, code):
    read = parse_netconf(conf(prevResult=value))

    with pytest.raises(PycniError) as caught:
        read.previous_result()

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("keys", "plugin"),
    [
        ({}, ""),
        ({"ipam": None}, ""),
        ({"ipam": {}}, ""),
        ({"ipam": {"type": None}}, ""),
        ({"ipam": {"type": "pycni", "ranges": []}}, ""),
        ({"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}, "host-local"),
        ({"IPAM": {"Type": "static"}}, "static"),
    ],
)
def test_addresses_are_our_own_unless_ipam_names_another_plugin(keys, plugin):
    assert parse_netconf(conf(**keys)).delegate == plugin


@pytest.mark.parametrize("ipam", ["host-local", [], {"type": 5}, {"type": ["static"]}])
def test_ipam_of_a_wrong_type_is_told(ipam):
    with pytest.raises(InvalidConfig, match="ipam"):
        parse_netconf(conf(ipam=ipam))


ONE = {"containerID": "one", "ifname": "eth0"}
TWO = {"containerID": "two", "ifname": "eth0"}


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({}, None),
        ({"cni.dev/valid-attachments": None}, set()),
        ({"cni.dev/valid-attachments": []}, set()),
        ({"cni.dev/valid-attachments": [ONE, ONE]}, {("one", "eth0")}),
        ({"cni.dev/attachments": [ONE]}, {("one", "eth0")}),
        ({"cni.dev/attachments": None}, set()),
        ({"cni.dev/attachments": [ONE], "cni.dev/valid-attachments": [TWO]}, {("two", "eth0")}),
    ],
)
def test_what_gc_keeps_is_listed_empty_or_not_told(keys, kept):
    assert parse_netconf(conf(**keys)).valid_attachments() == kept


@pytest.mark.parametrize(
    "listed",
    [
        *("x", "", 0, 5, {}, {"a": 1}, ["one"], [None], [{"containerID": "one"}]),
        *([{"containerID": 1, "ifname": "eth0"}], [{"containerID": "one", "ifname": []}]),
        *([ONE, {"containerID": "../x", "ifname": "eth0"}], [ONE | {"ifname": "a/b"}]),
        *([ONE | {"containerID": "\udc80"}], [ONE | {"ifname": ""}], [ONE | {"containerID": ""}]),
    ],
)
def test_a_list_for_gc_that_is_none_is_told(listed):
    read = parse_netconf(conf(**{"cni.dev/valid-attachments": listed}))

    with pytest.raises(InvalidConfig, match="valid-attachments"):
        read.valid_attachments()
