# SPDX-License-Identifier: Apache-2.0
"""Kills: what is planned, what is counted, and what counts as passed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster import __main__ as program
from cluster import life, network
from cluster.kills import crowd, remains, short, stage, storm, traffic, victims
from cluster.kills.crowd import Crowd
from cluster.kills.stage import Stage
from cluster.kills.storm import BATCH, KEPT, Storm
from cluster.kills.traffic import Balance, Place
from cluster.kills.victims import Kind
from cluster.kubectl import Kubectl
from cluster.life import Running
from cluster.manifests import HTTP_PORT
from pycni.errors import PycniError
from pycni.lab.checks import Check
from support.asking import Flow, Heard, Reflected
from unit.cluster.clusters import PROGRAMS, drawn

RUNNING = Running(drawn(), PROGRAMS)
PLACES = [
    Place("a-node1", "node1", "1", ("10.244.0.2", "fd00::2")),
    Place("b-node1", "node1", "2", ("10.244.0.3", "fd00::3")),
    Place("a-node2", "node2", "3", ("10.244.1.2", "fd00:1::2")),
]
FLOW = Flow("a -> b", frozenset(), "10.244.0.3,7000")
WELL = Heard(FLOW, 100)


def balance(*heard: Heard, unanswered: int = 0, unread: int = 0) -> Balance:
    return Balance(heard, (Reflected(100, unanswered, unread),), begun=10.0)


def test_every_pod_asks_every_other_at_each_of_its_addresses() -> None:
    flows = [flow for place in PLACES for flow in traffic.flows(place, PLACES)]

    assert len(flows) == 3 * 2 * 2
    assert len({flow.way for flow in flows}) == len(flows)
    assert not any(flow.way.startswith("a-node1 -> a-node1") for flow in flows)


def test_a_pod_without_a_process_is_said() -> None:
    with pytest.raises(PycniError, match="no process of the pod gone runs"):
        traffic.namespace(Place("gone", "node1", "no-such-uid", ()))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (balance(WELL, WELL), []),
        (balance(), ["no flow"]),
        (balance(WELL, Heard(FLOW, 0)), ["a -> b: 0 of 0 lost"]),
        (balance(Heard(FLOW, 100, lost=(12.5, 12.0))),
         ["a -> b: 2 of 100 lost, from 2.00 s to 2.50 s"]),
        (balance(Heard(FLOW, 100, unsent=((11.0, "EPERM"),))),
         ["a -> b: 0 of 100 lost and 1 not sent (EPERM), from 1.00 s to 1.00 s",
          "1 not sent, 0 not read"]),
        (balance(WELL, unanswered=3), ["3 not sent, 0 not read"]),
        (balance(Heard(FLOW, 100, unread=1), unread=1), ["0 not sent, 2 not read"]),
    ],
)  # fmt: skip
def test_a_balance_is_even_only_if_every_flow_was_whole(found: Balance, words: list[str]) -> None:
    assert found.faults() == words
    assert stage.weighed("a blow", found).passed == (words == [])


def test_a_balance_tells_lost_from_not_sent_and_not_read() -> None:
    found = balance(Heard(FLOW, 100, (1.0,), ((2.0, "EPERM"),), 3), WELL, unanswered=4, unread=5)

    assert str(found) == "2 flows, 200 questions: 1 lost, 5 not sent, 8 not read"
    assert "1 silent" in str(balance(Heard(FLOW, 0)))


def test_many_flows_with_losses_are_told_by_a_few() -> None:
    faults = balance(*[Heard(FLOW, 10, (11.0,))] * 20).faults()

    assert len(faults) == traffic.SHOWN + 1
    assert faults[-1] == "and 14 more"


def test_control_planes_parts_are_hurt_there_and_others_on_every_worker() -> None:
    found = {places[0].component: [one.node.name for one in places]
             for places in victims.everybody(RUNNING.cluster)}  # fmt: skip

    workers = ["node1", "node2"]
    assert found == {"etcd": ["control"], "API server": ["control"], "kubelet": workers,
                     "containerd": workers, "agent": workers}  # fmt: skip


def plans(seed: int, pods: int = 100) -> list[storm.Plan]:
    return list(storm.plans(Stage(RUNNING), random.Random(seed), pods))


def test_a_storm_makes_each_pod_once_spread_over_the_workers() -> None:
    found = plans(1)

    pods = [pod for plan in found for pod in plan.pods]
    assert [len(plan.pods) for plan in found] == [BATCH, BATCH, 100 - 2 * BATCH]
    assert len({pod["metadata"]["name"] for pod in pods}) == 100
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    assert nodes.count("node1") == nodes.count("node2")
    ports = [port["hostPort"] for pod in pods
             for port in pod["spec"]["containers"][0]["ports"] if "hostPort" in port]  # fmt: skip
    assert len(set(ports)) == len(ports) > 20


def test_a_pod_that_is_deleted_at_once_is_not_wanted() -> None:
    for plan in plans(2):
        assert plan.doomed
        assert set(plan.doomed) | set(plan.wanted) == set(plan.names)
        assert not set(plan.doomed) & set(plan.wanted)
        assert len(plan.kept) == KEPT
        assert set(plan.kept) <= set(plan.wanted)


def test_one_pod_is_a_storm_that_wants_it() -> None:
    (plan,) = plans(3, pods=1)

    assert (plan.doomed, plan.wanted, plan.kept) == ((), ["pod0"], ("pod0",))


def test_the_same_seed_gives_the_same_storm() -> None:
    def blows(seed: int) -> list[str]:
        found = storm.blows(Stage(RUNNING), random.Random(seed))
        return [f"{victim} {kind}" for victim, kind in islice(found, 40)]

    assert plans(4) == plans(4) != plans(5)
    assert blows(4) == blows(4) != blows(5)


def test_every_blow_comes_once_before_any_comes_again() -> None:
    found = storm.blows(Stage(RUNNING), random.Random(6))

    for _ in range(2):
        kinds = [(victim.component, kind) for victim, kind in islice(found, 15)]
        assert len(set(kinds)) == 15


def test_a_storm_tells_of_each_blow_and_of_who_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raging = Storm(storm.blows(Stage(RUNNING), random.Random(7)), random.Random(7))
    struck = []

    def strike(victim: victims.Victim, kind: Kind, *, seconds: float) -> None:
        struck.append(f"{victim} {kind}, for {seconds:.1f} s")
        if len(struck) == 3:
            raging.calm()
            raise PycniError("it is gone")

    monkeypatch.setattr(storm, "PAUSE_SECONDS", (0, 0))
    monkeypatch.setattr(storm.victims, "strike", strike)

    raging.rage()

    found = list(raging.news())
    assert [one.name for one in found] == struck
    assert [one.passed for one in found] == [True, True, False]
    assert found[-1].found == "it is gone"
    assert list(raging.news()) == []


class Api:
    """kubectl of an API that is away at first, and then says `answers`."""

    def __init__(self, away: int, **answers: object) -> None:
        self.away = away
        self.answers = {"pods": {"items": []}, "events": {"items": []}} | answers
        self.heard: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str, **_: str) -> str:
        self.heard.append(arguments)
        if self.away:
            self.away -= 1
            raise PycniError("connection refused")
        return json.dumps(self.answers.get(arguments[2]))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PAUSE_SECONDS", 0)


def pod(name: str, *, ready: bool) -> dict[str, object]:
    waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"phase": "Pending", "conditions": conditions, "containerStatuses": [waiting]}
    return {"metadata": {"name": name}, "status": status}


def test_what_the_api_does_not_take_is_said_again() -> None:
    api = Api(away=2)

    Crowd(api).create([{"kind": "Pod"}])

    assert [words[1] for words in api.heard] == ["apply"] * 3


def test_an_api_that_stays_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "API_SECONDS", 0)

    with pytest.raises(PycniError, match="connection refused"):
        Crowd(Api(away=1000)).pods()


def test_nothing_is_asked_for_no_pods() -> None:
    api = Api(away=0)

    Crowd(api).delete([])

    assert api.heard == []


def test_pods_that_do_not_run_are_told_with_their_reason_and_events() -> None:
    items = [pod("one", ready=True), pod("two", ready=False)]
    api = Api(0, pods={"items": items}, events={"items": [{"message": "no network"}]})

    assert list(Crowd(api).wait_until_ready(["one"], 0)) == ["one"]
    with pytest.raises(PycniError, match="1 of 2 pods are not Ready") as error:
        Crowd(api).wait_until_ready(["one", "two"], 0)

    assert error.value.details == "two: Pending ContainerCreating no network"


def test_pods_that_do_not_go_are_named() -> None:
    api = Api(0, pods={"items": [pod("two", ready=False)]})

    Crowd(api).wait_until_gone(["one"], 0)
    with pytest.raises(PycniError, match="1 pods are not gone") as error:
        Crowd(api).wait_until_gone(["one", "two"], 0)

    assert "two: Pending" in error.value.details


@pytest.mark.parametrize("answers", [True, False])
def test_a_pod_that_is_not_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    made = Stage(RUNNING)
    made.scene.servers = {"a-node1": {}, "b-node1": {}, "a-node2": {}}
    monkeypatch.setattr(
        stage, "fetch", lambda _, __, urls: dict.fromkeys(urls, "new" if answers else "failed")
    )

    found = made.reached({"new": {"status": {"podIPs": [{"ip": "10.0.0.1"}]}}})

    url = f"http://10.0.0.1:{HTTP_PORT}/hostname"
    lines = [f"{source} -> new {url}: failed" for source in ("a-node1", "a-node2")]
    assert found == ("" if answers else "; ".join(lines))


def test_a_command_that_cannot_be_run_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Stage(RUNNING)
    made.scene.servers = {"a-node1": {}}
    said = iter(["no route to the API", "new"])
    monkeypatch.setattr(stage.time, "sleep", lambda _: None)
    monkeypatch.setattr(stage, "fetch", lambda _, __, urls: dict.fromkeys(urls, next(said)))

    assert made.reached({"new": {"status": {"podIPs": [{"ip": "10.0.0.1"}]}}}) == ""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster in which everything succeeds."""
    monkeypatch.setattr(Stage, "set_up", lambda _: None)
    monkeypatch.setattr(remains, "take", lambda *_: {})
    monkeypatch.setattr(remains, "more", lambda *_: [])
    monkeypatch.setattr(network, "faults", lambda *_: [])
    monkeypatch.setattr(stage.scene, "tear_down", lambda _: None)
    monkeypatch.setattr(stage, "WELL_SECONDS", 0)


@pytest.mark.usefixtures("bare")
def test_what_is_left_and_what_is_ill_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "more", lambda _, node, __: ["+ links: x"] * (node.name > "node1"))
    monkeypatch.setattr(network, "faults", lambda _, node: ["agent: away"] * (node.name < "node2"))

    found = {one.name: one.found for one in stage.framed(lambda _: iter(()), RUNNING)}

    assert {name: what for name, what in found.items() if what} == {
        "nothing is left on node2": "+ links: x",
        "pycni status of node1 is well": "agent: away",
    }


@pytest.mark.usefixtures("bare")
def test_a_run_that_cannot_go_on_has_failed_and_its_end_is_looked_at() -> None:
    def broken(_: Stage) -> Iterator[Check]:
        yield Check("first", passed=True)
        raise PycniError("no API")

    found = list(stage.framed(partial(broken), RUNNING))

    failed = [one for one in found if not one.passed]
    assert [(one.name, one.found) for one in failed] == [("broken", "no API")]
    assert found[-1].name == "pycni status of node2 is well"


@pytest.mark.usefixtures("bare")
def test_nothing_is_hurt_if_the_pods_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Stage) -> None:
        raise PycniError("no pods")

    monkeypatch.setattr(Stage, "set_up", fail)

    found = list(stage.framed(lambda _: pytest.fail("it ran"), RUNNING))

    assert [one.passed for one in found] == [False] + [True] * 5


def test_each_component_is_hurt_in_each_way_on_one_worker_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(short._Blow, "checks", lambda self, leaving: iter(
        [Check(f"{self._victim} {self._kind}", passed=True, found=" ".join(leaving))]))  # fmt: skip
    made = Stage(RUNNING)
    deleted: list[str] = []
    monkeypatch.setattr(made.crowd, "delete", deleted.extend)

    found = list(short.every_component(made))

    assert len({one.name for one in found}) == 5 * len(Kind)
    assert [one.name for one in found if one.name.startswith("agent")] == [
        "agent on node1 killed", "agent on node2 stopped", "agent on node1 killed while stopped",
    ]  # fmt: skip
    assert found[0].found == ""
    assert found[1].found == "early1-node1 early1-node2 late1-node1 late1-node2"
    assert deleted == ["early15-node1", "early15-node2", "late15-node1", "late15-node2"]


@pytest.mark.parametrize("arguments", [[], ["--pods", "5", "--seed", "9"]])
def test_a_cluster_that_is_up_stays_up(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    @contextmanager
    def lifetime(*_: object) -> Iterator[Running]:
        pytest.fail("a new one")
        yield RUNNING

    monkeypatch.setattr(life, "names", lambda: ["k8s"])
    monkeypatch.setattr(life, "load", lambda _: RUNNING)
    monkeypatch.setattr(life, "lifetime", lifetime)
    monkeypatch.setattr(program.stage, "framed", lambda *_: iter([Check("a check", passed=True)]))

    result = CliRunner().invoke(program.main, ["kills", "--name", "k8s", *arguments])

    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "cluster: 1 checks passed, 0 failed"
    assert ("5 pods, seed 9" in result.output) == bool(arguments)


def test_a_cluster_that_is_not_up_is_made_and_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    @contextmanager
    def lifetime(*_: object) -> Iterator[Running]:
        steps.append("up")
        yield RUNNING
        steps.append("down")

    monkeypatch.setattr(life, "names", list)
    monkeypatch.setattr(life, "lifetime", lifetime)
    monkeypatch.setattr(program.stage, "framed", lambda *_: iter([Check("a", False, "found")]))

    result = CliRunner().invoke(program.main, ["kills"])

    assert result.exit_code == 1
    assert steps == ["up", "down"]


def test_a_run_that_is_interrupted_deletes_its_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def interrupted(_: Stage) -> Iterator[Check]:
        yield Check("first", passed=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stage, "set_up", lambda _: None)
    monkeypatch.setattr(remains, "take", lambda *_: {})
    monkeypatch.setattr(Kubectl, "__call__", lambda _, *words: said.append(words))

    with pytest.raises(KeyboardInterrupt):
        list(stage.framed(interrupted, RUNNING))

    assert [words[:3] for words in said] == [("delete", "namespace", stage.NAMESPACE)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id gone -address /run/x", True),
        ("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id kept -address /run/x", False),
        ("/usr/bin/containerd-shim-runc-v2 -namespace other -id kept", True),
        ("/usr/bin/containerd-shim-runc-v2", False),
        ("/usr/bin/containerd-shim-runc-v2 -id gone", False),
        ("/pause -namespace k8s.io -id gone", False),
    ],
)
def test_only_a_shim_that_containerd_forgot_does_not_count(
    line: str, expected: bool, tmp_path: Path
) -> None:
    (tmp_path / "k8s.io" / "kept").mkdir(parents=True)
    assert remains.is_forgotten_shim(line.split(), tmp_path, has_child=True) is expected


def test_a_shim_without_a_container_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "k8s.io" / "kept").mkdir(parents=True)
    words = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "kept"]

    assert remains.is_forgotten_shim(words, tmp_path, has_child=False)


def test_only_a_namespace_with_nothing_in_it_is_bare(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert not remains.is_bare(tmp_path / "file")
    assert not remains.is_bare(tmp_path / "gone")
