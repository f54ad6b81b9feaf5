# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/services.py: what is written when, by what is listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import announcing, services, services_if_on
from pycni.agent.known import Known
from pycni.agent.surroundings import Surroundings
from pycni.bgp import service_addresses
from pycni.dataplane.service_maps import Backend, FrontendKey, ServiceEntry
from pycni.errors import FileError
from pycni.node.report import SERVICES
from pycni.services.catalog import Catalog
from pycni.services.objects import Objects, read_one
from pycni.services.selection import Place
from pycni.services.table import Changes, Have, Room
from pycni.settings import Settings
from pycni.stores.kube.following import Batch, Phase
from unit.agent.runs import OneRun
from unit.bgp.samples import BGP
from unit.services.objects_made import CLUSTER_IP, endpoint, endpoint_slice, service

WEB = {"shop/web": service()}
SLICE = {"shop/web-1": endpoint_slice(endpoint("10.244.2.7"))}


class Pinned:
    """The maps of a node, in memory; `number` changes when a setup makes others."""

    def __init__(self) -> None:
        self.services: dict[FrontendKey, ServiceEntry] = {}
        self.backends: dict[int, Backend] = {}
        self.slots: dict[int, int] = {}
        self.number = 1
        self.writes = 0
        self.fails = False
        self.room = Room(64, 64, 64)

    @property
    def ids(self) -> tuple[int, ...]:
        return (self.number,)

    def read(self) -> Have:
        return Have(dict(self.services), dict(self.backends), dict(self.slots))

    def write(self, made: Changes) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.writes += bool(made)
        self.backends |= made.backends
        self.slots |= made.slots
        self.services |= made.services
        for key in made.removed:
            del self.services[key]
        self.backends |= made.gone

    @property
    def ends(self) -> set[str]:
        return {str(one.addr) for one in self.backends.values() if one.service}


class Told:
    """A report."""

    def __init__(self) -> None:
        self.last: Any = None

    def put(self, section: str, value: Any) -> None:
        assert section == SERVICES
        self.last = value


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Pinned:
    made = Pinned()
    monkeypatch.setattr(services, "ServiceMaps", lambda _: nullcontext(made))
    monkeypatch.setattr(services.locks, "network_lock", lambda *_, **__: nullcontext())
    return made


@pytest.fixture(autouse=True)
def around(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A node without addresses, of which nothing changes but what a test sets."""
    made = SimpleNamespace(others=[])

    class Fixed(Surroundings):
        def __init__(self, settings: Settings, *_: object) -> None:
            self.place = Place(settings.node_name)

        def owner(self, _: object) -> str:
            return ""

        def look(self, catalog: Catalog) -> bool:
            return bool(made.others) and made.others.pop()(catalog)

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(services, "Surroundings", Fixed)
    return made


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Maps whose first write was noted."""
    made: list[int] = []
    monkeypatch.setattr(services.first_services, "tell", lambda _, number: made.append(number))
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="node1", services="pods", services_file=tmp_path / "services.yaml")


def batch(kind: str, phase: Phase, documents: dict[str, Any] | None = None) -> services.News:
    found: dict[str, Objects | None] = {
        name: one and read_one(kind, one) for name, one in (documents or {}).items()
    }
    return kind, Batch(phase, found)


def listed(kind: str, documents: dict[str, Any]) -> list[services.News]:
    return [batch(kind, Phase.BEGIN), batch(kind, Phase.PART, documents), batch(kind, Phase.END)]


def run(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, news: Iterable[services.News]
) -> Iterator[Told]:
    """A step for each news."""
    monkeypatch.setattr(services, "_source", lambda *_: (lambda: "", iter(news)))
    report: Any = Told()
    for _ in services._followed(settings, OneRun(), Known(), report):
        yield report


def test_nothing_is_written_before_both_kinds_are_listed(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned
) -> None:
    """S-032"""
    news = [*listed("Service", WEB), None, *listed("EndpointSlice", SLICE)]

    written = [pinned.writes for _ in run(monkeypatch, settings, news)]

    assert written == [0, 0, 0, 0, 0, 0, 1]
    assert pinned.ends == {"10.244.2.7"}


def test_a_list_anew_removes_what_it_does_not_have(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned
) -> None:
    """S-031: at its end, not before."""
    news = [
        *listed("Service", WEB),
        *listed("EndpointSlice", SLICE),
        *listed("EndpointSlice", {}),
    ]

    found = [pinned.ends for _ in run(monkeypatch, settings, news)]

    assert found[-4:] == [{"10.244.2.7"}] * 3 + [set()]


def test_a_change_is_written_at_once(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned
) -> None:
    more = {"shop/web-2": endpoint_slice(endpoint("10.244.2.8"), name="web-2")}
    news = [
        *listed("Service", WEB),
        *listed("EndpointSlice", SLICE),
        batch("EndpointSlice", Phase.CHANGE, more),
    ]

    *_, report = run(monkeypatch, settings, news)

    assert pinned.ends == {"10.244.2.7", "10.244.2.8"}
    assert (report.last["frontends"], report.last["left_out_count"]) == (1, 0)


def test_a_first_write_is_noted_and_one_of_other_maps(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned, noted: list[int]
) -> None:
    """S-151"""

    def news() -> Iterator[services.News]:
        yield from listed("Service", WEB)
        yield from listed("EndpointSlice", SLICE)
        yield None
        pinned.services, pinned.backends, pinned.slots = {}, {}, {}
        pinned.number = 2
        yield None

    found = [list(noted) for _ in run(monkeypatch, settings, news())]

    assert found == [[]] * 5 + [[1], [1], [1, 2]]


def test_what_could_not_be_noted_and_what_others_removed_is_noted_by_the_next_that_reads(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned, noted: list[int]
) -> None:
    tell = services.first_services.tell
    refusals = [FileError("no room")]

    def refuse_once(of: Settings, number: int) -> None:
        if refusals:
            raise refusals.pop()
        tell(of, number)

    monkeypatch.setattr(services.first_services, "tell", refuse_once)
    monkeypatch.setattr(services, "RESYNC", 0.0)
    monkeypatch.setattr(services, "REST", 0.0)
    news = [*listed("Service", WEB), *listed("EndpointSlice", SLICE), None, None]

    list(run(monkeypatch, settings, news))

    assert pinned.writes == 1
    assert noted == [1, 1]


def test_maps_that_a_setup_has_replaced_are_filled(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned
) -> None:
    """S-150"""

    def news() -> Iterator[services.News]:
        yield from listed("Service", WEB)
        yield from listed("EndpointSlice", SLICE)
        pinned.services, pinned.backends, pinned.slots = {}, {}, {}
        pinned.number = 2
        yield None

    list(run(monkeypatch, settings, news()))

    assert pinned.ends == {"10.244.2.7"}


@pytest.mark.parametrize("silent", [True, False], ids=["nothing else", "other news"])
def test_another_zone_is_written(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned, around: SimpleNamespace,
    silent: bool,
) -> None:  # fmt: skip
    ends = [endpoint(f"10.244.{zone}.7", zones=[str(zone)]) for zone in (2, 3)]
    around.others = [lambda catalog: catalog.change_zone("3"), lambda _: False]
    more = None if silent else batch("Service", Phase.CHANGE, WEB)
    news = [
        *listed("Service", WEB),
        *listed("EndpointSlice", {"shop/web-1": endpoint_slice(*ends)}),
        more,
    ]

    chosen = [
        {str(one.addr) for one in pinned.backends.values() if one.all}
        for _ in run(monkeypatch, settings, news)
    ]

    assert chosen[-2:] == [{"10.244.2.7", "10.244.3.7"}, {"10.244.3.7"}]


def test_what_others_change_in_the_maps_is_mended(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned
) -> None:
    monkeypatch.setattr(services, "RESYNC", 0.0)
    monkeypatch.setattr(services, "REST", 0.0)

    def news() -> Iterator[services.News]:
        yield from listed("Service", WEB)
        yield from listed("EndpointSlice", SLICE)
        pinned.services.clear()
        yield None

    list(run(monkeypatch, settings, news()))

    assert {key.port for key in pinned.services} == {0, 80}


def test_a_write_that_fails_ends_the_round(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned
) -> None:
    """And the next one reads the maps again."""
    pinned.fails = True
    news = [*listed("Service", WEB), *listed("EndpointSlice", SLICE)]

    with pytest.raises(OSError, match="No space"):
        list(run(monkeypatch, settings, news))


def test_services_that_are_off_are_reported_so(settings: Settings) -> None:
    current: Any = SimpleNamespace(settings=settings.model_copy(update={"services": "off"}))
    report: Any = Told()

    class Once(OneRun):
        def wait(self, _: float) -> None:
            self.end()

    services_if_on.follow(current, Once(), known=Known(), report=report)

    assert report.last == {"state": "off"}


def test_services_that_are_only_announced_are_in_no_map(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, pinned: Pinned, tmp_path: Path
) -> None:
    """Not before both kinds are listed."""
    update = {"announce": ("cluster-ips",), "service_networks": (ip_network("10.96.0.0/16"),)}
    ours = settings.model_copy(
        update={"services": "off", "run_dir": tmp_path, "bgp": BGP.model_copy(update=update)}
    )
    ours.socket_path.touch()
    monkeypatch.setattr(announcing.kube_proxy, "versions", lambda: frozenset({4}))
    news = [*listed("Service", WEB), *listed("EndpointSlice", SLICE), None]

    told = [service_addresses.load(ours) for _ in run(monkeypatch, ours, news)]

    assert told[:5] == [None] * 5
    assert told[5:] == [service_addresses.Told(addresses=(ip_address(CLUSTER_IP),))] * 2
    assert pinned.writes == 0


def test_a_file_is_read_again_when_it_changes(settings: Settings) -> None:
    path, told = settings.services_file, OneRun()
    assert path is not None
    path.write_text("")
    news = services._of_file(path, told)
    assert [next(news) for _ in range(6)] == [
        one for kind in ("Service", "EndpointSlice") for one in listed(kind, {})
    ]

    path.write_text('{"kind": "Service", "metadata": {"name": "web"}}\n')
    found = [one for one in (next(news) for _ in range(6)) if one and one[1].values]

    assert [(kind, list(batch.values)) for kind, batch in found] == [("Service", ["web"])]


def test_a_file_that_is_not_there_is_an_error_at_first(settings: Settings) -> None:
    path = settings.services_file
    assert path is not None

    with pytest.raises(FileError):
        next(services._of_file(path, OneRun()))
