# SPDX-License-Identifier: Apache-2.0
"""The suite itself: it finds what is wrong with a plugin, and harms nothing outside its sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import schema
from conformance.bench import Bench, Network, World
from conformance.oracle import Oracle, Snapshot
from conformance.registry import VERSIONS
from conformance.subject import Subject

HERE = Path(__file__).parent

RESULT = {
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "192.0.2.2/24", "gateway": "192.0.2.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0"}],
}

LIAR = f"""#!{sys.executable} -IS
import json, os
if os.environ.get("CNI_COMMAND") == "VERSION":
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}}))
elif os.environ.get("CNI_COMMAND") == "ADD":
    print(json.dumps({{"cniVersion": "1.0.0", **{RESULT!r}}}))
    open("/run/left-behind-" + os.environ.get("CNI_CONTAINERID", ""), "w").close()
"""
"""A plugin that attaches nothing, says it has, and leaves a file."""

HONEST = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >> "${0%/*}/calls"
test "$CNI_COMMAND" = DEL || echo '{"cniVersion": "1.0.0"}'
"""
"""A plugin that writes down what it is called for."""


class Blind(Oracle):
    """It sees nothing, wherever it is."""

    def __init__(self) -> None:
        pass

    def snapshot(self) -> Snapshot:
        return {}


@pytest.mark.parametrize("version", [one for one in VERSIONS if one >= "1.0.0"])
def test_a_right_result_has_no_problems(version: str) -> None:
    assert schema.problems({"cniVersion": version, **RESULT}, version) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cniVersion": "0.4.0"}, "cniVersion"),
        ({"ips": [{"address": "192.0.2.2", "interface": 0}]}, "address"),
        ({"ips": [{"address": "192.0.2.2/24", "interface": 1}]}, "interface"),
        ({"ips": [{"address": "192.0.2.2/24", "interface": -1}]}, "interface"),
        ({"ips": [{"address": "192.0.2.2/24", "interface": 0, "gateway": ""}]}, "gateway"),
        ({"ips": [{"version": "4", "address": "192.0.2.2/24", "interface": 0}]}, "version"),
        ({"interfaces": [{"name": "eth0", "mac": ""}]}, "mac"),
        ({"routes": [{"dst": "nowhere"}]}, "dst"),
        ({"dns": {"nameservers": ["a.name"]}}, "nameservers"),
        ({"ip4": {"ip": "192.0.2.2/24"}}, "ip4"),
    ],
)
def test_a_wrong_result_is_described(change: dict[str, object], word: str) -> None:
    problems = schema.problems({"cniVersion": "1.0.0", **RESULT, **change}, "1.0.0")

    assert any(word in problem for problem in problems), problems


@pytest.mark.root
def test_a_plugin_that_lies_fails_and_the_machine_is_as_before(tmp_path: Path) -> None:
    plugin, conf, report = tmp_path / "liar", tmp_path / "liar.json", tmp_path / "report.json"
    plugin.write_text(LIAR)
    plugin.chmod(0o755)
    conf.write_text(json.dumps({"cniVersion": "1.0.0", "name": "lies", "type": "liar"}))
    options: list[str | Path] = ["--only", "A2,B1,C1,C4,D2,E4,F1,F5", "--json", report]

    done = subprocess.run(
        [sys.executable, "-m", "conformance", "--plugin", plugin, "--conf", conf, *options],
        cwd=HERE.parent,
        capture_output=True,
        timeout=120,
        check=False,
    )

    cases = {one["case"]: one for one in json.loads(report.read_bytes())["liar"]["cases"]}
    assert done.returncode == 1
    assert cases["C1[1.0.0 liar]"]["reason"] == "there is no eth0 in the pod"
    assert cases["C1[1.1.0 liar]"]["result"] == "skip"
    assert cases["F1[empty]"]["result"] == "pass"
    assert cases["F5"]["reason"].startswith("not supported")
    assert "/run/left-behind-" in cases["D2"]["reason"]
    assert cases["B1[empty]"]["result"] == "fail"
    assert list(Path("/run").glob("left-behind-*")) == []
    assert not Path("/run/conformance").exists()


@pytest.mark.root
def test_what_a_warm_up_attached_before_it_failed_is_detached(tmp_path: Path) -> None:
    plugin, calls = tmp_path / "honest", tmp_path / "calls"
    plugin.write_text(HONEST)
    plugin.chmod(0o755)
    network = Network("one", {"cniVersion": "1.0.0", "name": "one", "type": "honest"})
    subject = Subject("honest", str(plugin), {})
    bench = Bench(World(subject, plugin, "", {"one": network}, ("1.0.0",), Blind(), {}), "G20")

    def a_chain_of_which_the_second_fails(before: Bench) -> None:
        before.attachment().attach()
        raise AssertionError("the second")

    with pytest.raises(AssertionError, match="the second"):
        bench.warm_up(a_chain_of_which_the_second_fails)

    assert calls.read_text().splitlines() == ["ADD g20-warm-up-1", "DEL g20-warm-up-1"]


def test_on_a_slow_machine_every_limit_is_longer() -> None:
    told = "from conformance import call; print(call.TIMEOUT, call.FAILURE_LIMIT)"
    environment = os.environ | {"CONFORMANCE_PATIENCE": "3"}

    done = subprocess.run(
        [sys.executable, "-c", told], cwd=HERE.parent, env=environment, capture_output=True,
        check=True,
    )  # fmt: skip

    assert done.stdout.split() == [b"90.0", b"15.0"]
