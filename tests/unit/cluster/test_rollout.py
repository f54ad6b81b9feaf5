# SPDX-License-Identifier: Apache-2.0
"""Installing, upgrading, refusing and removing: what counts, and how it is told."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import bare, hosts, pings, refusals, release, rollout, upgrades
from cluster.bare import Rollout
from cluster.kubectl import Json
from cluster.life import Running
from cluster.pings import Answers, Pings
from cluster.refusals import REFUSALS, Refusal
from pycni.errors import PycniError
from pycni.lab.checks import Check
from support import leftovers
from unit.cluster.clusters import PROGRAMS, drawn

ROLLOUT = Rollout(Running(drawn(), PROGRAMS), releases=("pycni:1", "pycni:2"))
DONE = {
    "metadata": {"generation": 2},
    "status": {"desiredNumberScheduled": 3, "observedGeneration": 2, "updatedNumberScheduled": 3,
               "numberReady": 3},
}  # fmt: skip


def images(made: list[Json]) -> set[str]:
    pods = [one["spec"]["template"]["spec"] for one in made if one["kind"] == "DaemonSet"]
    return {c["image"] for pod in pods for c in (*pod["initContainers"], *pod["containers"])}


def test_every_container_gets_the_image_of_a_release() -> None:
    assert images(release.objects(drawn(), image="pycni:2")) == {"pycni:2"}


@pytest.mark.parametrize(
    "status",
    [{"desiredNumberScheduled": 0}, {"observedGeneration": 1}, {"updatedNumberScheduled": 2},
     {"numberReady": 2}],
)  # fmt: skip
def test_a_release_is_rolled_out_when_each_node_has_a_ready_pod_of_it(status: Json) -> None:
    assert release.is_rolled_out(DONE)
    assert not release.is_rolled_out(DONE | {"status": DONE["status"] | status})


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda one: one.what)
def test_each_refusal_has_one_thing_wrong_on_one_node(refusal: Refusal, tmp_path: Path) -> None:
    cluster = replace(drawn(), base=tmp_path)
    cluster.keys.mkdir(parents=True)
    (cluster.keys / "api.crt").write_text("a certificate")
    right = release.objects(cluster)

    made = refusal.change(cluster, copy.deepcopy(right))
    placed = refusals.on_one_node(cluster, copy.deepcopy(made))

    assert made != right
    selector = refusals.pod_of(placed)["nodeSelector"]
    assert selector["kubernetes.io/hostname"] == cluster.workers[0].name
    assert all(refusal.words)


def test_what_containers_and_the_scheduler_say_is_heard() -> None:
    pod = {
        "status": {
            "conditions": [{"type": "PodScheduled", "message": "no node fits"}, {"type": "Ready"}],
            "initContainerStatuses": [
                {"state": {"waiting": {"message": "back-off"}},
                 "lastState": {"terminated": {"message": "no bpffs"}}}
            ],
            "containerStatuses": [{"state": {"running": {}}, "lastState": {}}],
        }
    }  # fmt: skip

    assert refusals.said([pod]) == ["no node fits", "back-off", "no bpffs"]


def test_words_that_nobody_says_are_told_with_what_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent:
        def get(self, *_: str) -> Json:
            return {"items": [{"status": {"conditions": [{"message": "something else"}]}}]}

    monkeypatch.setattr(Running, "kubectl", property(lambda _: Silent()))
    monkeypatch.setattr(refusals, "SAID_SECONDS", 0)

    found = refusals.wait_for_words(ROLLOUT, "pycni", ("no bpffs",))

    assert found == "it says ['something else']"
    assert refusals.wait_for_words(ROLLOUT, "pycni", ("something", "else")) is None


def test_files_count_and_empty_directories_and_what_is_of_others_do_not(tmp_path: Path) -> None:
    for name in ("etc/cni/net.d/10.conflist", "var/lib/pycni/node.json", "run/pycni/agent.sock",
                 "run/containerd/task", "var/lib/kubelet/pods/1", "usr/bin/pycni"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "opt/cni/bin").mkdir(parents=True)
    (tmp_path / "run/link").symlink_to("nowhere")

    found = [line.split()[0] for line in hosts.files(tmp_path)]

    assert sorted(found) == ["/etc/cni/net.d/10.conflist", "/run/link", "/run/pycni/agent.sock",
                             "/var/lib/pycni/node.json"]  # fmt: skip


def test_what_is_left_on_a_machine_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    was = {node.name: {"links": ["lo"]} for node in ROLLOUT.cluster.machines}
    monkeypatch.setattr(bare, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(hosts, "take", lambda _: was | {"node2": {"links": ["lo", "pycni0"]}})

    found = {one.name: one for one in bare.bare_again(replace(ROLLOUT, bare=was))}

    assert [one.passed for one in found.values()] == [True, True, False]
    assert found["node2 is as it was before pycni"].found == "node2: + links: pycni0"


def test_what_cannot_be_installed_is_removed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(_: Rollout) -> Iterator[Check]:
        raise PycniError("no API server")
        yield

    def uninstall(_: Rollout) -> Iterator[Check]:
        yield Check("removed", passed=True)

    monkeypatch.setattr(hosts, "take", lambda _: {})
    monkeypatch.setattr(rollout, "refusals", lambda _: iter(()))
    monkeypatch.setattr(rollout, "install", install)
    monkeypatch.setattr(rollout, "uninstall", uninstall)
    monkeypatch.setattr(rollout, "tear_down", lambda _: None)

    found = list(rollout.everything(replace(ROLLOUT, servers={})))

    assert [(one.name, one.passed) for one in found] == [
        ("install", False),
        ("the namespace is deleted with all in it", True),
        ("removed", True),
    ]


@pytest.mark.parametrize(
    ("answers", "found"),
    [(Answers(1000, 0, ""), ""), (Answers(1000, 1, "1 of 1000"), "1 of 1000"),
     (Answers(499, 0, ""), "they are too few")],
)  # fmt: skip
def test_a_change_is_without_loss_when_all_pings_of_its_time_are_answered(
    monkeypatch: pytest.MonkeyPatch, answers: Answers, found: str
) -> None:
    monkeypatch.setattr(Pings, "stop", lambda _: answers)

    check = upgrades._answered(Pings("a", "b", "10.0.0.1"), "upgrade", 10.0)

    assert check.passed == (not found)
    assert check.passed or check.found == found
    assert check.name == f"upgrade: none of {answers.sent} pings a -> b 10.0.0.1 is lost"


def test_pings_to_loopback_are_answered_and_counted() -> None:
    """In this process' own network namespace."""
    flow = Pings("here", "here", "127.0.0.1")
    flow.start(Path("/proc/self/ns/net"))

    answers = flow.stop()

    assert answers.lost == 0
    assert answers.sent >= 1


def test_pings_that_end_by_themselves_are_an_error() -> None:
    flow = Pings("here", "nowhere", "no address")
    flow.start(Path("/proc/self/ns/net"))
    assert flow._process is not None
    flow._process.wait(20)

    with pytest.raises(PycniError, match="here -> nowhere no address ended too early"):
        flow.stop()
    flow.kill()


def test_lost_pings_are_told_by_their_numbers() -> None:
    answer: dict[str, Any] = {"sent": 10, "received": 7, "errors": 1, "unread": 1,
                              "missing": [[3, 5]]}  # fmt: skip

    words = pings._words(answer)

    assert words.startswith("3 of 10, by their numbers [[3, 5]]")
    assert "1 could not be sent" in words
    assert "1 replies came and were not read" in words


def test_a_pods_namespace_is_that_of_a_process_in_its_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = {"metadata": {"uid": "1-2", "name": "a"}, "spec": {"nodeName": "node1"}}
    group = tmp_path / "kubepods/besteffort/pod1-2/container"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"999999999\n{os.getpid()}\n")
    monkeypatch.setattr(leftovers, "cgroups", lambda _: [tmp_path])

    assert pings.netns_of(drawn(), pod) == Path(f"/proc/{os.getpid()}/ns/net")
    (group / "cgroup.procs").write_text("")
    with pytest.raises(PycniError, match="no process of the pod a runs"):
        pings.netns_of(drawn(), pod)
