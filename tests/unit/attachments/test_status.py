# SPDX-License-Identifier: Apache-2.0
"""pycni/attachments/status.py: what a runtime is told of a node that cannot add pods."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from pycni.attachments import status
from pycni.errors import NotAvailable, PycniError
from pycni.faults import Fault
from pycni.settings import Settings
from unit.attachments.test_attaching import NODE, call, lose_place


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A node that is well, with a free address."""
    monkeypatch.setattr(status, "Rtnl", lambda: nullcontext(SimpleNamespace()))
    monkeypatch.setattr(status.parts, "PARTS", ())
    monkeypatch.setattr(status.uplink, "cut", lambda *_: [])
    monkeypatch.setattr(status.link_kinds, "choose", lambda _: None)
    monkeypatch.setattr(status.maps, "open_endpoints", lambda _: nullcontext({}))
    made = Settings(node_name="one", state_dir=tmp_path, run_dir=tmp_path)
    NODE.save(made)
    return made


def test_a_node_that_is_well_is_ready(settings: Settings) -> None:
    status.check(call(settings))


def test_a_node_that_has_lost_its_place_is_not_ready(settings: Settings) -> None:
    lose_place(settings)

    with pytest.raises(NotAvailable, match="lost its place in the cluster") as caught:
        status.check(call(settings))

    assert (caught.value.code, caught.value.hint) == (50, "drain it")


@pytest.mark.parametrize("links", [["lo", "eth0"], ["lo", "pcn1234"]], ids=["no pod", "a pod"])
def test_only_a_node_without_pods_waits_for_its_first_services(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, links: list[str]
) -> None:
    """S-151"""
    monkeypatch.setattr(status.socket, "if_nameindex", lambda: list(enumerate(links)))
    monkeypatch.setattr(status.first_services, "refuse_unwritten", refuse)

    waits = pytest.raises(NotAvailable) if links == ["lo", "eth0"] else nullcontext()
    with waits:
        status.check(call(settings))


def refuse(_: Settings) -> None:
    raise NotAvailable("no Service yet")


@pytest.mark.parametrize(("links", "code"), [(["lo", "eth0"], 50), (["lo", "pcn1234"], 51)])
def test_a_node_that_is_cut_off_is_not_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, links: list[str], code: int
) -> None:
    """Pods that are there suffer from it."""
    cut = Fault("uplink", "eth0", "down", "plug it in")
    monkeypatch.setattr(status.uplink, "cut", lambda *_: [cut])
    monkeypatch.setattr(status.socket, "if_nameindex", lambda: list(enumerate(links)))

    with pytest.raises(PycniError, match="eth0 is down") as caught:
        status.check(call(settings))

    assert (caught.value.code, caught.value.hint) == (code, "plug it in")
