# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/requests.py: what the runtime asks for, and which place wins."""

from __future__ import annotations

import json
from collections.abc import Container
from functools import partial

import pytest

from pycni.cni import requests
from pycni.cni.netconf import NetConf, parse_netconf
from pycni.cni.protocol import Request
from pycni.cni.result import Dns
from pycni.errors import InvalidConfig, InvalidParameter
from pycni.names import GATEWAY_MAC


def conf(**keys: object) -> NetConf:
    return parse_netconf(json.dumps({"cniVersion": "1.0.0", "name": "podnet"} | keys).encode())


def request(**args: str) -> Request:
    return Request("ADD", "c0ffee", ifname="eth0", args=args)


def addresses(conf: NetConf, **args: str) -> list[str]:
    return [str(one) for one in requests.addresses(request(**args), conf)]


CAPABILITY = {"runtimeConfig": {"ips": ["10.1.0.1/24", "fd00::1"]}}
ANNOTATED = {"pycni/ips": "10.1.0.4, fd00::4", "pycni/mac": "0A:00:00:00:00:04", "other": ""}
ANNOTATION = {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": ANNOTATED}}
CONVENTION = {"args": {"cni": {"ips": ["10.1.0.2"]}}}


def test_capabilities_win_over_args_and_args_over_the_environment() -> None:
    assert addresses(conf(**CAPABILITY, **CONVENTION), IP="10.1.0.3") == ["10.1.0.1", "fd00::1"]
    assert addresses(conf(**CONVENTION), IP="10.1.0.3") == ["10.1.0.2"]
    assert addresses(conf(), IP="10.1.0.3/16, fd00::3") == ["10.1.0.3", "fd00::3"]
    assert addresses(conf()) == []


def test_annotations_of_the_pod_come_last() -> None:
    last = ["10.1.0.4", "fd00::4"]

    assert addresses(conf(**ANNOTATION)) == last
    assert addresses(conf(**ANNOTATION, **CONVENTION)) == ["10.1.0.2"]
    assert addresses(conf(**ANNOTATION), IP="10.1.0.3") == ["10.1.0.3"]
    assert requests.mac(request(), conf(**ANNOTATION)) == "0a:00:00:00:00:04"
    assert requests.mac(request(MAC="0a:00:00:00:00:01"), conf(**ANNOTATION)) == "0a:00:00:00:00:01"


def test_annotations_are_for_the_first_interface() -> None:
    second = Request("ADD", "c0ffee", ifname="net1")

    assert requests.addresses(second, conf(**ANNOTATION)) == ()
    assert requests.mac(second, conf(**ANNOTATION)) == ""


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ({"pycni/ips": "ten"}, "pycni/ips"),
        ({"pycni/mac": "ff:ff:ff:ff:ff:ff"}, "pycni/mac"),
        ({"pycni/ips": 5, "pycni/mac": 5}, "object of strings"),
        (["pycni/ips"], "object of strings"),
    ],
)
def test_a_wrong_annotation_is_told(annotations: Container[str], told: str) -> None:
    wrong = conf(runtimeConfig={"io.kubernetes.cri.pod-annotations": annotations})

    asks = addresses if "pycni/ips" in annotations else partial(requests.mac, request())
    with pytest.raises(InvalidConfig, match=told):
        asks(wrong)


def test_an_empty_request_is_none() -> None:
    empty = conf(runtimeConfig={"ips": [], "mac": ""}, **CONVENTION)

    assert addresses(empty) == ["10.1.0.2"]
    assert requests.mac(request(MAC="0a:00:00:00:00:01"), empty) == "0a:00:00:00:00:01"


def test_keys_match_without_regard_to_case() -> None:
    assert addresses(conf(runtimeConfig={"IPs": ["10.1.0.1"]})) == ["10.1.0.1"]
    assert addresses(conf(args={"CNI": {"IPS": ["10.1.0.1"]}})) == ["10.1.0.1"]


@pytest.mark.parametrize("args", ["garbage", {"cni": []}, {"other": {"ips": 5}}, None, []])
def test_args_of_another_shape_are_somebody_elses(args: object) -> None:
    assert addresses(conf(args=args)) == []
    assert requests.mac(request(), conf(args=args)) == ""


@pytest.mark.parametrize("value", ["10.1.0.1", [5], ["ten"], ["10.1.0.1/99"], {"a": 1}])
def test_what_is_no_address_is_told_with_its_key(value: object) -> None:
    with pytest.raises(InvalidConfig, match=r"runtimeConfig\.ips"):
        addresses(conf(runtimeConfig={"ips": value}))
    with pytest.raises(InvalidConfig, match=r"args\.cni\.ips"):
        addresses(conf(args={"cni": {"ips": value}}))


def test_what_is_no_address_in_the_environment_is_told_as_that() -> None:
    with pytest.raises(InvalidParameter, match="CNI_ARGS"):
        addresses(conf(), IP="ten")
    with pytest.raises(InvalidParameter, match="CNI_ARGS"):
        requests.mac(request(MAC="ten"), conf())


@pytest.mark.parametrize("text", ["0A:58:0a:01:00:06", "0a-58-0A-01-00-06"])
def test_a_mac_is_written_in_one_way(text: str) -> None:
    assert requests.mac(request(), conf(runtimeConfig={"mac": text})) == "0a:58:0a:01:00:06"
    assert requests.mac(request(MAC=text), conf()) == "0a:58:0a:01:00:06"


@pytest.mark.parametrize(
    "value",
    ["01:00:5e:00:00:01", "00:00:00:00:00:00", GATEWAY_MAC, "0a:58:0a-01:00:06", "0a:58", 5, []],
)
def test_a_mac_that_no_pod_can_have_is_told(value: object) -> None:
    with pytest.raises(InvalidConfig, match=r"runtimeConfig\.mac"):
        requests.mac(request(), conf(runtimeConfig={"mac": value}))


def test_dns_of_the_capability_replaces_the_configured() -> None:
    configured = {"dns": {"nameservers": ["10.1.0.53"]}}
    asked = {"Servers": ["10.1.0.54"], "Searches": ["s"], "Options": None}

    assert requests.dns(conf(**configured)) == Dns(("10.1.0.53",))
    assert requests.dns(conf(**configured, runtimeConfig={"dns": asked})) == Dns(
        nameservers=("10.1.0.54",), search=("s",)
    )
    assert requests.dns(conf(**configured, runtimeConfig={"dns": {}})) == Dns(("10.1.0.53",))


@pytest.mark.parametrize("value", ["x", 5, {"servers": "10.1.0.1"}, {"servers": ["ns"]}])
def test_dns_of_a_wrong_shape_is_told(value: object) -> None:
    with pytest.raises(InvalidConfig, match="dns"):
        requests.dns(conf(runtimeConfig={"dns": value}))
