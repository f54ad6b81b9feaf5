# SPDX-License-Identifier: Apache-2.0
"""F1 to F4: VERSION."""

from __future__ import annotations

import json

from conformance import call
from conformance.bench import Bench
from conformance.call import succeeded
from conformance.registry import VERSIONS, case

QUICK = 0.1
"""Seconds; podman runs VERSION for every plugin whenever it loads its networks."""
DUMMY = dict.fromkeys(("CNI_NETNS", "CNI_IFNAME", "CNI_PATH"), "dummy")


@case("F1", "VERSION works without stdin, also if it is a pipe that nobody writes to",
      over={"empty": b"", "never written": None})  # fmt: skip
def without_stdin(bench: Bench, stdin: bytes | None) -> None:
    answer = call.execute(bench.world.plugin, {"CNI_COMMAND": "VERSION"}, stdin)

    document = succeeded(answer).document
    listed = document.get("supportedVersions")
    assert document.get("cniVersion"), f"no cniVersion: {answer.told}"
    assert isinstance(listed, list), f"no supportedVersions: {answer.told}"
    assert listed == sorted(listed), f"not sorted: {listed}"
    assert {"0.4.0", "1.0.0"} <= set(listed), f"lacks 0.4.0 or 1.0.0: {listed}"


@case("F2", "VERSION answers in the version it was asked in, or its newest", versions=True)
def answers_in(bench: Bench, *, version: str) -> None:
    bench.needs(version)
    stdin = json.dumps({"cniVersion": version}).encode()

    document = succeeded(
        call.execute(bench.world.plugin, {"CNI_COMMAND": "VERSION"}, stdin)
    ).document

    assert document["cniVersion"] in (version, document["supportedVersions"][-1]), document


@case("F3", "VERSION is quick, and needs nothing of its other parameters")
def parameters(bench: Bench) -> None:
    env = {"CNI_COMMAND": "VERSION", **DUMMY}
    with bench.unchanged():
        answers = [call.execute(bench.world.plugin, env, b"{}") for _ in range(5)]
    for answer in answers:
        succeeded(answer)
    best = min(answer.seconds for answer in answers)
    assert best < QUICK, f"at best {best * 1000:.0f} ms"


@case("F4", "every version it lists works")
def listed(bench: Bench) -> None:
    strange = set(bench.world.versions) - set(VERSIONS)
    assert not strange, f"lists {', '.join(sorted(strange))}"
    for version in bench.world.versions:
        attachment = bench.attachment(bench.pod(), version=version)
        assert attachment.attach().get("cniVersion") == version
        attachment.detach()
