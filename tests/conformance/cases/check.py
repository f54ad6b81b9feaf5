# SPDX-License-Identifier: Apache-2.0
"""E: CHECK, which finds what is no longer as ADD left it and changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conformance import namespaces
from conformance.bench import Bench, Pod, host_link, pod_interface
from conformance.call import Json, refused, silent
from conformance.netlink import RT_TABLE_MAIN, STRANGER_MAC, Rtnl
from conformance.registry import case
from conformance.results import Skip
from conformance.runtime import Attachment

INCOMPATIBLE, DECODING, INVALID, INTERNAL = 1, 6, 7, 999
CHECKED_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
NEW_MAC = "02:00:00:00:00:42"
MANY = 20


def _attached(bench: Bench, **fields: Any) -> tuple[Pod, Attachment]:
    bench.needs("0.4.0", "CHECK")
    return bench.attached(**fields)


@case("E1", "CHECK right after ADD succeeds and changes nothing",
      versions=CHECKED_VERSIONS, networks=True)  # fmt: skip
def fresh(bench: Bench, *, version: str, network: str) -> None:
    pod, attachment = _attached(bench, network=network, version=version)
    with bench.unchanged(pod):
        silent(attachment.check())


@case(
    "E2",
    "CHECK needs a prevResult",
    over={"absent": ..., "null": None, "number": 5, "text": "x", "wrong": {"ips": 5}},
)
def bad_previous(bench: Bench, value: object) -> None:
    _, attachment = _attached(bench)

    answer = attachment.call("CHECK", conf={} if value is ... else {"prevResult": value})

    refused(answer, DECODING, INVALID, INTERNAL)


@case("E3", "CHECK came with 0.4.0: before, it fails with 1", versions=("0.2.0", "0.3.0", "0.3.1"))
def too_old(bench: Bench, *, version: str) -> None:
    _, attachment = bench.attached(version=version)

    refused(attachment.check(), INCOMPATIBLE)


def _no_address(pod: Pod, _: Attachment) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.delete_address(pod.its().index, pod.addresses()[0].address)


def _no_link(pod: Pod, _: Attachment) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.delete_link(pod.its().index)


def _no_route(pod: Pod, _: Attachment) -> None:
    with Rtnl(pod.path) as rtnl:
        for route in rtnl.routes():
            if route.table == RT_TABLE_MAIN and route.dst in ("0.0.0.0/0", "::/0"):
                rtnl.delete_route(route.dst, gateway=route.gateway, index=route.index)


def _down(pod: Pod, _: Attachment) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.set_link(pod.its().index, up=False)


def _host_down(pod: Pod, attachment: Attachment) -> None:
    with Rtnl() as rtnl:
        rtnl.set_link(host_link(attachment, pod).index, up=False)


def _other_mtu(pod: Pod, _: Attachment) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.set_link(pod.its().index, mtu=1280)


def _other_mac(pod: Pod, _: Attachment) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.set_link(pod.its().index, mac=NEW_MAC)


def _stranger(pod: Pod, attachment: Attachment) -> None:
    addresses = pod.addresses()
    _no_link(pod, attachment)
    with Rtnl(pod.path) as rtnl:
        index = rtnl.add_stranger("eth0")
        rtnl.set_link(index, up=True)
        for one in addresses:
            rtnl.add_address(index, one.address)


DAMAGE: dict[str, Callable[[Pod, Attachment], None]] = {
    "address gone": _no_address, "interface gone": _no_link, "default route gone": _no_route,
    "interface down": _down, "host end down": _host_down, "MAC": _other_mac,
    "a stranger in its place": _stranger,
}  # fmt: skip


@case("E4", "CHECK fails when something is missing or wrong", over=DAMAGE)
def damaged(bench: Bench, damage: Callable[[Pod, Attachment], None]) -> None:
    pod, attachment = _attached(bench)
    damage(pod, attachment)

    refused(attachment.check())


@case("E11", "CHECK fails when the MTU is not the result's", versions=("1.1.0",))
def other_mtu(bench: Bench, *, version: str) -> None:
    """Results tell the MTU since 1.1.0: before, a later plugin may have changed it unsaid."""
    pod, attachment = _attached(bench, version=version)
    _other_mtu(pod, attachment)

    refused(attachment.check())


def _more_route(pod: Pod, result: Json) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.add_route("192.0.2.0/24", index=pod.its().index)
    result.setdefault("routes", []).append({"dst": "192.0.2.0/24"})


def _more_address(pod: Pod, result: Json) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.add_address(pod.its().index, "192.0.2.7/24")
    index = result["ips"][0]["interface"]
    result["ips"].append({"address": "192.0.2.7/24", "interface": index})


def _unsaid_address(pod: Pod, _: Json) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.add_address(pod.its().index, "192.0.2.7/24")


def _more_interface(pod: Pod, result: Json) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.add_stranger("more0")
    result["interfaces"].append({"name": "more0", "mac": STRANGER_MAC, "sandbox": str(pod.path)})


def _said_mac(pod: Pod, result: Json) -> None:
    with Rtnl(pod.path) as rtnl:
        rtnl.set_link(pod.its().index, mac=NEW_MAC)
    for one in result["interfaces"]:
        if one.get("sandbox"):
            one["mac"] = NEW_MAC


LATER: dict[str, Callable[[Pod, Json], None]] = {
    "route": _more_route, "address": _more_address, "address not in the result": _unsaid_address,
    "interface": _more_interface, "MAC": _said_mac,
}  # fmt: skip


@case("E5", "CHECK succeeds with what later plugins of a chain changed", over=LATER)
def later_plugins(bench: Bench, change: Callable[[Pod, Json], None]) -> None:
    pod, attachment = _attached(bench)
    result = copy.deepcopy(attachment.result)
    assert result is not None
    change(pod, result)

    silent(attachment.call("CHECK", conf={"prevResult": result}))


@case("E6", "CHECK succeeds without the default route if the result has none either")
def default_route_moved(bench: Bench) -> None:
    pod, attachment = _attached(bench)
    _no_route(pod, attachment)
    assert attachment.result is not None
    if not attachment.result.get("routes"):
        raise Skip("the result has no routes")

    silent(attachment.call("CHECK", conf={"prevResult": {**attachment.result, "routes": []}}))


@case("E7", "CHECK fails when the namespace is gone")
def namespace_gone(bench: Bench) -> None:
    pod, attachment = _attached(bench)
    namespaces.remove(pod.path)

    refused(attachment.check())


@case("E8", "CHECKs at once with ADDs and DELs of others succeed")
def at_once(bench: Bench) -> None:
    _, attachment = _attached(bench)
    others = [bench.attachment(bench.pod()) for _ in range(6)]

    def cycle(other: Attachment) -> None:
        other.attach()
        other.detach()

    with ThreadPoolExecutor(8) as pool:
        cycles = [pool.submit(cycle, other) for other in others]
        checks = [pool.submit(attachment.check) for _ in range(MANY)]
    for one in checks:
        silent(one.result())
    for cycled in cycles:
        cycled.result()


@case("E9", "CHECK of what was never attached fails")
def never(bench: Bench) -> None:
    _, attachment = _attached(bench)
    other = bench.attachment(bench.pod())
    other_result = copy.deepcopy(attachment.result)
    with bench.unchanged():
        refused(other.call("CHECK", conf={"prevResult": other_result}))


@case("E10", "CHECK fails when the result has an address that the pod has not")
def other_address(bench: Bench) -> None:
    _, attachment = _attached(bench)
    result = copy.deepcopy(attachment.result)
    assert result is not None
    pod_interface(attachment)
    result["ips"][0]["address"] = "192.0.2.77/24"

    refused(attachment.call("CHECK", conf={"prevResult": result}))
