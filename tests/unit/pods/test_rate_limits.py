# SPDX-License-Identifier: Apache-2.0
"""bandwidth: what is understood, what is refused, and what bucket a rate becomes."""

from __future__ import annotations

from typing import Any

import pytest

from pycni.errors import InvalidConfig
from pycni.pods.rate_limits import Limits, Rate, parse

MEGABIT = 10**6
MTU = 1450
CONTAINERD_BURST = 2**32 - 1
CRIO_BURST = 8 * (2**32 - 1) - 1
TICKS = 2**32
TICK = 64e-9


def one(**values: Any) -> Limits:
    return parse({"bandwidth": values})


@pytest.mark.parametrize(
    "runtime_config",
    [
        {"bandwidth": {"ingressRate": 10 * MEGABIT, "ingressBurst": 8000}},
        # as containerd writes it, from Go structs without JSON names
        {
            "bandwidth": {
                "IngressRate": 10 * MEGABIT,
                "IngressBurst": 8000,
                "EgressRate": 0,
                "EgressBurst": 0,
            }
        },
        {"BandWidth": {"ingressrate": 10 * MEGABIT, "INGRESSBURST": 8000, "egressRate": None}},
    ],
)
def test_keys_are_read_in_any_case(runtime_config: dict[str, Any]) -> None:
    assert parse(runtime_config) == Limits(ingress=Rate(10 * MEGABIT, 8000))


def test_directions_are_not_mixed_up() -> None:
    limits = one(ingressRate=10000, ingressBurst=1, egressRate=20000, egressBurst=2)

    assert limits == Limits(ingress=Rate(10000, 1), egress=Rate(20000, 2))


@pytest.mark.parametrize(
    "runtime_config",
    [
        {},
        {"bandwidth": None},
        {"bandwidth": {}},
        {"bandwidth": {"ingressRate": 0, "ingressBurst": 0}},
        {"portMappings": []},
        {"bandwidth": {"ingressRate": 100_000 * MEGABIT, "ingressBurst": 8000}},
    ],
)
def test_nothing_to_limit_is_no_limits(runtime_config: dict[str, Any]) -> None:
    assert parse(runtime_config) == Limits()
    assert not parse(runtime_config).shaped


@pytest.mark.parametrize(
    "values",
    [
        {"ingressRate": MEGABIT},
        {"egressRate": MEGABIT},
        {"ingressBurst": 8000},
        {"egressBurst": 8000},
        {"ingressRate": MEGABIT, "egressBurst": 8000},
        {"ingressRate": -1, "ingressBurst": 8000},
        {"ingressRate": MEGABIT, "ingressBurst": -8},
        {"ingressRate": "10M", "ingressBurst": 8000},
        {"ingressRate": 1.5, "ingressBurst": 8000},
        {"ingressRate": True, "ingressBurst": 8000},
        {"ingressRate": 999, "ingressBurst": 8000},
        {"ingressRate": MEGABIT, "ingressBurst": 8 * 2**32},
    ],
)
def test_a_wrong_value_has_code_7(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        one(**values)

    assert caught.value.code == 7


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidConfig):
        parse({"bandwidth": [10]})


@pytest.mark.parametrize("burst", [CONTAINERD_BURST, CRIO_BURST])
def test_a_runtime_that_has_no_burst_to_give_does_not_lift_the_limit(burst: int) -> None:
    bucket = Rate(10 * MEGABIT, burst).bucket(MTU)

    assert bucket["burst"] < 0.1 * bucket["rate"]


def test_a_burst_that_was_chosen_is_kept() -> None:
    bucket = Rate(10 * MEGABIT, 8 * 5_000_000).bucket(MTU)

    assert bucket["burst"] == 5_000_000


@pytest.mark.parametrize("rate", [1000, MEGABIT, 34_000 * MEGABIT])
@pytest.mark.parametrize("burst", [8, 8 * MTU, CONTAINERD_BURST - 1, CONTAINERD_BURST])
def test_every_bucket_fits_the_kernel_and_passes_whole_frames(rate: int, burst: int) -> None:
    bucket = Rate(rate, burst).bucket(MTU)

    assert bucket["burst"] > MTU
    assert bucket["burst"] / bucket["rate"] < TICKS * TICK
    assert bucket["limit"] > bucket["burst"]
    assert all(value < 2**32 for value in bucket.values())
