# SPDX-License-Identifier: Apache-2.0
"""pycni/stores/former.py: a machine with pods gets its place, or none."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from pycni.errors import PlaceLost
from pycni.stores.former import NEW, Former

CIDR, OTHER, BLOCK = map(ip_network, ("10.244.0.0/24", "10.244.7.0/24", "10.244.9.0/24"))
EMPTY = Former((CIDR,), (BLOCK,))
FULL = Former((CIDR,), (BLOCK,), (CIDR[7], BLOCK[7]), stays=True)


def test_other_pod_cidrs_are_refused_while_pods_live_in_the_old_ones() -> None:
    EMPTY.refuse_renumbering([OTHER])
    FULL.refuse_renumbering([CIDR])
    NEW.refuse_renumbering([OTHER])
    with pytest.raises(PlaceLost, match=r"10\.244\.7\.0/24.*10\.244\.0\.0/24") as caught:
        FULL.refuse_renumbering([OTHER])

    assert "drain the node" in caught.value.hint


def test_no_pod_cidr_at_all_is_another_place() -> None:
    with pytest.raises(PlaceLost, match="another place"):
        FULL.refuse_renumbering([])


def test_pods_of_a_host_that_was_no_node_are_no_reason() -> None:
    replace(FULL, pod_cidrs=()).refuse_renumbering([OTHER])


def test_a_block_that_is_lost_is_refused_while_it_has_pods() -> None:
    replace(FULL, pods=(CIDR[7],)).refuse_lost_blocks([CIDR])
    FULL.refuse_lost_blocks([CIDR, BLOCK])
    EMPTY.refuse_lost_blocks([CIDR])
    with pytest.raises(PlaceLost, match=r"addresses of 10\.244\.9\.0/24") as caught:
        FULL.refuse_lost_blocks([CIDR])

    assert "drain the node" in caught.value.hint
