# SPDX-License-Identifier: Apache-2.0
"""A cluster's record, and what is refused before anything is made."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import build, images, life
from cluster.layout import Cluster
from cluster.life import Running
from cluster.machine import Machine
from pycni.errors import NotAvailable, PycniError
from unit.cluster.clusters import PROGRAMS, drawn


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return life.base()


@pytest.fixture
def cluster(base: Path) -> Cluster:
    return replace(drawn(name="one", nodes=3, kube_proxy="none"), base=base)


def test_a_cluster_is_found_again_by_its_name(cluster: Cluster) -> None:
    life._record(Running(cluster, PROGRAMS))

    assert life.load("one") == Running(cluster, PROGRAMS)
    assert life.names() == ["one"]
    assert cluster.directory.stat().st_mode & 0o777 == 0o700


def test_what_was_chosen_is_found_again_and_older_records_lack_it(cluster: Cluster) -> None:
    newer = replace(cluster, containerd="2.4.2", encap="ipip")
    life._record(Running(newer, PROGRAMS))
    record = cluster.directory / life.RECORD
    found = life.load("one").cluster
    document = json.loads(record.read_text())
    for field in life.CHOSEN:
        del document[field]
    record.write_text(json.dumps(document))

    assert found == newer
    assert life.load("one").cluster == cluster


@pytest.mark.parametrize(
    "wrong", [{"containerd": "2"}, {"containerd": "1.7.20"}, {"kubernetes": "latest"}]
)
def test_what_is_no_version_is_refused_before_anything_is_made(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    monkeypatch.setattr(life.os, "geteuid", lambda: 0)
    monkeypatch.setattr(build, "provide", pytest.fail)

    with pytest.raises(PycniError, match="is no version of"):
        life.up(replace(cluster, **wrong), pytest.fail)

    assert not cluster.directory.exists()


def test_a_containerd_that_is_built_needs_none_of_debians(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life.shutil, "which", lambda _: None)

    life._require_programs(replace(cluster, containerd="2.4.2"))
    with pytest.raises(PycniError, match="needs ctr, runc") as caught:
        life._require_programs(cluster)

    assert caught.value.hint == "apt-get install containerd runc"


def test_one_that_is_not_there_is_named_with_those_that_are(cluster: Cluster) -> None:
    life._record(Running(cluster, PROGRAMS))

    with pytest.raises(NotAvailable, match="there is no cluster other") as error:
        life.load("other")

    assert "one" in error.value.hint


def test_what_a_newer_version_wrote_besides_is_left_aside(cluster: Cluster) -> None:
    life._record(Running(cluster, PROGRAMS))
    record = cluster.directory / life.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "later": 1}))

    assert life.load("one") == Running(cluster, PROGRAMS)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"name": "one"}'])
def test_a_record_that_is_damaged_is_named(cluster: Cluster, text: str) -> None:
    life._record(Running(cluster, PROGRAMS))
    (cluster.directory / life.RECORD).write_text(text)

    with pytest.raises(PycniError, match=r"cluster\.json is damaged") as error:
        life.load("one")

    assert str(cluster.directory) in error.value.hint


def test_a_name_that_somebody_takes_while_kubernetes_is_built_stays_theirs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Running(replace(cluster, nodes=2), PROGRAMS)

    def build(*_: object, **__: object) -> Path:
        life._record(theirs)
        return PROGRAMS

    monkeypatch.setattr(life.os, "geteuid", lambda: 0)
    monkeypatch.setattr(life.build, "provide", build)
    monkeypatch.setattr(life.images, "provide", lambda *_, **__: [])
    monkeypatch.setattr(life.image, "provide", lambda **_: SimpleNamespace(archive=PROGRAMS))
    monkeypatch.setattr(life, "down", pytest.fail)

    with pytest.raises(PycniError, match="is up already"):
        life.up(cluster, print)

    assert life.load("one") == theirs
    assert [file.name for file in cluster.directory.iterdir()] == [life.RECORD]


def test_a_name_that_is_taken_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life.os, "geteuid", lambda: 0)
    life._record(Running(cluster, PROGRAMS))

    with pytest.raises(PycniError, match="is up already"):
        life.up(cluster, pytest.fail)

    assert life.names() == ["one"]


def test_a_namespace_of_somebody_else_is_left_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life.os, "geteuid", lambda: 0)
    monkeypatch.setattr(life.topology, "exists", lambda name: name == "one-node2")

    with pytest.raises(PycniError, match="one-node2 that is not of this cluster"):
        life.up(cluster, pytest.fail)

    assert not cluster.directory.exists()


def test_who_is_not_root_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life.os, "geteuid", lambda: 1000)

    with pytest.raises(PycniError, match="needs root"):
        life.up(cluster, pytest.fail)


@pytest.mark.parametrize(("mode", "package"), [("nftables", "nftables"), ("iptables", "iptables")])
def test_a_program_that_is_missing_is_named_with_its_package(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, mode: str, package: str
) -> None:
    (program,) = life.PROXY_PROGRAMS[mode]
    monkeypatch.setattr(life.os, "geteuid", lambda: 0)
    monkeypatch.setattr(life.shutil, "which", lambda name: None if name == program else name)

    with pytest.raises(PycniError, match=f"kube-proxy {mode} needs {program}") as caught:
        life.up(replace(cluster, kube_proxy=mode), pytest.fail)

    assert caught.value.hint == f"apt-get install {package}"
    assert not cluster.directory.exists()


@pytest.mark.parametrize("error", [PycniError("no API server"), KeyboardInterrupt()])
def test_what_fails_or_is_interrupted_is_taken_down(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(life.os, "geteuid", lambda: 0)
    monkeypatch.setattr(build, "provide", lambda *_, **__: PROGRAMS)
    monkeypatch.setattr(images, "provide", lambda *_, **__: [])
    monkeypatch.setattr(life.image, "provide", lambda **_: SimpleNamespace(archive=Path("image")))
    monkeypatch.setattr(life, "_start_nodes", fail)
    monkeypatch.setattr(life, "down", lambda one: life.shutil.rmtree(one.directory))

    with pytest.raises(type(error)):
        life.up(cluster, lambda _: None)

    assert life.names() == []


def test_what_is_done_side_by_side_raises_the_first_error() -> None:
    def work(item: int) -> None:
        if item:
            raise PycniError(str(item))

    with pytest.raises(PycniError, match="1"):
        life.together(work, [0, 1, 2])


def test_who_is_interrupted_does_not_wait_for_others() -> None:
    end = threading.Event()

    def work(item: int) -> None:
        if item:
            end.wait(10)
        else:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        life.together(work, [0, 1])

    assert time.monotonic() - begun < 5
    end.set()


@pytest.mark.parametrize("error", [PycniError("a check"), KeyboardInterrupt(), None])
def test_a_cluster_is_taken_down_however_its_use_ends(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    events: list[str] = []
    monkeypatch.setattr(life, "up", lambda one, _, **__: Running(one, PROGRAMS))
    monkeypatch.setattr(life, "down", lambda one: events.append(f"down {one.name}"))

    with suppress(PycniError, KeyboardInterrupt), life.lifetime(cluster, pytest.fail):
        events.append("used")
        if error:
            raise error

    assert events == ["used", "down one"]


def test_an_interruption_waits_while_a_cluster_is_taken_down() -> None:
    done: list[int] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # test workers ignore it

    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted_while_undisturbed(done)
    finally:
        signal.signal(signal.SIGINT, before)

    assert done


def _interrupted_while_undisturbed(done: list[int]) -> None:
    with life._undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(1)


def test_a_directory_that_stays_is_said(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.directory.mkdir()
    monkeypatch.setattr(life.shutil, "rmtree", lambda *_, **__: None)

    with pytest.raises(PycniError, match="cannot be removed"):
        life._remove_directory(cluster.directory)


def test_a_machine_that_does_not_run_is_said(cluster: Cluster) -> None:
    machine = Machine(cluster.control)

    with pytest.raises(PycniError, match="the machine control does not run"):
        machine.inside(["true"])


def test_a_machine_whose_process_ended_is_not_another_of_the_same_number(cluster: Cluster) -> None:
    machine = Machine(cluster.control)
    machine.directory.mkdir(parents=True)
    (machine.directory / "init.pid").write_text(json.dumps({"pid": 1, "started": -1}))

    with pytest.raises(PycniError, match="the machine control does not run"):
        machine.inside(["true"])


def test_a_daemon_that_ended_is_named_with_its_last_words(cluster: Cluster) -> None:
    machine = Machine(cluster.control)
    machine.directory.mkdir(parents=True)
    machine.log_path("etcd").write_text("no space left\n")

    with pytest.raises(PycniError, match="etcd of control has ended") as error:
        machine.require("etcd")

    assert error.value.details == "no space left"
    assert list(machine.logs()) == ["etcd"]
