# SPDX-License-Identifier: Apache-2.0
"""I1, I2, I9 to I15: many calls at once, and what a process leaves open."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conformance import call
from conformance.bench import Bench, bare, host_link
from conformance.call import silent, succeeded
from conformance.patience import patient
from conformance.registry import case
from conformance.runtime import Attachment

MANY = 50
TOGETHER = patient(10.0)
"""Seconds that many ADDs at once may take."""
EOF_LIMIT = patient(0.1)
"""Seconds between a plugin's end and the end of its output."""


@case("I1", f"{MANY} ADDs at once succeed, all different, and {MANY} DELs leave nothing")
def many(bench: Bench) -> None:
    pods = [bench.pod() for _ in range(MANY)]
    attachments = [bench.attachment(pod) for pod in pods]
    with bench.unchanged():
        with ThreadPoolExecutor(MANY) as pool:
            begin = time.monotonic()
            results = list(pool.map(lambda one: one.attach(), attachments))
            took = time.monotonic() - begin
        addresses = [address for result in results for address in bare(result)]
        assert len(set(addresses)) == len(addresses), "an address was given twice"
        macs = {pod.its().mac for pod in pods}
        assert len(macs) == MANY, "two pods have the same MAC"
        hosts = {host_link(one, pod).name for one, pod in zip(attachments, pods, strict=True)}
        assert len(hosts) == MANY, "two pods lead to the same link of the host"
        with ThreadPoolExecutor(MANY) as pool:
            list(pool.map(lambda one: one.detach(), attachments))
    assert took < TOGETHER, f"took {took:.1f} s"


@case("I2", "ADD of another plugin in the same namespace at the same time succeeds")
def side_by_side(bench: Bench) -> None:
    loopback, pod = bench.binary("loopback"), bench.pod()
    attachment = bench.attachment(pod)
    other = Attachment(
        plugin=loopback,
        cni_path=attachment.cni_path,
        conf={"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"},
        container_id=attachment.container_id,
        netns=attachment.netns,
        ifname="lo",
    )
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(attachment.add), pool.submit(other.add)]
    for one in answers:
        succeeded(one.result())
    attachment.detach()


@case("I9", "DELs and ADDs of different containers at once do not disturb each other")
def mixed(bench: Bench) -> None:
    leaving = [bench.attached()[1] for _ in range(8)]
    coming = [bench.attachment(bench.pod()) for _ in range(8)]
    with ThreadPoolExecutor(16) as pool:
        left = [pool.submit(one.detach) for one in leaving]
        came = [pool.submit(one.attach) for one in coming]
    for done in left:
        done.result()
    addresses = [address for one in came for address in bare(one.result())]
    assert len(set(addresses)) == len(addresses), "an address was given twice"
    for one in coming:
        one.detach()


@case("I10", "nothing holds the plugin's output open after its end")
def output_ends(bench: Bench) -> None:
    attachment = bench.attachment(bench.pod())
    stdin = json.dumps(attachment.config()).encode()
    process = call.start(attachment.plugin, attachment.env("ADD"), subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.wait(call.TIMEOUT)
    ended = time.monotonic()
    output = b""
    for pipe in (process.stdout, process.stderr):
        while select.select([pipe], [], [], call.TIMEOUT)[0]:
            chunk = os.read(pipe.fileno(), 1 << 16)
            output += chunk if pipe is process.stdout else b""
            if not chunk:
                break
        pipe.close()
    took = time.monotonic() - ended

    attachment.result = json.loads(output)
    assert took < EOF_LIMIT, f"open for {took:.1f} s more"
    attachment.detach()


@case("I15", "the plugin may be replaced while it is in use")
def replaced(bench: Bench) -> None:
    directory = bench.directory
    program = directory / bench.world.plugin.name
    shutil.copy2(bench.world.plugin, program)
    for beside in bench.world.plugin.parent.glob(".*"):  # files of its own, where it looks for them
        if beside.is_file():
            shutil.copy2(beside, directory)
    attachments = [bench.attachment(bench.pod(), plugin=program) for _ in range(10)]

    def replace() -> None:
        for _ in range(20):
            fresh = Path(shutil.copy2(bench.world.plugin, directory / "fresh"))
            fresh.replace(program)
            time.sleep(0.01)

    def cycle(attachment: Attachment) -> None:
        attachment.attach()
        silent(attachment.delete())

    with ThreadPoolExecutor(3) as pool:
        replacing = pool.submit(replace)
        cycles = [pool.submit(cycle, one) for one in attachments]
    replacing.result()
    for one in cycles:
        one.result()
