"""pycni/stores/places.py: who has what, as nodes come and go."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.errors import StoreError
from pycni.stores import NodeRecord
from pycni.stores.places import Holders

ONE = NodeRecord("one", 1, ip_address("192.0.2.1"), (ip_network("10.0.1.0/24"),), 0.0)
TWO = NodeRecord("two", 2, ip_address("192.0.2.2"), (ip_network("10.0.2.0/24"),), 0.0)


def test_nodes_may_change_places_in_one_go() -> None:
    holders = Holders([ONE, TWO], where="here")
    swapped = [replace(ONE, vtep=TWO.vtep), replace(TWO, vtep=ONE.vtep)]

    holders.change([ONE, TWO], swapped)

    with pytest.raises(StoreError, match=r"one and three have the same VTEP 192\.0\.2\.2 in here"):
        holders.change([], [NodeRecord("three", 3, TWO.vtep, (), 0.0)])


def test_what_a_node_had_is_free_when_it_is_gone() -> None:
    holders = Holders([ONE, TWO], where="here")

    holders.change([ONE], [])
    holders.change([], [replace(ONE, name="heir")])

    with pytest.raises(StoreError, match="heir and late have the same VTEP"):
        holders.change([], [replace(ONE, name="late")])


def test_a_node_keeps_what_it_still_has() -> None:
    holders = Holders([ONE], where="here")
    extra = ip_network("10.9.9.9/32")

    holders.change([ONE], [replace(ONE, extra=(extra,))])

    with pytest.raises(StoreError, match=r"one and two have the same prefix 10\.9\.9\.9/32"):
        holders.change([], [replace(TWO, extra=(extra,))])
