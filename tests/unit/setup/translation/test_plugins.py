# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/plugins.py: each key of each plugin, key by key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pycni.setup.translation.plugins import PLUGINS
from unit.setup.translation.samples import (
    BASH_CNI,
    BRIDGE,
    FLANNEL,
    MINICNI,
    PODCIDR,
    PROTOTYPE,
    finding,
    listed,
    own,
    result,
)

HOST_GW = {key: one for key, one in PROTOTYPE.items() if key != "mode"} | {"bridge": "testcni0"}
IPVLAN = PROTOTYPE | {
    "mode": "ipvlan",
    "subnet": "192.168.64.0/24",
    "ipam": {"rangeStart": "192.168.64.90", "rangeEnd": "192.168.64.100"},
}


def test_the_prototypes_vxlan_becomes_settings_and_a_list() -> None:
    done = result(PROTOTYPE | {"bridge": "testcni0"})

    assert done.settings == (
        'cluster_cidrs = ["10.244.0.0/16"]\nnode_prefix = {ipv4 = 24}\nencap = "auto"\n'
    )
    assert done.network is not None
    assert done.network["name"] == "testcni"
    assert own(done)["type"] == "pycni"
    assert {one.key: one.fate for one in done.findings} == {
        "cniVersion": "becomes",
        "name": "becomes",
        "type": "becomes",
        "mode": "becomes",
        "subnet": "becomes",
        "bridge": "not needed",
    }


@pytest.mark.parametrize(
    ("subnet", "network"),
    [
        ("10.244.0.0", "10.244.0.0/16"),
        ("10.0.0.0", "10.0.0.0/8"),
        ("10.244.3.9/16", "10.244.0.0/16"),
        ("10.244.5.0/24", "10.244.5.0/24"),
        ("fd00:1::/56", "fd00:1::/56"),
    ],
)
def test_the_prototypes_subnet_is_the_clusters(subnet: str, network: str) -> None:
    found = finding(PROTOTYPE | {"subnet": subnet}, "subnet")

    assert found.settings["cluster_cidrs"] == [network]


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        ("10.244.1.0", "prefix length"),
        ("10.244.1.1", "prefix length"),
        ("fd00::", "prefix length"),
        ("0.0.0.0", "prefix length"),
        ("10.244.0.0/25", "no /24 for each node"),
        ("10.244.0.0/33", "is no network"),
        ("::ffff:10.244.0.0/112", "write it as IPv4"),
        ("::ffff:10.244.0.0", "write 10.244.0.0"),
        ("pods", "is no IP address"),
        ("<node-cidr-range>", "is no IP address"),
        (10, "must be text in quotes, not a number"),
        (["10.244.0.0/16"], "must be text in quotes, not a list"),
        ({}, "must be text in quotes, not an object"),
        (True, "must be text in quotes, not true or false"),
    ],
)
def test_a_subnet_of_the_prototype_that_cannot_be_is_refused(subnet: Any, why: str) -> None:
    found = finding(PROTOTYPE | {"subnet": subnet}, "subnet")

    assert found.fate == "refused"
    assert why in found.says


def test_without_mode_the_prototype_routes() -> None:
    found = finding(HOST_GW, "mode")

    assert (found.value, found.fate) == (None, "becomes")
    assert "means host-gw" in found.says


@pytest.mark.parametrize("mode", ["ipvlan", "macvlan"])
def test_the_prototypes_pods_on_the_lan_become_a_list_of_this_node(mode: str) -> None:
    done = result(IPVLAN | {"mode": mode, "mtu": 1400})

    assert done.refused == []
    assert done.settings == ""
    assert own(done) == {
        "type": "pycni",
        "device": mode,
        "ipMasq": False,
        "mtu": 1400,
        "capabilities": own(done)["capabilities"],
        "ipam": {
            "ranges": [
                {
                    "subnet": "192.168.64.0/24",
                    "rangeStart": "192.168.64.90",
                    "rangeEnd": "192.168.64.100",
                }
            ]
        },
    }


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"ipam": {"rangeStart": "192.168.64.90"}}, "subnet", "add rangeStart and rangeEnd"),
        ({"ipam": None}, "subnet", "add rangeStart and rangeEnd"),
        ({"ipMasq": True}, "all keys together", "ipMasq would be"),
        (
            {"subnet": "10.244.0.0/16",
             "ipam": {"rangeStart": "10.244.0.9", "rangeEnd": "10.244.0.12"}},
            "all keys together",
            "not on the LAN",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_on_the_lan_is_refused(change: dict[str, Any], key: str, says: str) -> None:
    found = next(one for one in result(IPVLAN | change).refused if one.key == key)

    assert says in found.says


def test_keys_are_read_in_any_case_as_go_reads_them() -> None:
    done = result({"NAME": "old", "Type": "testcni", "MODE": "vxlan", "Subnet": "10.1.0.0/16"})

    assert done.refused == []
    assert "10.1.0.0/16" in done.settings


def test_null_is_as_if_the_key_were_absent() -> None:
    done = result(PROTOTYPE | {"ipam": None, "bridge": None, "mtu": None})

    assert [one.key for one in done.findings] == list(PROTOTYPE)


@pytest.mark.parametrize("document", [MINICNI, BASH_CNI])
def test_a_tutorials_network_is_the_clusters_and_its_subnet_the_nodes(
    document: dict[str, Any],
) -> None:
    done = result(document)

    assert done.refused == []
    assert done.settings == (
        f'cluster_cidrs = ["{document["network"]}"]\nnode_prefix = {{ipv4 = 24}}\n'
    )


def test_a_tutorials_networks_of_others_are_the_stores() -> None:
    for key in ("nodeSubnets", "nodeAddresses"):
        assert finding(MINICNI, key).fate == "not needed"
        assert "`store`" in finding(MINICNI, key).says


@pytest.mark.parametrize("key", ["podcidr", "subnet"])
def test_a_nodes_part_alone_needs_the_network_around_it(key: str) -> None:
    document = {"type": "bash-cni", key: "10.240.0.0/24"}

    assert "for a single node: --cluster-cidr 10.240.0.0/24" in finding(document, key).says
    assert finding(document, key).fate == "refused"
    assert finding(document, key, "10.240.0.0/16").settings == {"node_prefix": {"ipv4": 24}}
    assert finding(document, key, "fd00::/56").fate == "refused"  # the other family


def test_a_network_that_is_told_beside_the_file_goes_into_the_settings() -> None:
    done = result(PODCIDR, "10.240.0.0/16")

    assert done.settings == 'cluster_cidrs = ["10.240.0.0/16"]\nnode_prefix = {ipv4 = 24}\n'


@pytest.mark.parametrize("told", ["10.240.0.0", "x", "::ffff:10.0.0.0/112"])
def test_a_network_that_is_told_and_is_none_is_refused(told: str) -> None:
    assert finding(PODCIDR, "--cluster-cidr", told).fate == "refused"


def test_a_nodes_part_outside_of_the_network_is_refused() -> None:
    found = finding(BASH_CNI | {"subnet": "10.11.1.0/24"}, "subnet")

    assert "is not in the pods' network 10.10.0.0/16" in found.says


def test_two_parts_that_differ_in_length_are_refused() -> None:
    done = result(BASH_CNI | {"podcidr": "10.10.1.0/25"})

    assert [one.key for one in done.refused] == ["all keys together"]
    assert "node_prefix.ipv4 would be 24 and 25" in done.refused[0].says
    assert (done.settings, done.network) == ("", None)


@pytest.mark.parametrize("kind", ["testcni", "minicni", "bash-cni"])
def test_a_subnet_that_is_missing_is_named(kind: str) -> None:
    found = finding({"type": kind, "mode": "vxlan"}, "subnet")

    assert (found.value, found.fate) == (None, "refused")


def test_a_bridge_and_its_port_maps_become_one_plugin() -> None:
    done = result(listed(BRIDGE, {"type": "portmap", "snat": True}), "10.88.0.0/16")

    assert done.refused == []
    assert done.network is not None
    assert [one["type"] for one in done.network["plugins"]] == ["pycni"]
    assert own(done)["ipMasq"] is True


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_where_pods_keep_their_addresses_they_go_on_to(kind: str) -> None:
    done = result({"type": kind, "name": "n", "cniVersion": "1.0.0"})

    assert own(done)["ipMasq"] is False


@pytest.mark.parametrize(
    ("key", "value", "fate", "says"),
    [
        ("bridge", "cni0", "not needed", "no bridge"),
        ("isGateway", False, "not needed", "always"),
        ("isDefaultGateway", True, "not needed", "always"),
        ("forceAddress", True, "not needed", "gateway"),
        ("hairpinMode", True, "not needed", "no bridge"),
        ("promiscMode", True, "not needed", "no bridge"),
        ("vlan", 0, "not needed", "no VLAN"),
        ("vlan", 7, "refused", "no VLAN"),
        ("vlan", 4095, "refused", "from 0 to 4094"),
        ("vlan", "7", "refused", "whole number, not text"),
        ("vlanTrunk", [{"id": 1}], "refused", "no VLAN"),
        ("preserveDefaultVlan", False, "not needed", "no VLAN"),
        ("macspoofchk", True, "not needed", "own MAC"),
        ("enabledad", True, "not needed", "lease"),
        ("disableContainerInterface", True, "refused", "up"),
        ("disableContainerInterface", False, "not needed", "up"),
        ("portIsolation", True, "refused", "policy"),
        ("portIsolation", 1, "refused", "true or false, not a number"),
        ("ipMasqBackend", "nftables", "not needed", "nftables"),
        ("ipMasq", "yes", "refused", "true or false, not text"),
        ("mtu", 0, "not needed", "uplink"),
        ("mtu", 1500, "not needed", "uplink"),
        ("mtu", 9000, "not needed", "uplink"),
        ("mtu", 1400, "becomes", '"mtu": 1400 in the list'),
        ("mtu", 60, "refused", "from 68"),
        ("mtu", -1, "refused", "from 0"),
        ("mtu", 1400.5, "refused", "whole number"),
        ("mtu", True, "refused", "whole number"),
        ("mtu", 10**30, "refused", "to 65535"),
        ("dns", {"nameservers": ["192.0.2.53"]}, "becomes", '"dns"'),
        ("dns", {"nameservers": ["ns"]}, "refused", "nameservers.0 is wrong"),
        ("dns", {"server": "x"}, "refused", "unknown key server"),
        ("dns", [], "refused", "an object in braces, not a list"),
        ("capabilities", 3, "refused", "an object in braces, not a number"),
        ("name", "a b", "refused", "letter or digit"),
        ("name", 3, "refused", "text in quotes"),
        ("cniVersion", 1.0, "refused", "text in quotes"),
        ("cniVersions", ["1.0.0"], "not needed", "pycni speaks"),
        ("disableGC", True, "becomes", '"disableGC": true in the list'),
        ("disableCheck", "no", "refused", "true or false"),
        ("prevResult", {}, "not needed", "runtime"),
        ("runtimeConfig", {}, "not needed", "runtime"),
        ("ipMask", True, "refused", "unknown key: did you mean ipmasq"),
        ("colour", "red", "refused", "unknown key: remove it"),
    ],
)
def test_a_key_of_bridge(key: str, value: Any, fate: str, says: str) -> None:
    document = {"type": "bridge", "name": "n", "cniVersion": "1.0.0"} | {key: value}

    found = finding(document, key)

    assert (found.fate, found.value) == (fate, value)
    assert says in found.says


def test_capabilities_that_pycni_has_go_on_and_others_are_refused() -> None:
    document = PROTOTYPE | {"capabilities": {"mac": True, "testConfig": True, "x": False}}

    assert finding(document, "capabilities.mac").fate == "not needed"
    assert finding(document, "capabilities.x").fate == "not needed"
    assert "no such capability" in finding(document, "capabilities.testConfig").says


def test_flannels_list_becomes_one_without_settings() -> None:
    done = result(FLANNEL)

    assert (done.refused, done.settings) == ([], "")
    assert own(done)["ipMasq"] is True
    assert "net-conf.json" in finding(FLANNEL, "plugins[0].type").says


@pytest.mark.parametrize("hidden", [True, False])
def test_pods_that_flannels_daemon_hides_stay_hidden(hidden: bool) -> None:
    document = {"type": "flannel", "name": "n", "delegate": {"ipMasq": hidden}}

    assert own(result(document))["ipMasq"] is True
    assert ("--ip-masq" in finding(document, "delegate.ipMasq").says) == (not hidden)


def test_what_flannel_hands_to_ipvlan_is_refused() -> None:
    document = {"type": "flannel", "delegate": {"type": "ipvlan", "master": "eth0"}}

    found = finding(document, "delegate.type")

    assert found.fate == "refused"
    assert '"type": "bridge"' in found.says


@pytest.mark.parametrize("delegate", [[], "bridge", {"vlan": 4}, {"type": 3}, {"x": 1}])
def test_what_flannel_hands_on_is_read_as_the_bridge_would(delegate: Any) -> None:
    assert result({"type": "flannel", "delegate": delegate}).refused


@pytest.mark.parametrize(("kind", "mode"), [("ipvlan", "l3"), ("macvlan", "bridge")])
def test_plugins_on_the_lan_keep_master_mode_and_ipam(kind: str, mode: str) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]}

    done = result({"name": "lan", "type": kind, "master": "eth0", "mode": mode, "ipam": ipam})

    assert done.refused == []
    found = own(done)
    assert (found["device"], found["master"], found["mode"]) == (kind, "eth0", mode)
    assert (found["ipam"], found["ipMasq"]) == (ipam, False)


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"mode": "passthru"}, "mode", "there is bridge"),
        ({"type": "ipvlan", "mode": "l3s"}, "mode", "there is l2, l3"),
        ({"ipam": None}, "ipam", "missing"),
        ({"ipam": {}}, "ipam", "need addresses"),
        ({"type": "ipvlan", "ipam": {"type": "dhcp"}}, "all keys together", "DHCP"),
        ({"linkInContainer": True}, "linkInContainer", "of the node"),
        ({"mtu": -1}, "mtu", "from 0"),
    ],
)
def test_what_plugins_on_the_lan_have_and_pycni_has_not_is_refused(
    change: dict[str, Any], key: str, says: str
) -> None:
    document = {"type": "macvlan", "master": "eth0", "ipam": {"type": "host-local"}} | change

    found = next(one for one in result(document).refused if one.key == key)

    assert says in found.says


def test_a_key_twice_in_other_capitals_is_refused() -> None:
    done = result(PROTOTYPE | {"Subnet": "10.1.0.0/16"})

    assert "has the key Subnet twice" in done.refused[0].says


VALUES = [True, 0, -1, 10**30, 1.5, "", "x", "\ud800", "::ffff:1.2.3.4", "10.0.0.0/8", "fe80::1%1",
          [], [[]], [None], ["10.0.0.0/8"], {}, {"a": 1}, {"type": []}, {"subnet": 3}]  # fmt: skip


@pytest.mark.parametrize("kind", PLUGINS)
def test_no_value_of_any_key_is_a_surprise(kind: str) -> None:
    for key in {"ipam", "name", *PLUGINS[kind].rules} - {"type"}:
        for value in VALUES:
            done = result({"type": kind, "mode": "vxlan", "name": "n", key: value})

            assert all(one.says for one in done.findings)
            json.dumps([one.says for one in done.findings])
