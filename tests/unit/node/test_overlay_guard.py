# SPDX-License-Identifier: Apache-2.0
"""What the guard's table says; what it does is tested in namespaces."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.node import overlay_guard
from pycni.node.record import Node
from pycni.settings import Settings

SETTINGS = Settings(node_name="node1")
VTEP, VTEP6 = ip_address("198.18.0.1"), ip_address("fd00:99::1")
NODE = Node(
    name="node1",
    node_id=1,
    vtep=VTEP,
    pod_cidrs=(ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
    cluster_cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    uplink="eth0",
    mtu=1450,
    port=4789,
)
OTHERS = frozenset({ip_address("198.18.0.2"), ip_address("fd00:99::2")})


def rules(chain, *, settings=SETTINGS, node=NODE):
    table = overlay_guard.wanted(settings, node, OTHERS)
    (found,) = (one for one in table.chains if one.name == chain)
    return found.rules


def test_only_the_vtep_takes_vxlan() -> None:
    assert rules("vxlan_input")[-2:] == (
        "ip daddr 198.18.0.1 return",
        "counter name vxlan_elsewhere drop",
    )
    assert rules("vxlan_input", node=replace(NODE, vtep=VTEP6))[-2] == "ip6 daddr fd00:99::1 return"


def test_the_port_is_the_settings() -> None:
    assert rules("input", node=replace(NODE, port=8472))[0] == (
        "meta l4proto udp th dport 8472 jump vxlan_input"
    )


def test_processes_are_told_by_owner_and_mark() -> None:
    assert rules("postrouting")[:2] == (
        'oifname "pycni0" meta mark set meta mark | 0x20000000',
        'meta skuid >= 0 meta l4proto udp th dport 4789 oifname != "pycni0" '
        "meta mark & 0x20000000 == 0 counter name vxlan_of_process drop",
    )


def test_ipip_is_guarded_where_nodes_send_it() -> None:
    """Also that of nodes, which another rule would accept."""
    takes = replace(NODE, ipip=True, vtep=VTEP6)

    for number, protocol in enumerate((4, 41)):
        kind = f"meta l4proto {protocol}"
        assert rules("input", node=takes)[number] == f"{kind} jump ipip_input"
        assert rules("output", node=takes)[number] == (
            f'{kind} oifname != "pycni0" ip6 daddr @nodes6 counter name ipip_of_process drop'
        )
    assert rules("ipip_input", node=takes)[-1] == (
        "ip6 daddr fd00:99::1 counter name ipip_not_taken drop"
    )


def test_where_nodes_do_not_send_ipip_it_is_nobodys_business() -> None:
    table = overlay_guard.wanted(SETTINGS, NODE, OTHERS)

    assert "l4proto 4" not in str(table.chains)
    assert not any(chain.name.startswith("ipip") for chain in table.chains)
    assert "output" not in {chain.name for chain in table.chains}


def test_a_setting_leaves_processes_alone() -> None:
    lenient = Settings(node_name="node1", vxlan_by_kernel_only=False)

    (only,) = rules("postrouting", settings=lenient)
    assert overlay_guard.BY_NAT in only


@pytest.mark.parametrize(
    ("vtep", "first"),
    [
        (VTEP, "ip daddr 198.18.0.1 ip saddr @nodes4 ip saddr != 10.244.0.0/16"),
        (VTEP6, "ip6 daddr fd00:99::1 ip6 saddr @nodes6 ip6 saddr != fd00:10:244::/56"),
    ],
)
def test_what_other_nodes_send_to_the_vtep_meets_one_rule(vtep, first) -> None:
    node = replace(NODE, vtep=vtep)

    assert rules("prerouting", node=node)[0] == f"{first} accept"


def test_what_comes_from_pods_meets_no_rule_about_others() -> None:
    said = rules("prerouting")
    last = said.index('iifname "pcn*" goto from_pods')
    assert said[last - 1] == 'iifname "pycni0" goto from_pods'

    assert not any("drop" in rule for rule in said[:last])
    assert all("drop" in rule for rule in said[last + 1 :])


def test_what_nobody_takes_is_rejected_before_all_else_of_pods() -> None:
    node = replace(NODE, cluster_cidrs=NODE.cluster_cidrs[:1])
    silent = Settings(node_name="node1", answer_unreachable=False)

    kept = 'iifname "pcn*" ip daddr 10.244.0.0/16 fib daddr type != local notrack'

    assert [rule.split()[3] for rule in rules("from_pods", node=node)] == ["reject", "daddr"]
    assert rules("from_pods", node=node, settings=silent) == (kept,)


def test_errors_about_what_programs_sent_are_not_tracked_whoever_sends_them() -> None:
    """Another node may be the router."""
    first, second, *_ = rules("prerouting", node=replace(NODE, encap="ebpf"))

    assert first.startswith("icmp type destination-unreachable")
    assert second.endswith("accept")


def test_a_cluster_of_one_family_has_rules_for_one() -> None:
    node = replace(NODE, cluster_cidrs=NODE.cluster_cidrs[:1])

    assert not any("ip6" in rule for rule in rules("prerouting", node=node))


def test_the_sets_have_the_other_nodes_by_family() -> None:
    sets = overlay_guard.wanted(SETTINGS, NODE, OTHERS).sets

    assert {one.name: set(one.addresses) for one in sets} == {
        "nodes4": {ip_address("198.18.0.2")},
        "nodes6": {ip_address("fd00:99::2")},
    }


def test_what_a_bridge_passes_on_is_judged_behind_the_bridge() -> None:
    assert all('iifkind != "bridge"' in rule for rule in rules("prerouting") if "drop" in rule)
    assert rules("forward")[-1] == 'meta iifkind "bridge" meta oifkind != "bridge" jump bridged'


def test_a_node_that_is_not_loaded_knows_no_nodes(tmp_path) -> None:
    assert overlay_guard.known_nodes(tmp_path) is None


@pytest.mark.parametrize(("known", "sets"), [(OTHERS, 2), (frozenset(), 2), (None, 0)])
def test_sets_are_no_fault_while_a_map_that_they_are_a_copy_of_is_not_pinned(
    monkeypatch: pytest.MonkeyPatch, known, sets
) -> None:
    compared = []
    monkeypatch.setattr(overlay_guard, "known_nodes", lambda _: known)
    monkeypatch.setattr(
        overlay_guard.nft_table, "differences", lambda table, **_: compared.append(table) or []
    )

    assert overlay_guard.faults(SETTINGS, NODE) == []
    assert len(compared[0].sets) == sets
    assert compared[0].chains
