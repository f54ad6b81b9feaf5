# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/network_lists.py: lists of others beside ours, their order and their ranges."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.network_lists import first_of_others, read_all, users, warnings
from pycni.settings import Settings

CLUSTER = Settings(node_name="one").cluster
OURS = "10-pycni.conflist"


def put(directory: Path, name: str, document: Any) -> Path:
    path = directory / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def bridge(**ipam: Any) -> dict[str, Any]:
    return {"name": "other", "plugins": [{"type": "bridge", "ipam": {"type": "x", **ipam}}]}


def warned(directory: Path) -> list[str]:
    return warnings(directory / OURS, CLUSTER, plugin="pycni")


def test_files_are_read_in_the_order_of_the_runtime(tmp_path: Path) -> None:
    for name in ("b.conf", "a.conflist", "c.json", "d.bak", ".hidden", "e.conflist.new"):
        put(tmp_path, name, {})

    assert [one.path.name for one in read_all(tmp_path)] == ["a.conflist", "b.conf", "c.json"]


def test_a_directory_that_is_not_there_has_no_lists(tmp_path: Path) -> None:
    assert read_all(tmp_path / "net.d") == []


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"plugins": 3}', '{"plugins": [3]}', "", "[" * 100_000]
)
def test_a_file_that_is_no_list_uses_nothing(tmp_path: Path, text: str) -> None:
    put(tmp_path, "x.conflist", text)

    assert users(tmp_path, "pycni") == []


def test_a_pipe_among_the_lists_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "10-pipe.conf")

    (one,) = read_all(tmp_path)

    assert one.plugins == ()


def test_users_of_a_plugin_are_found_in_lists_and_in_single_networks(tmp_path: Path) -> None:
    single = put(tmp_path, "a.conf", {"type": "pycni"})
    chained = put(tmp_path, "b.conflist", {"plugins": [{"type": "pycni"}, {"type": "portmap"}]})
    put(tmp_path, "c.conflist", bridge())

    assert users(tmp_path, "pycni") == [single, chained]


def test_a_list_that_sorts_before_ours_is_said_by_name(tmp_path: Path) -> None:
    before = put(tmp_path, "05-cilium.conflist", "{")
    put(tmp_path, OURS, {})
    put(tmp_path, "87-podman-bridge.conflist", bridge(subnet="192.0.2.0/24"))

    (text,) = warned(tmp_path)

    assert text.startswith(f"{before} sorts before {OURS}")
    assert first_of_others(tmp_path / OURS) == before
    before.unlink()
    assert first_of_others(tmp_path / OURS) is None


@pytest.mark.parametrize("kind", ["multus", "multus-shim"])
def test_multus_goes_first_on_purpose(tmp_path: Path, kind: str) -> None:
    """It calls our plugin by our list, whatever else is there."""
    put(tmp_path, "00-multus.conf", {"cniVersion": "1.0.0", "name": "all", "type": kind})

    assert warned(tmp_path) == []
    assert first_of_others(tmp_path / OURS) is None
    other = put(tmp_path, "05-other.conflist", bridge())
    assert first_of_others(tmp_path / OURS) == other


def test_networks_have_names(tmp_path: Path) -> None:
    put(tmp_path, "a.conflist", bridge())
    put(tmp_path, "b.conflist", {"name": ["no", "text"], "plugins": []})
    put(tmp_path, "c.conflist", "no JSON")

    assert [one.network for one in read_all(tmp_path)] == ["other", "", ""]


@pytest.mark.parametrize(
    "ipam",
    [
        {"ranges": [[{"subnet": "10.244.3.0/24"}]]},
        {"subnet": "10.0.0.0/8"},
        {"addresses": [{"address": "10.244.0.9/24"}]},
        {"ipv4_pools": ["10.244.0.0/16"]},
        {"range": "10.244.0.128/25"},
        {"subnet": "fd00:10:244:7::/64"},
    ],
    ids=str,
)
def test_a_range_that_overlaps_the_cluster_is_said(tmp_path: Path, ipam: dict[str, Any]) -> None:
    other = put(tmp_path, "20-other.conflist", bridge(**ipam))

    (text,) = warned(tmp_path)

    assert str(other) in text
    assert "overlaps" in text


@pytest.mark.parametrize(
    "ipam",
    [
        {"subnet": "10.88.0.0/16"},
        {"routes": [{"dst": "10.244.0.0/16"}]},
        {"routes": [{"dst": "0.0.0.0/0"}], "subnet": "192.0.2.0/24"},
        {"subnet": "usePodCidr"},
        {"dataDir": "/run/10.244.0.0/16"},
    ],
    ids=str,
)
def test_what_gives_no_address_of_the_cluster_is_no_fault(
    tmp_path: Path, ipam: dict[str, Any]
) -> None:
    put(tmp_path, "20-other.conflist", bridge(**ipam))

    assert warned(tmp_path) == []


def test_ranges_of_our_own_plugin_are_no_fault(tmp_path: Path) -> None:
    put(tmp_path, "20-second.conflist",
        {"plugins": [{"type": "pycni", "ipam": {"ranges": ["10.244.9.0/24"]}}]})  # fmt: skip

    assert warned(tmp_path) == []
