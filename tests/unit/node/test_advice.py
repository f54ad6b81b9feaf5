# SPDX-License-Identifier: Apache-2.0
"""pycni/node/advice.py: which way of sending fits what was found."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.kernel.fib import Path as Way
from pycni.node import advice
from pycni.settings import Settings

NEAR, FAR, LOST, TUNNEL = (ip_address(f"192.0.2.{number}") for number in (2, 3, 4, 5))
ROUTER = ip_address("192.0.2.254")
LINKS: Any = {7: SimpleNamespace(is_ethernet=True), 8: SimpleNamespace(is_ethernet=False)}
WAYS = {NEAR: Way(7, NEAR, 0), FAR: Way(7, ROUTER, 0), TUNNEL: Way(8, TUNNEL, 0)}


def settings(encap: str) -> Settings:
    return Settings.model_validate({"node_name": "one", "encap": encap})


def test_only_a_node_that_is_its_own_next_hop_on_ethernet_is_near() -> None:
    assert advice.on_link([NEAR, FAR, LOST, TUNNEL], WAYS, LINKS) == 1
    assert advice.on_link([NEAR], {NEAR: Way(9, NEAR, 0)}, LINKS) == 0


@pytest.mark.parametrize(
    ("near", "others", "words"),
    [
        (0, 0, []),
        (0, 2, []),
        (1, 1, ["the other node is", '"direct"']),
        (3, 3, ["all 3 other nodes are", '"direct"']),
        (2, 3, ["2 of 3 other nodes are", '"auto-direct"']),
    ],
)
def test_what_is_near_is_told_with_the_setting_for_it(
    near: int, others: int, words: list[str]
) -> None:
    said = advice.about(settings("auto"), near=near, others=others)

    assert bool(said) == bool(words)
    assert all(word in said for word in words)


@pytest.mark.parametrize("encap", ["ebpf", "kernel", "direct", "auto-direct", "ipip"])
def test_who_has_chosen_is_told_nothing(encap: str) -> None:
    assert advice.about(settings(encap), near=3, others=3) == ""
