# SPDX-License-Identifier: Apache-2.0
"""Checks: what counts as passed, and how errors are told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cluster import __main__ as program
from cluster import checks, runtime_checks, service_checks, traces, verdicts, waiting
from cluster.kubectl import Json, Kubectl, is_ready
from cluster.layout import KUBE_PROXY_MODES
from cluster.life import Running
from cluster.scene import FAILED, FETCH_ALL, KNOCK, Scene, hostname_url
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab.checks import Check
from unit.cluster.clusters import PROGRAMS, drawn

RUNNING = Running(drawn(), PROGRAMS)


def test_what_raises_has_failed_with_its_words() -> None:
    def fail() -> None:
        raise PycniError("it broke", details="here")

    assert verdicts.one("something", fail) == Check("something", False, "it broke; here")


def test_what_finds_nothing_has_passed() -> None:
    assert verdicts.one("something", lambda: None) == Check("something", True)
    assert not verdicts.one("something", lambda: "a fault").passed


def test_a_group_that_cannot_go_on_is_a_failed_check() -> None:
    def half_a_group(_: Scene) -> Iterator[Check]:
        yield Check("first", passed=True)
        raise PycniError("no API")

    found = list(verdicts.to_the_end(half_a_group, Scene(RUNNING)))

    assert [one.passed for one in found] == [True, False]
    assert found[1].name == "half a group"


def test_without_kube_proxy_nothing_of_services_is_checked() -> None:
    of_services = {service_checks.services, service_checks.names, service_checks.rolling_update}

    for mode in KUBE_PROXY_MODES:
        groups = checks.groups(drawn(kube_proxy=mode))
        assert of_services.isdisjoint(groups) == (mode == "none")
        assert checks.pods in groups


def test_what_only_newer_runtimes_do_is_checked_with_those() -> None:
    newer = {runtime_checks.polled_status, runtime_checks.users_of_their_own}

    assert newer.isdisjoint(checks.groups(drawn()))
    assert newer < set(checks.groups(drawn(containerd="2.4.2")))


@pytest.mark.parametrize(
    ("answers", "found"),
    [({"web-1", "web-3"}, ""), ({"web-1", "web-2"}, "no answer from node2"),
     ({"web-1", "web-3", FAILED}, FAILED)],
)  # fmt: skip
def test_a_service_has_to_lead_to_every_node(answers: set[str], found: str) -> None:
    nodes = {"web-1": "node1", "web-2": "node1", "web-3": "node2"}

    assert service_checks.lacking(nodes, answers) == found


def test_nothing_more_is_checked_if_pods_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Scene) -> None:
        raise PycniError("no pods")

    monkeypatch.setattr(checks, "nodes", lambda _: iter(()))
    monkeypatch.setattr(checks, "set_up", fail)
    monkeypatch.setattr(checks, "tear_down", lambda _: None)
    monkeypatch.setattr(traces, "of_pods", lambda *_: set())

    found = list(checks.everything(RUNNING))

    assert [one.passed for one in found] == [False, True, True, True]


def test_what_pods_leave_on_a_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (node, *_) = RUNNING.cluster.workers
    monkeypatch.setattr(traces, "LEFT_SECONDS", 0)
    monkeypatch.setattr(traces, "of_pods", lambda *_: {"link eth0", "link pycni123"})

    assert traces.left(RUNNING, node, {"link eth0"}) == "link pycni123"
    assert traces.left(RUNNING, node, {"link eth0", "link pycni123"}) == ""


def test_what_pods_leave_on_a_node_that_booted_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (node, *_) = RUNNING.cluster.workers
    before = {"endpoint 10.0.0.2", "link pycni1", "link eth0", "control group /a", "result x"}
    monkeypatch.setattr(traces, "LEFT_SECONDS", 0)
    now = {"endpoint 10.0.0.9", "link pycni7", "link eth0", "result y"}
    monkeypatch.setattr(traces, "of_pods", lambda *_: now)

    assert traces.surplus(RUNNING, node, before) == ""
    now.add("result z")
    assert "'result': 2" in traces.surplus(RUNNING, node, before)


def test_what_is_wrong_at_first_and_not_later_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0)
    found = iter(["two", "one", ""])

    assert waiting.remaining(lambda: next(found), 60) == ""
    assert waiting.remaining(lambda: "always", 0) == "always"


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [([], False), ([{"type": "Ready", "status": "Unknown"}], False),
     ([{"type": "Initialized", "status": "True"}], False),
     ([{"type": "Ready", "status": "True"}], True)],
)  # fmt: skip
def test_ready_is_what_the_condition_says(conditions: list[Json], ready: bool) -> None:
    assert is_ready({"status": {"conditions": conditions}}) is ready


def fake_curl(directory: Path, script: str) -> dict[str, str]:
    curl = directory / "curl"
    curl.write_text(f"#!/bin/sh\n{script}\n")
    curl.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


def test_urls_are_fetched_a_line_each(tmp_path: Path) -> None:
    environment = fake_curl(tmp_path, 'case "$*" in *good*) echo pod ;; *) exit 7 ;; esac')

    done = subprocess.run(
        ["sh", "-c", FETCH_ALL, "sh", "http://good", "http://bad"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == f"http://good pod\nhttp://bad {FAILED}\n"


def test_requests_and_failures_are_counted(tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    count = f"echo >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -lt 4 ] || touch {enough}"
    environment = fake_curl(tmp_path, f"{count}; [ $(wc -l <{tmp_path}/calls) != 2 ]")

    done = subprocess.run(
        ["sh", "-c", KNOCK.replace("/tmp/enough", str(enough)), "sh", "http://web"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == "4 1\n"


def test_addresses_of_both_families_are_in_urls() -> None:
    assert hostname_url("10.0.0.1") == "http://10.0.0.1:80/hostname"
    assert hostname_url("fd00::1", 8080) == "http://[fd00::1]:8080/hostname"


def test_waiting_ends_with_what_was_waited_for() -> None:
    with pytest.raises(PycniError, match=r"not within 0 s: the end"):
        until(lambda: False, "the end", 0)


def test_kubectl_speaks_as_the_administrator_in_the_scenes_namespace() -> None:
    command = list(map(str, Scene(RUNNING).kubectl.command("get", "pods")))

    assert command[0] == "/programs/kubectl"
    assert "--namespace=pycni-check" in command
    assert any(word.endswith("/keys/admin.kubeconfig") for word in command)
    others = Kubectl(RUNNING.cluster, PROGRAMS).command("get", "nodes")
    assert not any("--namespace" in str(word) for word in others)


@pytest.mark.parametrize(
    ("results", "last", "status"),
    [([True, True], "cluster: 2 checks passed, 0 failed", 0),
     ([True, False], "cluster: 1 checks passed, 1 failed", 1),
     ([], "cluster: 0 checks passed, 0 failed", 1)],
)  # fmt: skip
def test_the_last_line_counts_and_the_status_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    results: list[bool], last: str, status: int,
) -> None:  # fmt: skip
    found = [Check("a check", passed, "what was seen") for passed in results]
    monkeypatch.setattr(checks, "everything", lambda _: iter(found))

    assert program._report(program._run_checks(RUNNING)) == status
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(results) + 1
    assert lines[-1] == last
    assert any("what was seen" in line for line in lines) == (False in results)


@pytest.mark.parametrize("command", sorted(program.main.commands))
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(program.main, [command, "--help"])

    assert result.exit_code == 0
    assert "Usage" in result.output


def test_kubectl_gets_its_arguments_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, ...]] = []
    kubectl = SimpleNamespace(command=lambda *arguments: given.append(arguments) or [])
    running = SimpleNamespace(cluster=drawn(), kubectl=kubectl)
    monkeypatch.setattr(program.life, "load", lambda _: running)
    monkeypatch.setattr(program.processes, "inside", lambda *_: ["true"])
    monkeypatch.setattr(program.os, "execvp", lambda *_: None)

    arguments = ["exec", "-it", "pod", "--", "ls", "--name", "x"]
    result = CliRunner().invoke(program.main, ["kubectl", "--name", "one", *arguments])

    assert result.exit_code == 0
    assert given == [tuple(arguments)]


def test_a_cluster_that_is_not_there_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["cluster", "down", "--name", "nobody"])

    with pytest.raises(SystemExit) as end:
        program._run()

    assert "there is no cluster nobody" in str(end.value)
    assert "to do:" in str(end.value)
