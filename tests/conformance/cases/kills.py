# SPDX-License-Identifier: Apache-2.0
"""I3 to I8 and I17: calls that are ended before they are done.

Runtimes end a plugin by SIGKILL, the one process only, and call DEL at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conformance import call
from conformance.bench import Bench
from conformance.call import silent
from conformance.fake_ipam import FakeIpam
from conformance.patience import patient
from conformance.registry import case
from conformance.runtime import Attachment

MOMENTS = 12
SLEEP = 2.0
"""Seconds that a fake IPAM plugin sleeps before it acts."""
GRACE = patient(5.0)
"""Seconds after which a lease of a killed call must be gone."""
SOAK, WORKERS = 100, 4
SEED = 20250101


def _begun(attachment: Attachment, command: str) -> subprocess.Popen[bytes]:
    process = call.start(attachment.plugin, attachment.env(command), subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(attachment.config()).encode())
    process.stdin.close()
    return process


def _seconds(bench: Bench, command: str) -> float:
    """What the call takes when nobody ends it."""
    attachment = bench.attachment(bench.pod())
    begin = time.monotonic()
    attachment.attach()
    middle = time.monotonic()
    attachment.detach()
    return middle - begin if command == "ADD" else time.monotonic() - middle


@case("I3", f"ADD killed at any of {MOMENTS} moments, then DEL, leaves nothing")
def killed_add(bench: Bench) -> None:
    whole = _seconds(bench, "ADD")
    pod = bench.pod()
    for moment in range(MOMENTS):
        attachment = bench.attachment(pod)
        with bench.unchanged(pod):
            process = _begun(attachment, "ADD")
            time.sleep(whole * moment / (MOMENTS - 2))
            call.kill(process)
            silent(attachment.call("DEL"))


@case("I4", f"DEL killed at any of {MOMENTS} moments, then repeated, leaves nothing")
def killed_delete(bench: Bench) -> None:
    whole = _seconds(bench, "DEL")
    pod = bench.pod()
    for moment in range(MOMENTS):
        attachment = bench.attachment(pod)
        with bench.unchanged(pod):
            attachment.attach()
            process = _begun(attachment, "DEL")
            time.sleep(whole * moment / (MOMENTS - 2))
            call.kill(process)
            attachment.detach()


@case("I5", "a killed ADD, without DEL, does not hinder another container")
def killed_and_left(bench: Bench) -> None:
    left = bench.attachment(bench.pod())
    process = _begun(left, "ADD")
    time.sleep(0.01)
    call.kill(process)

    _, other = bench.attached()

    other.detach()
    silent(left.call("DEL"))


@case("I6", "ADD killed while the IPAM plugin works: after DEL the address is free")
def killed_during_ipam(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    ipam.behave(ADD={"sleep": SLEEP})
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    process = _begun(attachment, "ADD")
    ipam.wait_for("ADD")
    call.kill(process)

    silent(attachment.call("DEL"))

    _freed(ipam)
    assert pod.link() is None, "the interface is in the pod"


@case("I7", "DEL killed while the IPAM plugin works: repeated, it frees the address")
def killed_during_ipam_delete(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    attachment.attach()
    ipam.behave(DEL={"sleep": SLEEP})
    process = _begun(attachment, "DEL")
    ipam.wait_for("DEL")
    call.kill(process)
    ipam.behave()

    attachment.detach()

    _freed(ipam)


def _freed(ipam: FakeIpam) -> None:
    time.sleep(SLEEP)  # an orphan of the fake may still be about to lease
    end = time.monotonic() + GRACE
    while ipam.leases() and time.monotonic() < end:
        time.sleep(0.05)
    assert not ipam.leases(), f"{ipam.leases()} are leased for ever"


@case("I8", "ADD that is interrupted, or loses its reader, is undone by itself or by DEL",
      over={"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP,
            "reader gone": 0})  # fmt: skip
def interrupted(bench: Bench, number: int) -> None:
    whole = _seconds(bench, "ADD")
    pod = bench.pod()
    for part in (0.3, 0.7):
        attachment = bench.attachment(pod)
        with bench.unchanged(pod):
            process = _begun(attachment, "ADD")
            if not number:
                assert process.stdout is not None
                process.stdout.close()
                process.wait(call.TIMEOUT)
            else:
                time.sleep(whole * part)
                process.send_signal(number)
                process.wait(call.TIMEOUT)
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
            silent(attachment.call("DEL"))


@case("I17", f"{SOAK} attachments, {WORKERS} at a time, a third of the calls killed, leave nothing")
def soak(bench: Bench) -> None:
    pods = [bench.pod() for _ in range(WORKERS)]
    attachments = [bench.attachment(pods[number % WORKERS]) for number in range(SOAK)]
    dice = random.Random(SEED)
    delays = [dice.choice((None, None, dice.uniform(0, 0.06))) for _ in range(SOAK)]

    def work(worker: int) -> None:
        for number in range(worker, SOAK, WORKERS):
            attachment, delay = attachments[number], delays[number]
            if delay is None:
                attachment.attach()
            else:
                process = _begun(attachment, "ADD")
                time.sleep(delay)
                call.kill(process)
            attachment.detach()

    with bench.unchanged(*pods), ThreadPoolExecutor(WORKERS) as pool:
        for one in [pool.submit(work, worker) for worker in range(WORKERS)]:
            one.result()


@case("I18", "no process is left behind by any call")
def no_process(bench: Bench) -> None:
    before = {entry for entry in os.listdir("/proc") if entry.isdigit()}
    _, attachment = bench.attached()
    attachment.detach()
    end = time.monotonic() + patient(2.0)
    while (more := _running() - before) and time.monotonic() < end:
        time.sleep(0.02)

    assert not more, f"processes {', '.join(sorted(more))} are left"


def _running() -> set[str]:
    found = set()
    for entry in os.listdir("/proc"):
        try:
            with Path(f"/proc/{entry}/stat").open() as stat:
                if stat.read().rpartition(")")[2].split()[0] not in "ZX":
                    found.add(entry)
        except OSError:
            continue
    return {entry for entry in found if entry.isdigit()}
