# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/port_records.py: what is written is read, and what is no record is named."""

from __future__ import annotations

import json
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import FileError
from pycni.pods import port_records
from pycni.pods.port_records import DIRECTORY, PortRecord
from pycni.pods.port_table import Forward
from pycni.settings import Settings

DIGEST, OTHER = "0123456789abcdef" * 2, "f" * 32
POD4, POD6 = ip_address("10.244.1.5"), ip_address("fd00:10:244:1::5")
RECORD = PortRecord(
    DIGEST,
    "default/web-0",
    (
        Forward("tcp", None, 8080, POD4, 80, "c0ffee"),
        Forward("udp", ip_address("2001:db8::1"), 53, POD6, 5353, "c0ffee"),
    ),
)
GOOD: dict[str, Any] = {
    "pod": "",
    "owner": "c0ffee",
    "ports": [["tcp", "", 8080, "10.244.1.5", 80]],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", state_dir=tmp_path / "state")


def path(settings: Settings, name: str) -> Path:
    return settings.state_dir / DIRECTORY / name


def put(settings: Settings, name: str, content: bytes) -> None:
    port_records.setup(settings)
    path(settings, name).write_bytes(content)


def test_a_record_is_read_as_it_was_written(settings: Settings) -> None:
    port_records.write(settings, RECORD)

    found = port_records.find(settings, DIGEST)

    assert found == RECORD
    assert found is not None
    assert [one.owner for one in found.forwards] == ["c0ffee", "c0ffee"]
    assert port_records.read_all(settings).by_digest == {DIGEST: RECORD}
    assert stat.S_IMODE(path(settings, f"{DIGEST}.json").stat().st_mode) == 0o600


def test_a_record_of_a_thousand_ports_is_one_file(settings: Settings) -> None:
    forwards = tuple(Forward("udp", None, port, POD4, port, "c") for port in range(1, 1001))

    port_records.write(settings, PortRecord(DIGEST, "", forwards))

    assert port_records.read_all(settings).by_digest[DIGEST].forwards == forwards


@pytest.mark.parametrize(
    ("record", "owner"),
    [
        (RECORD, "default/web-0"),
        (PortRecord(DIGEST, "", RECORD.forwards), "c0ffee"),
        (PortRecord(DIGEST, "", ()), DIGEST),
    ],
)
def test_an_owner_is_named_as_well_as_can_be(record: PortRecord, owner: str) -> None:
    assert record.owner == owner


def test_forgetting_twice_is_no_error(settings: Settings) -> None:
    port_records.write(settings, RECORD)

    for _ in range(2):
        port_records.forget(settings, DIGEST)

    assert port_records.find(settings, DIGEST) is None
    assert port_records.read_all(settings).by_digest == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no pod"),
        (b'{"pod": "", "ports": []}', "no owner"),
        (b'{"pod": 5, "owner": "", "ports": []}', "must be strings"),
        (b'{"pod": "", "owner": "", "ports": {}}', "ports a list"),
    ],
)
def test_a_file_that_is_no_record_is_named_and_left_alone(
    settings: Settings, content: bytes, why: str
) -> None:
    port_records.write(settings, RECORD)
    put(settings, f"{OTHER}.json", content)

    found = port_records.read_all(settings)

    assert found.by_digest == {DIGEST: RECORD}
    assert list(found.broken) == [path(settings, f"{OTHER}.json")]
    assert why in next(iter(found.broken.values()))
    assert found.leftovers == {DIGEST, OTHER}
    assert port_records.find(settings, OTHER) is None
    assert path(settings, f"{OTHER}.json").read_bytes() == content


@pytest.mark.parametrize(
    "entry",
    [
        [],
        "tcp",
        ["tcp", "", 8080, "10.244.1.5"],
        ["icmp", "", 8080, "10.244.1.5", 80],
        [6, "", 8080, "10.244.1.5", 80],
        [["tcp"], "", 8080, "10.244.1.5", 80],
        ["tcp", "", 0, "10.244.1.5", 80],
        ["tcp", "", 8080, "10.244.1.5", 65536],
        ["tcp", "", True, "10.244.1.5", 80],
        ["tcp", "", "8080", "10.244.1.5", 80],
        ["tcp", "", 8080, "10.244.1.500", 80],
        ["tcp", "", 8080, 183763205, 80],
        ["tcp", 183763205, 8080, "10.244.1.5", 80],
        ["tcp", "2001:db8::1", 8080, "10.244.1.5", 80],
    ],
)
def test_a_wrong_port_makes_the_record_a_broken_one(settings: Settings, entry: Any) -> None:
    put(settings, f"{OTHER}.json", json.dumps(GOOD | {"ports": [entry]}).encode())

    found = port_records.read_all(settings)

    assert found.by_digest == {}
    assert "no port" in found.broken[path(settings, f"{OTHER}.json")]


def test_files_of_others_are_named_and_a_killed_writers_are_not(settings: Settings) -> None:
    put(settings, "notes.txt", b"")
    put(settings, f".{OTHER}.json.new", b"{")
    path(settings, f"{DIGEST}.json").mkdir()

    found = port_records.read_all(settings)

    assert {one.name for one in found.broken} == {"notes.txt", f"{DIGEST}.json"}
    assert found.leftovers == {OTHER, DIGEST}


def test_teardown_removes_records_and_leaves_what_is_not_ours(settings: Settings) -> None:
    port_records.write(settings, RECORD)
    put(settings, f".{OTHER}.json.new", b"{")
    put(settings, "notes.txt", b"")

    port_records.teardown(settings)
    left = [one.name for one in path(settings, "").iterdir()]
    path(settings, "notes.txt").unlink()
    port_records.teardown(settings)

    assert left == ["notes.txt"]
    assert not path(settings, "").exists()


def test_a_full_disk_is_told_with_the_file(settings: Settings) -> None:
    port_records.setup(settings)
    path(settings, f".{DIGEST}.json.new").mkdir()  # nobody can write there

    with pytest.raises(FileError, match=DIGEST):
        port_records.write(settings, RECORD)
