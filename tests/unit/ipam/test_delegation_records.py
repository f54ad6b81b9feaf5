# SPDX-License-Identifier: Apache-2.0
"""pycni/ipam/delegation_records.py: what is written of a delegation, read again and forgotten."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from pycni.errors import FileError
from pycni.ipam import delegation_records
from pycni.ipam.delegation_records import Delegation
from pycni.names import AttachmentKey
from pycni.settings import Settings

KEY = AttachmentKey("podnet", "container-one", "eth0")
OTHER = AttachmentKey("podnet", "container-two", "eth0")
STDIN = b'{"name": "podnet", "odd": "\xff"}'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(node_name="node-a", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    delegation_records.setup(made)
    return made


DELEGATION = Delegation(
    KEY, "ipam", {"CNI_COMMAND": "ADD", "CNI_NETNS": "/run/netns/one", "CNI_PATH": "/bin"}, STDIN
)


def test_what_was_recorded_is_found_byte_for_byte(settings: Settings) -> None:
    delegation_records.record(settings, DELEGATION)

    assert delegation_records.find(settings, KEY.digest) == DELEGATION
    assert delegation_records.find(settings, OTHER.digest) is None


def test_only_the_variables_of_cni_are_written_and_only_root_reads_them(settings: Settings) -> None:
    secret = Delegation(KEY, "ipam", {"CNI_ARGS": "A=1", "TOKEN": "secret"}, STDIN)

    delegation_records.record(settings, secret)

    (path,) = (settings.state_dir / delegation_records.DIRECTORY).iterdir()
    assert json.loads(path.read_bytes())["env"] == {"CNI_ARGS": "A=1"}
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"network": "podnet"}', b"\xff", b'{"network": 1, "env": null}', b"[" * 100_000],
)
def test_a_file_that_cannot_be_read_is_named_and_hides_no_other(
    settings: Settings, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    delegation_records.record(settings, DELEGATION)
    broken = settings.state_dir / delegation_records.DIRECTORY / "broken.json"
    broken.write_bytes(content)

    with caplog.at_level(logging.WARNING):
        found = list(delegation_records.recorded(settings))

    assert [one.key for one in found] == [KEY]
    assert str(broken) in caplog.text


def test_forgetting_twice_is_no_error(settings: Settings) -> None:
    delegation_records.record(settings, DELEGATION)

    delegation_records.forget(settings, KEY.digest)
    delegation_records.forget(settings, KEY.digest)

    assert list(delegation_records.recorded(settings)) == []


def test_a_file_that_cannot_be_removed_is_an_error_that_names_it(settings: Settings) -> None:
    path = settings.state_dir / delegation_records.DIRECTORY / f"{KEY.digest}.json"
    path.mkdir()

    with pytest.raises(FileError, match=str(path)):
        delegation_records.forget(settings, KEY.digest)


def test_a_half_written_record_is_known_and_goes(settings: Settings) -> None:
    delegation_records.record(settings, DELEGATION)
    (written,) = (settings.state_dir / delegation_records.DIRECTORY).iterdir()
    written.rename(written.with_name(f".{written.name}.new"))
    assert delegation_records.half_written(settings) == [KEY.digest]

    delegation_records.forget(settings, KEY.digest)

    assert delegation_records.half_written(settings) == []
