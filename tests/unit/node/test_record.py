# SPDX-License-Identifier: Apache-2.0
"""The node's record: written once, read by every ADD."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.errors import InvalidConfig, NotAvailable
from pycni.node.record import Node, record_path
from pycni.settings import Settings

DUAL = Node(
    name="node-one",
    node_id=1,
    vtep=ip_address("192.0.2.1"),
    pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
    cluster_cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    uplink="eth0",
    mtu=1450,
    port=4789,
    sysctls={"net/ipv4/conf/eth0/forwarding": "0"},
    mounted_bpffs=True,
)
BLOCK = ip_network("10.244.7.0/24")
NESTED = "[" * 100_000
"""Deeper than Python follows."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="node-one", state_dir=tmp_path / "state", run_dir=tmp_path / "run")


def test_a_record_comes_back_as_it_was_saved(settings: Settings) -> None:
    DUAL.save(settings)

    assert Node.load(settings) == DUAL


def test_further_blocks_come_back_and_a_record_of_before_has_none(settings: Settings) -> None:
    grown = replace(DUAL, blocks=(BLOCK,))
    grown.save(settings)
    assert Node.load(settings) == grown
    assert grown.networks == (*DUAL.pod_cidrs, BLOCK)
    assert grown.gateways == DUAL.gateways

    document = json.loads(record_path(settings).read_text())
    del document["blocks"]
    record_path(settings).write_text(json.dumps(document))

    assert Node.load(settings) == DUAL


def test_keys_of_a_later_version_are_ignored(settings: Settings) -> None:
    """So that this version can be installed again over it."""
    DUAL.save(settings)
    text = record_path(settings).read_text()
    record_path(settings).write_text(text.replace("{", '{"later": {"x": 1},', 1))

    assert Node.load(settings) == DUAL


def test_the_record_is_readable_by_its_owner_only(settings: Settings) -> None:
    DUAL.save(settings)

    assert record_path(settings).stat().st_mode & 0o777 == 0o600
    assert settings.state_dir.stat().st_mode & 0o777 == 0o700


def test_a_node_never_set_up_says_what_to_run(settings: Settings) -> None:
    with pytest.raises(NotAvailable) as caught:
        Node.load(settings)

    assert str(record_path(settings)) in caught.value.message
    assert caught.value.hint == "run: pycni setup"
    assert Node.load_if_any(settings) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "x"}', '{"vtep": 5}', NESTED])
def test_a_broken_record_is_an_error_and_no_node(settings: Settings, content: str) -> None:
    DUAL.save(settings)
    record_path(settings).write_text(content)

    with pytest.raises(NotAvailable) as caught:
        Node.load(settings)

    assert str(record_path(settings)) in caught.value.message


def test_the_gateways_are_the_first_addresses_of_the_pod_cidrs() -> None:
    assert DUAL.gateways == (ip_address("10.244.1.1"), ip_address("fd00:10:244:1::1"))


def test_pods_have_the_nodes_mtu_or_a_smaller_one() -> None:
    assert DUAL.pod_mtu(None) == 1450
    assert DUAL.pod_mtu(1400) == 1400


@pytest.mark.parametrize("wanted", [1279, 1451])
def test_an_mtu_the_node_cannot_give_is_refused_with_the_bounds(wanted: int) -> None:
    with pytest.raises(InvalidConfig) as caught:
        DUAL.pod_mtu(wanted)

    assert "from 1280 to 1450" in caught.value.details
