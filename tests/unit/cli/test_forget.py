# SPDX-License-Identifier: Apache-2.0
"""`pycni forget`: a node that shows signs of life is forgotten only by somebody who says so."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pycni.cli import cli, forget
from pycni.cli.invocation import Invocation
from pycni.errors import FileError
from pycni.kernel import echo
from pycni.settings import Settings
from pycni.stores import open_store
from pycni.stores.ip_pools import Census
from pycni.stores.sqlite import SqliteStore
from unit.cli.test_install import NODE

VTEP = ip_address("192.0.2.2")
GATEWAY = ip_address("10.244.0.1")


class Cluster:
    """A store with node-two in it, whose agent is silent and whose addresses are, too."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(node_name="node-one", state_dir=directory)
        self.file = directory / "pycni.toml"
        self.file.write_text(f'node_name = "node-one"\nstate_dir = "{directory}"\n')
        self.answering: set[Any] = set()
        self.asked: list[Any] = []
        monkeypatch.setattr(echo, "who_answers", self._who_answers)
        self.store = open_store(self.settings.store_url, self.settings.cluster)
        self.store.register("node-two", VTEP, identity="x")
        self.silence()

    def silence(self) -> None:
        with closing(sqlite3.connect(self.settings.state_dir / "cluster.db")) as db, db:
            db.execute("UPDATE nodes SET heartbeat = 1")

    def _who_answers(self, addresses: Any) -> set[Any]:
        self.asked = list(addresses)
        return self.answering

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.store.nodes()]

    def forget(self, *arguments: str) -> Result:
        line = ("--config", str(self.file), "forget", *arguments)
        return CliRunner().invoke(cli, line, obj=Invocation())


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def test_a_node_without_a_sign_of_life_is_forgotten_at_once(cluster: Cluster) -> None:
    done = cluster.forget("node-two")

    assert done.exit_code == 0, done.output
    assert done.stdout == "node node-two is forgotten\n"
    assert {VTEP, GATEWAY} <= set(cluster.asked)
    assert cluster.names == []


def test_a_node_that_is_unknown_is_an_error(cluster: Cluster) -> None:
    assert "the cluster has no node nobody" in str(cluster.forget("nobody", "--yes").exception)


def alive(cluster: Cluster) -> None:
    cluster.store.heartbeat("node-two")


def pods_answer(cluster: Cluster) -> None:
    cluster.answering = {GATEWAY}


def vtep_answers(cluster: Cluster) -> None:
    cluster.answering = {VTEP}


SIGNS = {
    alive: "its agent is alive",
    pods_answer: "the gateway of its pods, 10.244.0.1, answers",
    vtep_answers: "its VTEP, 192.0.2.2, answers",
}


@pytest.mark.parametrize("sign", SIGNS)
def test_nobody_to_ask_means_no(cluster: Cluster, sign: Any) -> None:
    sign(cluster)

    refused = cluster.forget("node-two")

    assert refused.exit_code == 1
    assert SIGNS[sign] in refused.exception.details
    assert "--yes" in refused.exception.hint
    assert cluster.names == ["node-two"]


@pytest.mark.parametrize("sign", SIGNS)
def test_yes_forgets_all_the_same(cluster: Cluster, sign: Any) -> None:
    sign(cluster)

    done = cluster.forget("node-two", "--yes", "-o", "json")

    assert SIGNS[sign] in json.loads(done.stdout)["signs"][0]
    assert cluster.names == []


def test_this_node_itself_shows_signs_of_life(cluster: Cluster) -> None:
    (cluster.settings.state_dir / "node.json").write_text(json.dumps(NODE | {"name": "node-two"}))

    refused = cluster.forget("node-two")

    assert "it is this node" in refused.exception.details
    assert cluster.names == ["node-two"]


def test_who_may_not_ask_the_network_is_asked(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(echo, "who_answers", refuse)

    assert "CAP_NET_RAW" in cluster.forget("node-two").exception.details
    assert cluster.names == ["node-two"]


def test_a_dry_run_says_the_signs_and_forgets_nobody(cluster: Cluster) -> None:
    pods_answer(cluster)

    done = cluster.forget("node-two", "--dry-run")

    assert "would forget node node-two" in done.stdout
    assert "would ask first: the gateway" in done.stdout
    assert cluster.names == ["node-two"]


def test_a_dry_run_names_a_store_that_cannot_be_written_to(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    done = cluster.forget("node-two", "--dry-run")

    assert isinstance(done.exception, FileError)
    assert cluster.names == ["node-two"]


@pytest.mark.parametrize(("answer", "left"), [(True, []), (False, ["node-two"])])
def test_a_person_is_asked_and_decides(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, answer: bool, left: list[str]
) -> None:
    pods_answer(cluster)
    questions = []

    def confirm(question: str, **_: Any) -> None:
        questions.append(question)
        if not answer:
            raise forget.click.Abort

    monkeypatch.setattr(forget, "_is_interactive", lambda: True)
    monkeypatch.setattr(forget.click, "confirm", confirm)

    done = cluster.forget("node-two")

    assert "Cut off its pods" in questions[0]
    assert "10.244.0.1, answers" in done.stderr
    assert cluster.names == left


def test_a_silent_node_that_has_only_claims_is_forgotten(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record went, and no garbage collector runs."""
    registry = SimpleNamespace(census=lambda: [Census("a", None, "in use", silent=("node-gone",))])
    removed: list[str] = []
    monkeypatch.setattr(SqliteStore, "blocks", lambda _: registry)
    monkeypatch.setattr(SqliteStore, "remove", lambda _, name: removed.append(name))

    done = cluster.forget("node-gone")

    assert done.exit_code == 0, done.output
    assert removed == ["node-gone"]
