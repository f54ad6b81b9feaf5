# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/port_table.py: elements as nft lists them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.pods import port_table
from pycni.pods.port_table import Forward


@pytest.mark.parametrize(
    ("listed", "protocol"), [("udp", "udp"), (6, "tcp"), (17, "udp"), (132, "sctp")]
)
def test_a_protocol_has_its_name_where_the_host_names_none(
    monkeypatch: pytest.MonkeyPatch, listed: str | int, protocol: str
) -> None:
    key = {"elem": {"val": {"concat": [listed, 18080]}, "comment": "web"}}
    element = [key, {"concat": ["10.244.0.7", 80]}]
    maps = [{"map": {"name": name}} for name in ("any6", "host4", "host6")]
    answer = [{"metainfo": {}}, {"map": {"name": "any4", "elem": [element]}}, *maps]
    monkeypatch.setattr(port_table.nft, "table_flags", lambda *_, **__: 0)
    monkeypatch.setattr(port_table.nft, "run", lambda *_, **__: answer)

    (found,) = port_table.forwards()

    assert found == Forward(protocol, None, 18080, ip_address("10.244.0.7"), 80)
    assert found.owner == "web"


def test_an_address_with_a_comment_is_a_nodes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [{"map": {"name": name}} for name in port_table.MAPS.values()]
    commented = {"elem": {"val": "192.0.2.9", "comment": "mine"}}
    answer = [*maps, {"set": {"name": "nodes4", "elem": ["192.0.2.8", commented]}}]
    monkeypatch.setattr(port_table.nft, "table_flags", lambda *_, **__: 0)
    monkeypatch.setattr(port_table.nft, "run", lambda *_, **__: answer)

    assert port_table.read().nodes == {ip_address("192.0.2.8"), ip_address("192.0.2.9")}
