"""pycni/cni/result.py, result_reader.py: the result of ADD in each version of the specification."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from pycni.cni.plugin import VERSIONS
from pycni.cni.result import (
    Address,
    Dns,
    Interface,
    Result,
    Route,
    to_json,
)
from pycni.cni.result_reader import from_json
from pycni.errors import DecodingError, IncompatibleVersion

NETNS = "/var/run/netns/cni-5d2b6a"
HOST_END = Interface("pcn1a2b3c4d5e6f", mac="02:70:79:63:6e:69")
POD_END = Interface("eth0", mac="0a:58:0a:01:00:06", sandbox=NETNS)
POD_FOUR = Address(ip_interface("10.1.0.5/24"), ip_address("10.1.0.1"), interface=1)
POD_SIX = Address(ip_interface("fd00:1::5/64"), ip_address("fd00:1::1"), interface=1)
ROUTE_FOUR = Route(ip_network("0.0.0.0/0"))
ROUTE_SIX = Route(ip_network("::/0"), ip_address("fd00:1::1"))
DNS = Dns(nameservers=("10.1.0.1",), search=("svc.local",))

DUAL = Result((HOST_END, POD_END), (POD_FOUR, POD_SIX), (ROUTE_FOUR, ROUTE_SIX), DNS)

OLD = {
    "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
    "ip6": {
        "ip": "fd00:1::5/64",
        "gateway": "fd00:1::1",
        "routes": [{"dst": "::/0", "gw": "fd00:1::1"}],
    },
    "dns": {"nameservers": ["10.1.0.1"], "search": ["svc.local"]},
}
NEW: dict[str, Any] = {
    "interfaces": [
        {"name": "pcn1a2b3c4d5e6f", "mac": "02:70:79:63:6e:69"},
        {"name": "eth0", "mac": "0a:58:0a:01:00:06", "sandbox": NETNS},
    ],
    "ips": [
        {"interface": 1, "address": "10.1.0.5/24", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "fd00:1::5/64", "gateway": "fd00:1::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00:1::1"}],
    "dns": {"nameservers": ["10.1.0.1"], "search": ["svc.local"]},
}
MIDDLE = NEW | {
    "ips": [{"version": "4", **NEW["ips"][0]}, {"version": "6", **NEW["ips"][1]}],
}
BODIES = {
    "0.1.0": OLD,
    "0.2.0": OLD,
    "0.3.0": MIDDLE,
    "0.3.1": MIDDLE,
    "0.4.0": MIDDLE,
    "1.0.0": NEW,
    "1.1.0": NEW,
}
DETAILS = {
    "interfaces": [{"name": "eth0", "mtu": 1450, "socketPath": "/run/x", "pciID": "0000:00:1f.6"}],
    "routes": [
        {"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1360, "priority": 9, "table": 254, "scope": 0}
    ],
}


def test_every_version_has_an_example():
    assert tuple(BODIES) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_is_told_as_the_specification_has_it(version):
    assert to_json(DUAL, version) == {"cniVersion": version, **BODIES[version]}


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_a_result_survives_the_way_out_and_back(version):
    assert from_json(to_json(DUAL, version), version) == DUAL


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_old_form_keeps_addresses_routes_and_dns_only(version):
    back = from_json(to_json(DUAL, version), version)

    assert back == Result(
        ips=(
            Address(POD_FOUR.address, POD_FOUR.gateway),
            Address(POD_SIX.address, POD_SIX.gateway),
        ),
        routes=(ROUTE_FOUR, ROUTE_SIX),
        dns=DNS,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_empty_parts_are_left_out(version):
    only_four = Result(ips=(Address(ip_interface("10.1.0.5/32")),))

    told = to_json(only_four, version)

    if version in ("0.1.0", "0.2.0"):
        assert told == {"cniVersion": version, "ip4": {"ip": "10.1.0.5/32"}}
    elif version in ("1.0.0", "1.1.0"):
        assert told == {"cniVersion": version, "ips": [{"address": "10.1.0.5/32"}]}
    else:
        ip = {"version": "4", "address": "10.1.0.5/32"}
        assert told == {"cniVersion": version, "ips": [ip]}


def test_the_old_form_has_the_first_address_of_a_family_and_no_route_of_another():
    second = Address(ip_interface("10.1.0.9/24"))

    told = to_json(Result(ips=(POD_FOUR, second), routes=(ROUTE_FOUR, ROUTE_SIX)), "0.2.0")

    assert told == {"cniVersion": "0.2.0", "ip4": OLD["ip4"]}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_old_form_without_any_address_is_an_error(version):
    with pytest.raises(IncompatibleVersion):
        to_json(Result(interfaces=(POD_END,)), version)


@pytest.mark.parametrize(
    ("document", "config_version"),
    [
        pytest.param(NEW, "1.0.0", id="no version: the configuration's"),
        pytest.param({"cniVersion": "0.4.0", **MIDDLE}, "1.0.0", id="its own version wins"),
        pytest.param({"CNIVersion": "0.4.0", **MIDDLE}, "1.0.0", id="version in another case"),
        pytest.param({"cniVersion": None, **NEW}, "1.0.0", id="version null"),
        pytest.param(
            {key.upper(): value for key, value in NEW.items()}, "1.0.0", id="keys in another case"
        ),
        pytest.param({**NEW, "other": 1}, "1.0.0", id="unknown keys"),
    ],
)
def test_a_previous_result_is_read_in_its_version(document, config_version):
    assert from_json(document, config_version) == DUAL


def test_a_result_without_any_version_is_in_the_oldest():
    assert from_json({"ip4": {"ip": "10.1.0.5/24"}}, "").ips[0].address == POD_FOUR.address


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"dns": {}, "ips": None}, id="old go prints empty dns"),
        pytest.param({}, id="empty"),
    ],
)
def test_absent_parts_are_empty(document):
    assert from_json(document, "1.0.0") == Result()


def test_an_empty_gateway_is_none_and_host_bits_of_a_route_are_dropped():
    document = {
        "ips": [{"address": "10.1.0.5/24", "gateway": ""}],
        "routes": [{"dst": "10.9.8.7/16", "gw": ""}],
    }

    read = from_json(document, "1.0.0")

    assert read.ips[0].gateway is None
    assert read.routes == (Route(ip_network("10.9.0.0/16")),)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="no object"),
        pytest.param("result", id="text"),
        pytest.param({"cniVersion": 1}, id="version is a number"),
        pytest.param({"ips": {}}, id="ips is an object"),
        pytest.param({"ips": ["10.1.0.5/24"]}, id="an ip is text"),
        pytest.param({"ips": [{"address": "10.1.0.5"}]}, id="an address without prefix length"),
        pytest.param(
            {"ips": [{"address": "10.1.0.5/255.255.255.0"}]}, id="an address with a netmask"
        ),
        pytest.param({"ips": [{"interface": 0}]}, id="no address"),
        pytest.param({"ips": [{"address": "10.1.0.500/24"}]}, id="no such address"),
        pytest.param(
            {"ips": [{"address": "10.1.0.5/24", "gateway": "gw"}]}, id="gateway is no address"
        ),
        pytest.param({"ips": [{"address": "10.1.0.5/24", "gateway": 1}]}, id="gateway is a number"),
        pytest.param({"ips": [{"address": "10.1.0.5/24", "interface": 0}]}, id="index too high"),
        pytest.param(
            NEW | {"ips": [{"address": "10.1.0.5/24", "interface": -1}]}, id="index below 0"
        ),
        pytest.param(
            NEW | {"ips": [{"address": "10.1.0.5/24", "interface": True}]}, id="index is true"
        ),
        pytest.param({"routes": [{"dst": "everywhere"}]}, id="route is no network"),
        pytest.param({"dns": {"nameservers": [1]}}, id="nameserver is a number"),
        pytest.param({"dns": []}, id="dns is a list"),
        pytest.param({"interfaces": [{"name": 1}]}, id="interface name is a number"),
    ],
)
def test_what_is_no_result_cannot_be_decoded(document):
    with pytest.raises(DecodingError, match="prevResult is no CNI result"):
        from_json(document, "1.0.0")


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ({"ips": [{"address": "10.1.0.5"}]}, "ips.0.address: "),
        ({"interfaces": [{"name": "eth0", "pciID": 5}]}, "interfaces.0.pciID: "),
        ({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "gw"}]}, "routes.1.gw: "),
        ({"dns": {"search": [5]}}, "dns.search.0: "),
        ([], "the document: "),
    ],
)
def test_an_error_says_which_part_is_wrong_and_what_it_is(document, part):
    with pytest.raises(DecodingError) as caught:
        from_json(document, "1.0.0")

    assert caught.value.details.startswith(part)
    assert "found " in caught.value.details


@pytest.mark.parametrize("gateway", [0, False, [], {}])
def test_a_gateway_that_is_no_text_is_not_an_empty_one(gateway):
    with pytest.raises(DecodingError, match="no CNI result"):
        from_json({"ips": [{"address": "10.1.0.5/24", "gateway": gateway}]}, "1.0.0")


def test_a_result_of_an_unknown_version_is_refused():
    with pytest.raises(IncompatibleVersion):
        from_json({"cniVersion": "9.9.9"}, "1.0.0")


def test_a_chained_result_comes_behind_the_previous_one_with_its_indices_shifted():
    dummy = Interface("dummy0", sandbox=NETNS)
    previous = Result(
        (dummy,), (Address(ip_interface("192.0.2.1/32"), interface=0),), dns=Dns(domain="old")
    )

    chained = Result((HOST_END, POD_END), (POD_FOUR,), (ROUTE_FOUR,)).after(previous)

    assert chained.interfaces == (dummy, HOST_END, POD_END)
    assert [one.interface for one in chained.ips] == [0, 2]
    assert chained.routes == (ROUTE_FOUR,)
    assert chained.dns == Dns(domain="old")


def test_our_dns_replaces_the_previous_one():
    assert DUAL.after(Result(dns=Dns(domain="old"))).dns == DNS


def test_mtu_metrics_table_and_scope_are_told_since_1_1_0_only():
    result = from_json(DETAILS, "1.1.0")

    assert to_json(result, "1.1.0") == {"cniVersion": "1.1.0", **DETAILS}
    assert to_json(result, "1.0.0") == {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


@pytest.mark.parametrize("value", ["1400", -1, 1.5, True])
def test_a_number_that_is_none_is_told(value):
    with pytest.raises(DecodingError, match="no CNI result"):
        from_json({"interfaces": [{"name": "eth0", "mtu": value}]}, "1.1.0")
