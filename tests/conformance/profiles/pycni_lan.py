# SPDX-License-Identifier: Apache-2.0
"""P: what pycni promises of pods on the LAN: its codes, its agent away, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance import namespaces
from conformance.bench import Bench, bare
from conformance.call import refused, silent
from conformance.netlink import Rtnl
from conformance.profiles.pycni import (
    DUPLICATE,
    INTERFACE_EXISTS,
    NOT_AVAILABLE,
    UNAVAILABLE,
    UNKNOWN_CONTAINER,
    answers,
    without_agent,
)
from conformance.registry import Function
from conformance.registry import case as any_case
from conformance.sandbox import HOST

PROFILE = "pycni_lan"
WRONG = 7


def case(identifier: str, title: str, **parameters: Any) -> Callable[[Function], Function]:
    return any_case(identifier, title, profile=PROFILE, **parameters)


@case("P1", "the node reaches its pods, and keeps the addresses that it had")
def probes(bench: Bench) -> None:
    with Rtnl() as rtnl:
        before = rtnl.addresses()
        _, attachment = bench.attached()
        after = rtnl.addresses()

    answers(attachment)
    assert set(HOST.values()) <= {one.address for one in before}
    assert {one.address for one in before} <= {one.address for one in after}


@case("P2", "without an agent every verb works")
def without(bench: Bench) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod)
    with without_agent():
        attachment.attach()
        answers(attachment)
        silent(attachment.check())
        attachment.detach()
        attachment.detach()
    assert pod.link() is None, "the interface is still in the pod"


@case("P3", "a namespace that ended while the agent was away leaves nothing once it is back")
def orphan(bench: Bench) -> None:
    with bench.unchanged():
        pod, attachment = bench.attached()
        with without_agent():
            namespaces.remove(pod.path)
    attachment.result = None


@case("P4", "a second ADD fails with 101, a stranger's interface with 100, CHECK of nothing with 3")
def codes(bench: Bench) -> None:
    pod, attachment = bench.attached()
    again = bench.attachment(pod, container_id=attachment.container_id)
    other = bench.attachment(pod)

    refused(again.call("ADD"), DUPLICATE)
    refused(other.call("ADD"), INTERFACE_EXISTS)
    refused(other.call("CHECK", conf={"prevResult": attachment.result}), UNKNOWN_CONTAINER)


@case("P5", "an address that another pod or the node has fails with 104")
def taken(bench: Bench) -> None:
    ips = bench.declares("ips")
    _, first = bench.attached(network=ips)
    assert first.result is not None

    for address in (bare(first.result)[0], HOST[4].partition("/")[0]):
        wanted = {"ips": [address]}
        second = bench.attachment(bench.pod(), network=ips, capabilities=wanted)
        refused(second.call("ADD"), UNAVAILABLE)


@case("P6", "what such pods cannot have is refused with 7",
      over={
          "host ports": {"portMappings": [{"hostPort": 80, "containerPort": 80}]},
          "bandwidth": {"bandwidth": {"egressRate": 10**7, "egressBurst": 10**7}},
      })  # fmt: skip
def impossible(bench: Bench, asked: Any) -> None:
    refused(bench.attachment(bench.pod()).call("ADD", conf={"runtimeConfig": asked}), WRONG)


@case("P7", "STATUS says 50 if the interface that pods are on is not there")
def no_parent(bench: Bench) -> None:
    bench.needs("1.1.0", "STATUS")

    silent(bench.node("STATUS"))
    refused(bench.node("STATUS", conf={"master": "nothing0"}), NOT_AVAILABLE)
