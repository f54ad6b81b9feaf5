# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/port_table.py: elements as nft lists them."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.pods import port_table
from pycni.pods.port_table import Forward


def _listed(
    by_map: dict[str, list[Any]], commands: list[dict[str, Any]], **_: object
) -> list[dict[str, Any]]:
    """What nftables lists of one map."""
    name = commands[0]["list"]["map"]["name"]
    return [{"metainfo": {}}, {"map": {"name": name, "elem": by_map.get(name, [])}}]


@pytest.mark.parametrize(
    ("listed", "protocol"), [("udp", "udp"), (6, "tcp"), (17, "udp"), (132, "sctp")]
)
def test_a_protocol_has_its_name_where_the_host_names_none(
    monkeypatch: pytest.MonkeyPatch, listed: str | int, protocol: str
) -> None:
    key = {"elem": {"val": {"concat": [listed, 18080]}, "comment": "web"}}
    element = [key, {"concat": ["10.244.0.7", 80]}]
    monkeypatch.setattr(port_table.nft, "table_flags", lambda *_, **__: 0)
    monkeypatch.setattr(port_table.nft, "run", partial(_listed, {"any4": [element]}))

    (found,) = port_table.forwards()

    assert found == Forward(protocol, None, 18080, ip_address("10.244.0.7"), 80)
    assert found.owner == "web"


def test_an_address_with_a_comment_is_a_nodes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    commented = {"elem": {"val": "192.0.2.9", "comment": "mine"}}
    answer = [{"set": {"name": "nodes4", "elem": ["192.0.2.8", commented]}}]
    monkeypatch.setattr(port_table.nft, "table_flags", lambda *_, **__: 0)
    monkeypatch.setattr(port_table.nft, "run", lambda *_, **__: answer)

    assert port_table.nodes() == {ip_address("192.0.2.8"), ip_address("192.0.2.9")}
