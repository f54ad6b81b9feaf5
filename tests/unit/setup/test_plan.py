# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/plan.py: what a host becomes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from loader.probe import Feature
from pycni.errors import InvalidSettings, SetupError
from pycni.node.record import Node
from pycni.node.underlay import Underlay
from pycni.node.uplink import Uplink
from pycni.settings import Settings
from pycni.setup import plan
from pycni.setup.plan import Host, choose_encap
from pycni.stores import NodeRecord

ABLE = [Feature("own_encap", True, "", "")]
UNABLE = [Feature("own_encap", False, "the kernel refuses it", "the device carries all")]

UPLINK = Uplink("eth0", 2, 1500, ip_address("192.0.2.1"))
UPLINK6 = Uplink("eth0", 2, 1500, ip_address("2001:db8::1"))
RECORD = NodeRecord("one", 1, UPLINK.vtep, (ip_network("10.244.0.0/24"),))
AROUND = Underlay({}, (), ())
NOW = 1_700_000_000.0
SWITCH = "net/ipv4/conf/eth0/forwarding"


def settings(**changes: object) -> Settings:
    return Settings.model_validate(
        {"node_name": "one", "cluster_cidrs": ["10.244.0.0/16"], **changes}
    )


def host(*, before: Node | None = None, needs_bpffs: bool = False) -> Host:
    return Host(ABLE, UPLINK, AROUND, needs_bpffs=needs_bpffs, before=before)


def test_a_node_is_what_store_uplink_and_kernel_say() -> None:
    node = plan.node(settings(), host(), RECORD, {SWITCH: "0"}, now=NOW)

    assert (node.name, node.node_id, node.vtep, node.pod_cidrs) == (
        RECORD.name,
        RECORD.node_id,
        RECORD.vtep,
        RECORD.pod_cidrs,
    )
    assert (node.uplink, node.mtu, node.encap) == ("eth0", 1450, "ebpf")
    assert node.sysctls == {SWITCH: "0"}


def test_what_the_first_setup_found_is_what_teardown_restores() -> None:
    first = plan.node(settings(), host(needs_bpffs=True), RECORD, {SWITCH: "0"}, now=NOW)

    again = plan.node(settings(), host(before=first), RECORD, {SWITCH: "1", "other": "5"}, now=NOW)

    assert again.sysctls == {SWITCH: "0", "other": "5"}
    assert again.mounted_bpffs


@pytest.mark.parametrize(("uplink", "mtu"), [(UPLINK, 1450), (UPLINK6, 1430)])
def test_the_mtu_is_the_largest_that_fits_unless_the_settings_name_one(
    uplink: Uplink, mtu: int
) -> None:
    assert plan.overlay_mtu(settings(), uplink) == mtu
    assert plan.overlay_mtu(settings(mtu=1400), uplink) == 1400


def test_an_mtu_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="does not fit the uplink eth0") as caught:
        plan.overlay_mtu(settings(mtu=1451), UPLINK)

    assert "1450" in caught.value.details


def test_vteps_of_two_families_are_refused() -> None:
    other = replace(RECORD, name="two", vtep=UPLINK6.vtep)

    plan.refuse_mixed_underlay(RECORD, [replace(other, vtep=ip_address("192.0.2.2"))])
    with pytest.raises(SetupError, match="node two is 2001:db8::1"):
        plan.refuse_mixed_underlay(RECORD, [other])


def test_the_programs_are_told_what_the_kernel_can_do() -> None:
    node = plan.node(settings(), host(), RECORD, {}, now=NOW)
    features = [*ABLE, Feature("netkit", True, "", ""), Feature("decap_l3", False, "no", "")]

    config = plan.config(settings(), node, features, device=7)

    assert (config.stack_ifindex, config.vxlan_ifindex) == (7, 7)
    assert (config.own_encap, config.netkit, config.decap_l3) == (True, True, False)


@pytest.mark.parametrize(
    ("wanted", "features", "encap"),
    [
        ("auto", ABLE, "ebpf"),
        ("auto", UNABLE, "kernel"),
        ("ebpf", ABLE, "ebpf"),
        ("kernel", ABLE, "kernel"),
        ("kernel", UNABLE, "kernel"),
    ],
)
def test_settings_and_kernel_choose(wanted: str, features: list[Feature], encap: str) -> None:
    settings = Settings.model_validate({"node_name": "one", "encap": wanted})

    assert choose_encap(settings, features) == encap


def test_what_the_kernel_cannot_do_is_not_silently_something_else() -> None:
    settings = Settings(node_name="one", encap="ebpf")

    with pytest.raises(SetupError, match="does not let programs encapsulate") as caught:
        choose_encap(settings, UNABLE)

    assert caught.value.details == "the kernel refuses it"
    assert "auto" in caught.value.hint


def test_maps_of_services_are_as_small_as_can_be_where_they_are_off() -> None:
    off = plan.service_sizes(Settings(node_name="one"), memory=8 << 30, processors=2)

    assert set(off.values()) == {0}
    assert off.keys() == sizes_of_services(8 << 30, 2).keys()


@pytest.mark.parametrize(
    ("memory", "processors", "flows"),
    [(8 << 30, 2, 1 << 17), (1 << 30, 2, 1 << 14), (1 << 40, 2, 1 << 19), (1 << 30, 64, 1 << 16)],
)
def test_the_table_of_flows_is_as_large_as_the_host(
    memory: int, processors: int, flows: int
) -> None:
    """S-118, S-124"""
    assert sizes_of_services(memory, processors)["flows"] == flows


def sizes_of_services(memory: int, processors: int) -> dict[str, int]:
    settings = Settings(node_name="one", services="pods")
    return plan.service_sizes(settings, memory=memory, processors=processors)


def test_maps_have_room_for_twice_the_nodes_that_there_are() -> None:
    others = [replace(RECORD, name=f"n{n}", extra=(ip_network("10.9.9.9/32"),)) for n in range(100)]

    sizes = plan.map_sizes(others)

    assert sizes == {"vteps": 256, "nexthops": 256, "remotes": 512}
    assert min(plan.map_sizes([]).values()) >= 1


def test_a_new_node_has_the_pod_cidrs_that_its_settings_give_it():
    given = (ip_network("10.244.9.0/24"),)

    assert plan.former(None, [], given=given).pod_cidrs == given


def test_a_node_that_has_other_pod_cidrs_than_its_settings_say_is_refused():
    before = plan.node(settings(), host(), RECORD, {}, now=NOW)

    assert plan.former(before, [], given=before.pod_cidrs).pod_cidrs == before.pod_cidrs
    with pytest.raises(InvalidSettings, match=r"this node has 10\.244\.0\.0/24") as caught:
        plan.former(before, [], given=(ip_network("10.244.9.0/24"),))

    assert "pycni teardown" in caught.value.hint
