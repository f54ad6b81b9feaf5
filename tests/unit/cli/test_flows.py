# SPDX-License-Identifier: Apache-2.0
"""`pycni flows`: which connections are printed, under which names, and how many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pycni.cli import cli, flow_rows, privilege
from pycni.cli.invocation import Invocation
from pycni.dataplane.abi import FlowFlag
from pycni.dataplane.flows import Connection
from pycni.errors import StoreError
from unit.dataplane.flow_entries import (
    END,
    END6,
    NOW,
    POD,
    POD6,
    VIP,
    VIP6,
    Entries,
    key,
)
from unit.services.objects_made import service
from unit.stores.kube_api import SERVICES, SLICES, kubeconfig, serving

OTHER_POD = "10.244.1.3"
WEB = service(clusterIPs=[VIP, VIP6], ports=[{"name": "http", "port": 80, "protocol": "TCP"}])
NAMES = {POD: "shop/front-0", POD6: "shop/front-0", OTHER_POD: ""}


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Entries:
    """Two pods of this node, with a connection in each family and a DNS query."""
    made = Entries()
    held = [
        SimpleNamespace(container_id=f"id-{address}", addresses=(ip_address(address),))
        for address in NAMES
    ]
    made.put(key(POD, 40000, VIP, 80), key(POD, 40000, END, 8080), FlowFlag.ANSWERED)
    made.put(key(POD6, 40001, VIP6, 80), key(POD6, 61001, END6, 8080))
    made.put(key(OTHER_POD, 40002, VIP, 53, "UDP"), key(OTHER_POD, 40002, POD, 53, "UDP"))
    monkeypatch.setattr(privilege, "require", lambda *_: None)
    monkeypatch.setattr(flow_rows, "Flows", lambda _: made.opened())
    monkeypatch.setattr(flow_rows, "Rtnl", lambda: _Within())
    monkeypatch.setattr(flow_rows, "leases", lambda _: held)
    monkeypatch.setattr(
        flow_rows.attachments, "pod_name", lambda lease: NAMES[str(lease.addresses[0])]
    )
    monkeypatch.setattr(flow_rows.time, "monotonic_ns", lambda: NOW)
    return made


class _Within:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def call(entries: Entries, tmp_path: Path) -> Callable[..., Result]:
    assert entries.held
    services, settings = tmp_path / "services.json", tmp_path / "pycni.toml"
    services.write_text(json.dumps(WEB))
    settings.write_text(
        f'node_name = "node1"\nstate_dir = "{tmp_path}"\nservices = "pods"\n'
        f'services_file = "{services}"\n'
    )

    def run(*arguments: str) -> Result:
        whole = ["--config", str(settings), "flows", *arguments]
        return CliRunner().invoke(cli, whole, obj=Invocation())

    return run


def ports(done: Result) -> list[int]:
    """Which connections were printed: each has a port of its own."""
    assert done.exit_code == 0, done.output
    return [one["pod_port"] for one in json.loads(done.stdout)]


def test_a_row_names_pods_and_services(call: Callable[..., Result]) -> None:
    first, second, third = json.loads(call("-o", "json").stdout)

    assert first == {
        "protocol": "TCP", "pod_name": "shop/front-0", "pod": POD, "pod_port": 40000,
        "service": "shop/web:http", "address": VIP, "port": 80,
        "endpoint_name": None, "endpoint": END, "endpoint_port": 8080,
        "source": POD, "source_port": 40000,
        "state": "open", "idle_seconds": 7000, "expires_seconds": 1000,
    }  # fmt: skip
    assert (second["pod"], second["source_port"], second["state"]) == (POD6, 61001, "opening")
    assert (third["pod_name"], third["service"]) == (f"id-{OTHER_POD}", None)
    assert third["endpoint_name"] == "shop/front-0"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), [40000, 40001, 40002]),
        (("--pod", "shop/front-0"), [40000, 40001, 40002]),
        (("--pod", f"id-{OTHER_POD}"), [40002]),
        (("--service", "shop/web"), [40000, 40001]),
        (("--address", END), [40000]),
        (("--address", "10.96.0.0/16"), [40000, 40002]),
        (("--address", VIP6), [40001]),
        (("--family", "ipv6"), [40001]),
        (("--protocol", "udp"), [40002]),
        (("--protocol", "TCP", "--family", "IPv4"), [40000]),
        (("--protocol", "SCTP"), []),
    ],
)
def test_only_what_is_asked_for_is_printed(
    call: Callable[..., Result], arguments: tuple[str, ...], found: list[int]
) -> None:
    assert ports(call(*arguments, "-o", "json")) == found


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--pod", "nobody"), 1, "there is no pod nobody on this node"),
        (("--service", "web"), 1, "there is no Service default/web"),
        (("--address", "10.96.0.300"), 2, "10.96.0.300"),
        (("--address", "10.96.0.1/16"), 2, "has host bits set"),
        (("--protocol", "ICMP"), 2, "ICMP"),
        (("--family", "7"), 2, "ipv4"),
        (("--limit", "-1"), 2, "-1"),
        (("--limit", "9" * 30), 2, "9" * 30),
    ],
)
def test_a_filter_that_is_wrong_is_told(
    call: Callable[..., Result], arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = call(*arguments)

    failure = done.exception if status == 1 else None
    assert done.exit_code == status
    assert words in (str(failure) or done.output if failure else done.output)


def test_the_limit_is_told_when_there_is_more(call: Callable[..., Result]) -> None:
    two, all_of_them = call("--limit", "2", "-o", "json"), call("--limit", "3", "-o", "json")

    assert ports(two) == [40000, 40001]
    assert "more than 2: --limit 0" in two.stderr
    assert (ports(all_of_them), all_of_them.stderr) == ([40000, 40001, 40002], "")
    assert ports(call("--limit", "0", "-o", "json")) == [40000, 40001, 40002]


def test_the_map_is_not_read_beyond_the_limit(
    call: Callable[..., Result], entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1000):
        entries.put(key(POD, number + 1, VIP, 80), key(POD, number + 1, END, 8080))
    read = []

    def raw() -> Iterator[tuple[bytes, bytes]]:
        for one in entries.held.items():
            read.append(one)
            yield one

    monkeypatch.setattr(entries, "raw", raw)

    call("--limit", "10")

    assert len(read) < 50


def test_a_table_has_a_line_for_each(call: Callable[..., Result]) -> None:
    head, *lines = call().stdout.splitlines()

    assert head.split()[:3] == ["PROTOCOL", "POD", "NAME"]
    assert [line.split()[:4] for line in lines] == [
        ["TCP", "shop/front-0", POD, "40000"],
        ["TCP", "shop/front-0", POD6, "40001"],
        ["UDP", f"id-{OTHER_POD}", OTHER_POD, "40002"],
    ]


def test_services_that_are_off_have_none(call: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "pycni.toml").write_text('node_name = "node1"\n')

    done = call("-o", "json")

    assert json.loads(done.stdout) == []
    assert 'services = "off"' in done.stderr


def test_services_of_the_cluster_are_named_without_its_slices(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    with serving() as api:
        bare = {name: value for name, value in WEB.items() if name != "kind"}
        api.objects.put(SERVICES, "web", bare)
        use_cluster(tmp_path, f"kube:{kubeconfig(tmp_path, api)}")

        found = json.loads(call("-o", "json").stdout)

        assert found[0]["service"] == "shop/web:http"
        assert api.asked("GET", SLICES) == []


def test_a_cluster_that_does_not_answer_leaves_services_without_names(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    with serving() as api:
        api.forbidden.add(("GET", SERVICES))
        use_cluster(tmp_path, f"kube:{kubeconfig(tmp_path, api)}")

        done = call("-o", "json")
        asked_for_one = call("--service", "shop/web")

    assert {one["service"] for one in json.loads(done.stdout)} == {None}
    assert "Services are not named" in done.stderr
    assert isinstance(asked_for_one.exception, StoreError)


def use_cluster(tmp_path: Path, store: str) -> None:
    (tmp_path / "pycni.toml").write_text(
        f'node_name = "node1"\nstate_dir = "{tmp_path}"\nservices = "pods"\nstore = "{store}"\n'
    )


def test_what_is_followed_is_what_changes(entries: Entries) -> None:
    settings: Any = SimpleNamespace(pin_root=Path())
    looks = 0

    def wait(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            entries.put(key(POD6, 40001, VIP6, 80), key(POD6, 61001, END6, 8080), FlowFlag.RESET)
            entries.put(key(POD, 40003, VIP, 80), key(POD, 40003, END, 8080))

    def fits(one: Connection) -> bool:
        return one.packet.src.version == 6

    row = next(flow_rows.followed(settings, fits, flow_rows.Named(), wait))

    assert (row["pod_port"], row["state"]) == (40001, "reset")
    text = flow_rows.line(row, as_json=False)
    assert text.startswith(row["time"])
    assert f" reset protocol=TCP pod={POD6} pod_port=40001 address={VIP6} " in text
    assert json.loads(flow_rows.line(row, as_json=True)) == row
