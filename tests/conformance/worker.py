# SPDX-License-Identifier: Apache-2.0
"""Runs all cases of one subject inside a sandbox; one line of JSON per event on stdout.

The first process of its PID namespace: when it ends, so does everything it started.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import conformance.cases  # noqa: F401 (registers the cases)
from conformance import call, sandbox, traffic
from conformance.bench import Bench, Network, World, bare, families_of
from conformance.call import Json
from conformance.oracle import Oracle, differences
from conformance.patience import patient
from conformance.registry import Case, all_cases
from conformance.results import FAIL, PASS, SKIP, Outcome, Skip
from conformance.subject import Subject

STABLE = patient(0.2)
"""Seconds without change after which the host counts as settled."""
SETUP_TIMEOUT = patient(120.0)


def main() -> None:
    subject = Subject(**json.loads(sys.argv[1]))
    only = sys.argv[2].split(",") if sys.argv[2] else ["*"]
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(kind: str, **body: Any) -> None:
        report.write(json.dumps({"kind": kind, **body}) + "\n")

    sandbox.furnish()
    world = _prepare(subject)
    tell(
        "start",
        versions=world.versions,
        networks={label: one.families for label, one in world.networks.items()},
    )
    if subject.profile:
        importlib.import_module(f"conformance.profiles.{subject.profile}")
    for case in all_cases(tuple(world.networks), profile=subject.profile):
        if any(
            fnmatch.fnmatchcase(case.id.partition("[")[0], one) or case.id == one for one in only
        ):
            tell("case", **_run(world, case).to_json())
    tell("end")


def _prepare(subject: Subject) -> World:
    if subject.setup:
        subprocess.run(subject.setup, check=True, timeout=SETUP_TIMEOUT, stdin=subprocess.DEVNULL)
    plugin = Path(subject.plugin)
    networks = {label: Network(label, _conf(path)) for label, path in subject.networks.items()}
    world = World(
        subject=subject,
        plugin=plugin,
        cni_path=":".join(subject.cni_path or (str(plugin.parent),)),
        networks=networks,
        versions=_versions(plugin),
        oracle=Oracle(volatile=subject.volatile, state=subject.state),
        baseline={},
    )
    for network in networks.values():
        _warm_up(world, network)
    main_conf = next(iter(networks.values())).conf
    _warm_up(world, Network("too", {**main_conf, "name": f"{main_conf['name']}-too"}))
    world.baseline = world.oracle.snapshot()
    stable = time.monotonic()
    while time.monotonic() < stable + STABLE:
        time.sleep(STABLE / 4)
        now = world.oracle.snapshot()
        if differences(world.baseline, now):
            world.baseline, stable = now, time.monotonic()
    return world


def _warm_up(world: World, network: Network) -> None:
    """One attachment, so that what is made once and stays is there before the first comparison."""
    bench = Bench(world, f"warm-up-{network.label}")
    attachment = bench.attachment(bench.pod(), network=network)
    answer = attachment.add()
    if answer.status == 0:
        network.families = families_of(answer.document)
        for address in bare(answer.document):
            traffic.pings(None, address)
    else:
        sys.stderr.write(f"warm-up of network {network.label}: {answer.told}\n")
    attachment.delete()
    bench.undo.close()


def _conf(path: str) -> Json:
    """A plugin's configuration; of a list, the first plugin with the list's name and version."""
    document: Json = json.loads(Path(path).read_bytes())
    if "plugins" not in document:
        return document
    head = {key: document[key] for key in ("name", "cniVersion") if key in document}
    return {**document["plugins"][0], **head}


def _versions(plugin: Path) -> tuple[str, ...]:
    answer = call.execute(plugin, {"CNI_COMMAND": "VERSION"}, b'{"cniVersion":"1.0.0"}')
    with suppress(AssertionError):
        return tuple(answer.document.get("supportedVersions", ()))
    return ()


def _refuse_lacking(world: World, case: Case) -> None:
    """Raises Skip for a case of something that the plugin says it does not have."""
    without = world.subject.without
    why = without.get(case.id) or without.get(case.id.partition("[")[0])
    if why:
        raise Skip(why)


def _run(world: World, case: Case) -> Outcome:
    bench, begin = Bench(world, case.id), time.monotonic()
    result, reason = PASS, ""
    try:
        _refuse_lacking(world, case)
        case.run(bench)
    except Skip as skip:
        result, reason = SKIP, str(skip)
    except Exception as error:
        result, reason = FAIL, _explained(error)
    left = bench.close()
    if left and result != FAIL:
        result, reason = FAIL, f"left behind: {'; '.join(left[:4])}"
    return Outcome(case.id, case.title, result, reason, round(time.monotonic() - begin, 3))


def _explained(error: Exception) -> str:
    """The text of an assertion that has one; else the line that failed."""
    if isinstance(error, AssertionError) and str(error):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}: {frame.line})"


if __name__ == "__main__":
    main()
