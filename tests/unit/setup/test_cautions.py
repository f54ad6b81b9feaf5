# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/cautions.py: what setup does as it is told, and nobody meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pycni.settings import Settings
from pycni.setup.cautions import look
from pycni.stores import open_store
from unit.cli.test_install import NODE
from unit.stores.etcds import Etcd


def settings(directory: Path, store: str) -> Settings:
    return Settings(node_name="n1", state_dir=directory / "state", store=store)


def test_a_store_that_is_not_set_is_said(tmp_path: Path) -> None:
    (text,) = look(settings(tmp_path, ""))

    assert "`store` is not set" in text
    assert f"set store = 'sqlite:{tmp_path}/state/cluster.db'" in text


@pytest.mark.parametrize(("encap", "said"), [("auto", 2), ("direct", 1), ("auto-direct", 1)])
def test_routers_that_know_pods_are_for_packets_without_vxlan(
    tmp_path: Path, encap: str, said: int
) -> None:
    chosen = {"encap": encap, "routers_know_pods": True}
    found = look(settings(tmp_path, "").model_copy(update=chosen))

    assert len(found) == said
    assert ("routers_know_pods" in found[-1]) == (said == 2)


def test_it_is_said_again_when_the_node_is_set_up(tmp_path: Path) -> None:
    made(tmp_path)

    assert len(look(settings(tmp_path, ""))) == 1


def made(directory: Path) -> None:
    (directory / "state").mkdir()
    (directory / "state" / "node.json").write_text(json.dumps(NODE))


@pytest.mark.parametrize(
    ("path", "missing"),
    [("new/cluster.db", "there is no directory"), ("cluster.db", "there is no store")],
)
def test_a_database_that_setup_would_make_is_said(tmp_path: Path, path: str, missing: str) -> None:
    (text,) = look(settings(tmp_path, f"sqlite:{tmp_path}/{path}"))

    assert text.startswith(f"{missing} ")
    assert "makes a new cluster" in text
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_there_is_no_news(tmp_path: Path) -> None:
    one = settings(tmp_path, f"sqlite:{tmp_path}/cluster.db")
    open_store(one.store_url, one.cluster)

    assert look(one) == []


def test_a_node_that_is_set_up_makes_no_store(tmp_path: Path) -> None:
    """Setup refuses: see provision.py."""
    made(tmp_path)

    assert look(settings(tmp_path, f"sqlite:{tmp_path}/lost.db")) == []


def test_an_etcd_prefix_that_nobody_has_is_said(tmp_path: Path, etcd: Etcd) -> None:
    one = settings(tmp_path, etcd.url("typo"))

    (text,) = look(one)
    open_store(one.store_url, one.cluster)

    assert "there is no cluster in etcd at" in text
    assert "prefix /typo/" in text
    assert look(one) == []


def test_a_store_that_does_not_answer_is_left_to_setup(tmp_path: Path) -> None:
    assert look(settings(tmp_path, "etcd://127.0.0.1:9")) == []
    assert look(settings(tmp_path, "gopher://x")) == []
