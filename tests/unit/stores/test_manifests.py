# SPDX-License-Identifier: Apache-2.0
"""Objects in files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import DecodingError, FileError
from pycni.stores.manifests import read

ONE, TWO = {"kind": "Service", "metadata": {"name": "one"}}, {"kind": "Pod"}


def of(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    file = tmp_path / "objects.yaml"
    file.write_text(text)
    return list(read([file]))


def test_a_file_holds_several_documents(tmp_path: Path) -> None:
    text = f"{json.dumps(ONE)}\n---\n# nothing\n---\nkind: Pod\n"

    assert of(tmp_path, text) == [ONE, TWO]


def test_a_list_is_its_items(tmp_path: Path) -> None:
    assert of(tmp_path, json.dumps({"kind": "List", "items": [ONE, TWO, 3]})) == [ONE, TWO]


def test_items_of_a_typed_list_have_its_kind(tmp_path: Path) -> None:
    """As the API server answers: its items say no kind."""
    text = json.dumps({"kind": "ServiceList", "items": [{"metadata": {"name": "one"}}]})

    assert of(tmp_path, text) == [ONE]


def test_several_files_are_read_in_order(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file, document in zip(files, (ONE, TWO), strict=True):
        file.write_text(json.dumps(document))

    assert list(read(files)) == [ONE, TWO]


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t- x", "a: \x00"])
def test_what_is_no_yaml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(DecodingError, match=r"objects\.yaml is no YAML"):
        of(tmp_path, text)


@pytest.mark.parametrize("text", ["hello", "- 1\n- 2", "7"])
def test_what_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(DecodingError, match=r"objects\.yaml holds .* which is no object"):
        of(tmp_path, text)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_bytes(b"\xff\xfe\xff")

    with pytest.raises(DecodingError, match="is no YAML"):
        list(read([file]))


def test_tags_make_no_objects_of_python(tmp_path: Path) -> None:
    with pytest.raises(DecodingError, match="is no YAML"):
        of(tmp_path, f"!!python/object/apply:os.mkdir [{tmp_path}/made]")
    assert not (tmp_path / "made").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, reason in ((fifo, "pipe"), (tmp_path, "directory"), (tmp_path / "no", "No such")):
        with pytest.raises(FileError, match=reason):
            list(read([path]))
