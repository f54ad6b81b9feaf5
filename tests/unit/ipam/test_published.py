# SPDX-License-Identifier: Apache-2.0
"""Why an address from IPAM cannot be a pod's: the one reason that holds."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.errors import AddressUnavailable
from pycni.ipam import published
from pycni.settings import Settings
from unit.ipam.test_allocation import NODE

VTEP_TWO, OF_TWO = "192.0.2.2", "198.51.100.2"
HOSTS = "192.0.2.1"


@pytest.fixture
def ipr(monkeypatch: pytest.MonkeyPatch) -> Any:
    two = SimpleNamespace(name="two", vtep=ip_address(VTEP_TWO), addresses=(ip_address(OF_TWO),))
    monkeypatch.setattr(published, "_store", lambda _: SimpleNamespace(nodes=lambda: [two]))
    return SimpleNamespace(addresses=lambda: [SimpleNamespace(ip=ip_address(HOSTS))])


def refuse(ipr: Any, address: str) -> None:
    settings = Settings(node_name="one")
    published.refuse_unusable(ipr, ip_address(address), node=NODE, settings=settings)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.7", "of a network for special use"),
        (str(next(iter(NODE.gateways))), "the gateway of this node's pods"),
        (HOSTS, "this node's own"),
        (VTEP_TWO, "an address of node two"),
        (OF_TWO, "an address of node two"),
    ],
)
def test_the_reason_is_told(ipr: Any, address: str, why: str) -> None:
    with pytest.raises(AddressUnavailable, match=f"cannot be a pod's: it is {why}"):
        refuse(ipr, address)


@pytest.mark.parametrize("address", ["10.244.1.9", "203.0.113.9"])
def test_other_addresses_are_taken(ipr: Any, address: str) -> None:
    refuse(ipr, address)


def test_who_has_a_published_address_is_told(ipr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def publish(name: str, prefix: object) -> str:
        asked.append((name, prefix))
        return "two"

    monkeypatch.setattr(published, "_store", lambda _: SimpleNamespace(publish=publish))

    owner = published.publish(
        ipr, ip_address("203.0.113.9"), node=NODE, settings=Settings(node_name="one")
    )

    assert owner == "two"
    assert asked == [("one", ip_network("203.0.113.9"))]
    assert "is taken by node two" in published.taken(ip_address("203.0.113.9"), "node two").message
