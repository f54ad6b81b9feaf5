# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/port_table.py: elements as nft lists them."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.errors import NotAvailable, SetupError
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


@pytest.mark.parametrize(
    ("flags", "maps", "said"),
    [
        (None, (), "gone"),
        (1, (), "switched off"),
        (0, ("any4", "any6", "host6"), "without its map host4"),
    ],
)
def test_what_is_wrong_with_the_table_as_a_whole_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch, flags: int | None, maps: tuple[str, ...], said: str
) -> None:
    listed = [{"map": {"name": name}} for name in maps]
    monkeypatch.setattr(port_table.nft, "table_flags", lambda *_, **__: flags)
    monkeypatch.setattr(port_table.nft, "outline", lambda *_, **__: listed)

    (fault,) = port_table.faults(port_table.look(), {})

    assert fault.sentence == f"nftables table inet {port_table.TABLE} is {said}"
    with pytest.raises(NotAvailable, match=said):
        port_table.read()


def test_a_table_that_goes_while_it_is_read_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SetupError("no such table", hint="none")

    listed: list[object] = []
    monkeypatch.setattr(port_table.nft, "table_flags", lambda *_, **__: 0)
    monkeypatch.setattr(port_table.nft, "outline", lambda *_, **__: listed)
    monkeypatch.setattr(port_table.nft, "run", fail)
    monkeypatch.setattr(port_table, "exists", lambda: False)

    assert port_table.look() == "gone"

    listed += [{"map": {"name": name}} for name in port_table.MAPS.values()]

    assert port_table.look() == "gone"
