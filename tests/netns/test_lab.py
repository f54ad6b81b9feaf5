# SPDX-License-Identifier: Apache-2.0
"""`pycni lab` as a user runs it: up, ping, exec, down; and nothing left when it fails or stops."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.lab import cluster, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import BASE
from pycni.lab.topology import NETNS_DIR
from support.lab_services import entries, port, service
from support.labs import SESSION
from support.waiting import wait_until

IGNORE_PINGS = "open('/proc/sys/net/ipv4/icmp_echo_ignore_all', 'w').write('1')"

_numbers = itertools.count(1)


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a lab, which is gone in the end, whatever the test did."""
    name = f"{SESSION}c{next(_numbers)}"
    yield name
    if (BASE / name / "lab.json").exists():
        cluster.down(Lab.load(name))


def lab(verb: str, name: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(verb, name, *words), capture_output=True, text=True, timeout=120, check=False
    )


def command(verb: str, name: str | None, *words: str) -> list[str]:
    which = () if name is None else ("--name", name)
    return [sys.executable, "-m", "pycni", "lab", verb, *which, *words]


def left_of(name: str) -> list[str]:
    """What is there of a lab: namespaces, mounts, directory, processes."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    found = [str(path) for path in NETNS_DIR.glob(f"{name}-*")]
    found += [line for line in mounts if f"/{name}/" in line]
    found += [str(path) for path in (BASE / name,) if path.exists()]
    mark = f"/{name}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "cmdline").read_bytes():
                found.append(f"process {process.name}")
        except OSError:
            continue
    return found


def test_up_ping_exec_and_down(name: str) -> None:
    up = lab("up", name, "--nodes", "2", "--pods", "1")
    assert up.returncode == 0, up.stderr
    assert len(up.stdout.splitlines()) == 2

    ping = lab("ping", name)
    executed = lab("exec", name, "node1-pod1", "--", "cat", "/proc/net/dev")
    on_node = lab("exec", name, "node2", "--", "cat", "/proc/net/dev")
    failing = lab("exec", name, "node1-pod1", "--", "false")
    no_pod = lab("exec", name, "node7-pod1", "--", "true")
    listed = json.loads(lab("list", None, "-o", "json").stdout)
    down = lab("down", name)

    assert (ping.returncode, ping.stdout.splitlines()[-1]) == (0, "lab: 4 checks passed, 0 failed")
    assert "eth0:" in executed.stdout
    assert "pycni0:" not in executed.stdout
    assert "pycni0:" in on_node.stdout
    assert (executed.returncode, on_node.returncode, failing.returncode) == (0, 0, 1)
    assert no_pod.returncode == 1
    assert "node1-pod1" in no_pod.stderr
    assert [row for row in listed if row["lab"] == name] == [
        {
            "lab": name,
            "node": node,
            "agent": "alive",
            "netns": str(NETNS_DIR / f"{name}-{node}"),
            "pods": [f"{node}-pod1"],
        }
        for node in ("node1", "node2")
    ]
    assert down.returncode == 0, down.stderr
    assert left_of(name) == []
    assert name not in lab("list", None).stdout


def test_a_lab_with_services_forwards_them(name: str, tmp_path: Path) -> None:
    ports = [port("TCP")]
    file = tmp_path / "services.json"
    file.write_text(json.dumps({"kind": "List", "items": [service(ports=ports)]}))

    up = lab("up", name, "--nodes", "1", "--pods", "1", "--services", str(file))

    assert up.returncode == 0, up.stderr
    (node,) = Lab.load(name).layout.nodes
    wait_until(lambda: len(entries(node, "services")) == 4, "both addresses are in the map")


def test_a_command_on_a_node_is_about_that_node(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the caller's own PYCNI_CONFIG is. A pod is no node, and has none."""
    assert lab("up", name, "--nodes", "2", "--pods", "1").returncode == 0
    monkeypatch.setenv("PYCNI_CONFIG", str(BASE / name / "node1" / "pycni.toml"))
    pycni = ("--", sys.executable, "-m", "pycni")

    for node, other in (("node1", "node2"), ("node2", "node1")):
        found = lab("exec", name, node, *pycni, "endpoints", "-o", "json")
        assert {row["container"] for row in json.loads(found.stdout)} == {f"{node}-pod1"}
        assert lab("exec", name, other, "--", "printenv", "PYCNI_CONFIG").stdout == (
            f"{BASE / name / other / 'pycni.toml'}\n"
        )
    assert lab("exec", name, "node1-pod1", "--", "printenv", "PYCNI_CONFIG").returncode == 1


def test_ping_counts_what_it_cannot_try(name: str) -> None:
    """A pod whose namespace is gone, and one that is not attached."""
    assert lab("up", name, "--nodes", "1", "--pods", "4").returncode == 0
    made = Lab.load(name)
    gone, detached = made.layout.pods[1:3]
    topology.remove_netns(gone.netns)
    made.detach(detached)

    ping = lab("ping", name)
    rows = json.loads(lab("ping", name, "-o", "json").stdout)

    assert (ping.returncode, ping.stderr) == (1, "")
    assert ping.stdout.splitlines()[-1] == f"lab: 4 checks passed, {rows['failed']} failed"
    words = {row["check"]: row["found"] for row in rows["checks"] if not row["ok"]}
    assert (
        f"peer echo in {gone.netns} failed" in words[f"ping {gone.name} -> node1-pod1 10.244.0.2"]
    )
    assert words[f"ping node1-pod1 -> {detached.name}"] == (
        f"{detached.name} is not attached: it has no address"
    )
    assert rows["passed"] == 4  # between the first and the last pod, both ways, both families


def test_run_tells_what_it_found_in_words(name: str) -> None:
    """No lists or tables as Python would print them."""
    run = lab("run", name, "--nodes", "2", "--pods", "1")

    assert run.returncode == 0, run.stdout
    assert not re.findall(r"[\[{}]|'", run.stdout)
    assert re.search(r"^lab: \d+ checks passed, 0 failed$", run.stdout, re.MULTILINE)
    assert left_of(name) == []


def test_run_as_json_is_one_document(name: str) -> None:
    run = lab("run", name, "--nodes", "1", "--pods", "1", "-o", "json")

    document = json.loads(run.stdout)
    assert (run.returncode, document["failed"]) == (0, 0)
    assert all(check["ok"] for check in document["checks"])
    assert document["passed"] == len(document["checks"]) > 0


def test_ping_fails_when_a_pod_is_silent(name: str) -> None:
    assert lab("up", name, "--nodes", "1", "--pods", "2").returncode == 0
    quiet = ["nsenter", f"--net={NETNS_DIR / name}-node1-pod1", "--", sys.executable, "-c"]
    subprocess.run([*quiet, IGNORE_PINGS], check=True)

    ping = lab("ping", name)

    assert ping.returncode == 1
    assert "FAIL" in ping.stdout
    assert ping.stdout.splitlines()[-1] == "lab: 3 checks passed, 1 failed"


def test_a_lab_that_is_up_is_not_brought_up_again(name: str) -> None:
    assert lab("up", name, "--nodes", "1", "--pods", "1").returncode == 0

    again = lab("up", name, "--nodes", "1", "--pods", "1")

    assert again.returncode == 1
    assert "up already" in again.stderr
    assert lab("exec", name, "node1-pod1", "--", "true").returncode == 0


@pytest.mark.parametrize("verb", ["ping", "down"])
def test_a_lab_that_is_not_up_is_an_error(name: str, verb: str) -> None:
    failed = lab(verb, name)

    assert failed.returncode == 1
    assert f"there is no lab named {name}" in failed.stderr
    assert f"pycni lab up --name {name}" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_failing_up_leaves_nothing(name: str, tmp_path: Path) -> None:
    """Where no compiler is found the agents do not start."""
    (tmp_path / "nsenter").symlink_to("/usr/bin/nsenter")
    environment = os.environ | {"PATH": str(tmp_path)}

    failed = subprocess.run(
        command("up", name), env=environment, capture_output=True, text=True, check=False
    )

    assert failed.returncode == 1
    assert "clang" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert left_of(name) == []


@pytest.mark.parametrize(
    "moment",
    ["node1", "node2/agent.log", "node1/run/agent.sock", "node1/state/rotation.json"],
)
def test_an_interrupted_up_leaves_nothing(name: str, moment: str) -> None:
    """Interrupted once a file is there, as by Ctrl-C: the whole process group gets SIGINT.

    Which a shell's background job, and so all that it starts, would ignore.
    """
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command("up", name, "--pods", "6")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as up:
        wait_until(lambda: (BASE / name / moment).exists(), f"{moment} is there", seconds=60)
        os.killpg(up.pid, signal.SIGINT)
        _, stderr = up.communicate(timeout=60)

    assert up.returncode != 0, stderr
    assert left_of(name) == []


def test_down_clears_what_a_killed_up_left(name: str) -> None:
    with subprocess.Popen(
        command("up", name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as up:
        wait_until(lambda: (BASE / name / "node1/run/agent.sock").exists(), "agents", seconds=60)
        up.kill()
    assert left_of(name) != []

    down = lab("down", name)

    assert down.returncode == 0, down.stderr
    assert left_of(name) == []
