# SPDX-License-Identifier: Apache-2.0
"""Images of another architecture."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from cluster import foreign


def configuration(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as layout:

        def read(name: str) -> dict[str, object]:
            file = layout.extractfile(name)
            assert file is not None
            return dict(json.load(file))

        (entry,) = read("index.json")["manifests"]  # type: ignore[misc]
        manifest = read(f"blobs/{entry['digest'].replace(':', '/')}")  # type: ignore[has-type]
        digest = manifest["config"]["digest"]  # type: ignore[index]
        return read(f"blobs/{digest.replace(':', '/')}")  # type: ignore[return-value]


@pytest.mark.parametrize(("said", "found"), [("arm64", "arm64"), ("", "amd64")])
def test_an_image_says_what_it_is_for_or_says_it_wrong(
    tmp_path: Path, said: str, found: str
) -> None:
    archive = foreign.write(tmp_path, foreign.NAMED, architecture=said)

    assert configuration(archive)["architecture"] == found


def test_its_program_does_not_run_here(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(foreign.elf())
    program.chmod(0o755)

    with pytest.raises(OSError, match=os.strerror(errno.ENOEXEC)) as error:
        subprocess.run([program], check=False)

    assert error.value.errno == errno.ENOEXEC
