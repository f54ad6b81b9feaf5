# SPDX-License-Identifier: Apache-2.0
"""pycni/node/last_list.py: the nodes that a node heard of last, and what is believed of a file."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.node import last_list
from pycni.settings import Settings
from pycni.stores import NodeRecord

ONE, TWO = (
    NodeRecord(
        name,
        number,
        ip_address("192.0.2.0") + number,
        (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number}::/64")),
        (ip_network(f"10.215.0.{number}/32"),),
        (ip_address("192.0.2.0") + number, ip_address("2001:db8::") + number),
    )
    for number, name in enumerate(("one", "two"), 1)
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", state_dir=tmp_path, store="etcd://192.0.2.9:2379")


def test_a_list_is_read_as_it_was_saved_and_closed_to_others(settings: Settings) -> None:
    last_list.save(settings, [TWO, ONE])

    assert last_list.load(settings) == (ONE, TWO)
    assert last_list.list_path(settings).stat().st_mode & 0o777 == 0o600


def test_there_may_be_none(settings: Settings) -> None:
    assert last_list.load(settings) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"node_name": "two"},
        {"store": "etcd://192.0.2.8:2379"},
        {"vni": 8},
        {"cluster_cidrs": (ip_network("10.0.0.0/8"),)},
    ],
)
def test_a_list_of_another_node_store_or_cluster_is_none(
    settings: Settings, change: dict[str, object]
) -> None:
    last_list.save(settings, [ONE, TWO])

    assert last_list.load(settings.model_copy(update=change)) == ()


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"{}", b"nonsense", b"[" * 100_000, b"[]\n[]", b"{}\n[1]"]
)
def test_a_file_that_is_no_list_is_none(settings: Settings, text: bytes) -> None:
    last_list.list_path(settings).write_bytes(text)

    assert last_list.load(settings) == ()


@pytest.mark.parametrize("line", [b"[1, 2]", b"{}", b'["three"]', b"[", b"null"])
def test_a_file_with_a_line_that_is_none_is_no_list(settings: Settings, line: bytes) -> None:
    last_list.save(settings, [ONE])
    with last_list.list_path(settings).open("ab") as file:
        file.write(b"\n" + line)

    assert last_list.load(settings) == ()


def test_a_record_that_is_not_valid_is_left_out(settings: Settings) -> None:
    last_list.save(settings, [ONE, replace(TWO, vtep=ip_address("127.0.0.1"))])

    assert last_list.load(settings) == (ONE,)


def test_an_embedded_store_needs_none(settings: Settings) -> None:
    assert last_list.is_kept(settings)
    assert not last_list.is_kept(settings.model_copy(update={"store": ""}))
