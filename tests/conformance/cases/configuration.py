# SPDX-License-Identifier: Apache-2.0
"""B10 to B14: the configuration's own keys, known and unknown."""

from __future__ import annotations

from typing import Any

from conformance.bench import Bench
from conformance.call import refused
from conformance.registry import case
from conformance.results import Skip

MTU = 1400
"""One that no plugin chooses by itself."""

WRONG_MTU: dict[str, Any] = {
    "text": "1400", "list": [1400], "fraction": 1400.5, "small": 10, "large": 70000, "negative": -1,
}  # fmt: skip


@case("B10", "an own key with a wrong value is refused, and nothing is kept", over=WRONG_MTU)
def wrong_value(bench: Bench, value: object) -> None:
    _knows_mtu(bench)
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod, conf={"mtu": value}).call("ADD"))


ACCEPTED: dict[str, dict[str, Any]] = {
    "dns {}": {"dns": {}},
    "args": {"args": {"example.com/x": [1, {}], "cni": {"labels": [{"key": "a", "value": "b"}]}}},
    "args {}": {"args": {}},
    "capabilities": {"capabilities": {"nobody.knows": True, "portMappings": False}},
    "runtimeConfig {}": {"runtimeConfig": {}},
    "prevResult null": {"prevResult": None},
}  # fmt: skip


@case("B11", "empty and optional parts are accepted", over=ACCEPTED)
def optional_parts(bench: Bench, conf: dict[str, Any]) -> None:
    attachment = bench.attachment(bench.pod(), conf=conf)

    attachment.attach()
    attachment.detach()


@case(
    "B12",
    "a configuration broken since ADD does not hinder DEL",
    over={"mtu": {"mtu": "1400"}, "dns": {"dns": 5}, "runtimeConfig": {"runtimeConfig": []}},
)
def broken_since(bench: Bench, broken: dict[str, Any]) -> None:
    pod, attachment = bench.attached()

    attachment.detach(conf=broken)

    assert pod.link() is None, "the interface is still in the pod"


@case("B13", "an own key has its effect: the MTU is the configured one at both ends")
def own_key(bench: Bench) -> None:
    _knows_mtu(bench)
    pod, attachment = bench.attached(conf={"mtu": MTU})

    assert pod.its().mtu == MTU, f"the MTU is {pod.its().mtu}"
    attachment.detach()


UNKNOWN: dict[str, Any] = {"x-unknown": {"a": [None, 1.5, "é", True]}}


@case("B14", "unknown keys are ignored everywhere")
def unknown_keys(bench: Bench) -> None:
    ipam = bench.network.conf.get("ipam")
    conf = UNKNOWN | {"runtimeConfig": UNKNOWN} | ({"ipam": {**ipam, **UNKNOWN}} if ipam else {})
    attachment = bench.attachment(bench.pod(), conf=conf)

    attachment.attach()
    attachment.detach()


@case("B16", "without IPAM to delegate to, an empty `ipam` is accepted",
      over={"{}": {}, "null": None})  # fmt: skip
def empty_ipam(bench: Bench, ipam: object) -> None:
    if bench.network.delegates:
        raise Skip("the network delegates IPAM")
    attachment = bench.attachment(bench.pod(), conf={"ipam": ipam})

    attachment.attach()
    attachment.detach()


def _knows_mtu(bench: Bench) -> None:
    pod, attachment = bench.attached(conf={"mtu": MTU})
    knows = pod.its().mtu == MTU
    attachment.detach()
    if not knows:
        raise Skip("the plugin does not know the key mtu")
