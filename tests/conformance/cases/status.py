# SPDX-License-Identifier: Apache-2.0
"""F5 to F9: STATUS, which came with 1.1.0."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from conformance.bench import Bench
from conformance.call import refused, silent
from conformance.registry import case

INCOMPATIBLE, UNKNOWN_COMMAND, NOT_AVAILABLE = 1, 4, 50
QUICK = 0.1
SLEEP = 1.5
"""Seconds; containerd asks every few seconds and waits as long as it takes."""


@case("F5", "STATUS of a healthy node succeeds at once and changes nothing")
def healthy(bench: Bench) -> None:
    with bench.unchanged():
        answers = [bench.node("STATUS") for _ in range(5)]
    for answer in answers:
        silent(answer)
    best = min(answer.seconds for answer in answers)
    assert best < QUICK, f"at best {best * 1000:.0f} ms"


@case("F6", "STATUS does not wait for an ADD that takes long")
def not_blocked(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    ipam.behave(ADD={"sleep": SLEEP})
    attachment = bench.delegated(ipam, version="1.1.0")
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(attachment.add)
        ipam.wait_for("ADD")
        answer = bench.node("STATUS", network=bench.delegating(), ipam=ipam)
        assert not adding.done(), "the ADD was over too soon to show anything"
        adding.result()

    silent(answer)


@case("F7", "STATUS asks the IPAM plugin, and passes its error on")
def of_ipam(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    silent(bench.node("STATUS", network=bench.delegating(), ipam=ipam))
    assert len(ipam.calls("STATUS")) == 1, f"asked {len(ipam.calls('STATUS'))} times"
    ipam.behave(STATUS={"error": {"code": NOT_AVAILABLE, "msg": "the fake is tired"}})

    answer = bench.node("STATUS", network=bench.delegating(), ipam=ipam)

    refused(answer, NOT_AVAILABLE, mentions=["the fake is tired"])


@case("F8", "STATUS and GC came with 1.1.0: before, they fail with 1, or 4 if never heard of",
      over={"STATUS": "STATUS", "GC": "GC"})  # fmt: skip
def too_old(bench: Bench, command: str) -> None:
    attachment = bench.attachment(version="1.0.0")
    knows = "1.1.0" in bench.world.versions

    answer = attachment.call(command)

    refused(answer, *((INCOMPATIBLE,) if knows else (INCOMPATIBLE, UNKNOWN_COMMAND)))


@case("F9", "ADD and DEL are attempted while STATUS fails")
def independent(bench: Bench) -> None:
    bench.needs("1.1.0", "STATUS")
    ipam = bench.fake_ipam()
    ipam.behave(STATUS={"error": {"code": NOT_AVAILABLE, "msg": "not ready"}})
    attachment = bench.delegated(ipam)

    attachment.attach()
    attachment.detach()
