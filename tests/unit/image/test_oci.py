# SPDX-License-Identifier: Apache-2.0
"""Images: the archive that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from support.oci import Image, write_archive, write_layer

SERVER = Image(("example/server:1", "example/alias:2"), ("/server",), ("serve",))
SHELL = Image(("example/shell:3",), (), ("/bin/sh",))


def make(directory: Path) -> Path:
    tree = directory / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").write_text("a shell")
    (tree / "server").write_text("a server")
    (tree / "link").symlink_to("server")
    write_layer(directory / "layer", tree)
    write_archive(directory / "archive", directory / "layer", [SERVER, SHELL])
    return directory / "archive"


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member) for member in opened.getmembers()}
    with tarfile.open(archive) as opened:
        return {name: opened.extractfile(name).read() for name in files}


def blob(found: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    algorithm, _, value = descriptor["digest"].partition(":")
    content = found[f"blobs/{algorithm}/{value}"]
    assert hashlib.sha256(content).hexdigest() == value
    assert len(content) == descriptor["size"]
    return content


def test_every_name_leads_to_a_configuration_and_the_layer(tmp_path: Path) -> None:
    found = contents(make(tmp_path))

    described = {}
    for entry in json.loads(found["index.json"])["manifests"]:
        manifest = json.loads(blob(found, entry))
        config = json.loads(blob(found, manifest["config"]))
        (layer,) = manifest["layers"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"]]
        blob(found, layer)
        described[entry["annotations"]["io.containerd.image.name"]] = config["config"]
    assert set(described) == {*SERVER.names, *SHELL.names}
    assert described["example/alias:2"]["Entrypoint"] == ["/server"]
    assert described["example/shell:3"]["Cmd"] == ["/bin/sh"]
    assert "Entrypoint" not in described["example/shell:3"]


def test_the_layer_has_the_trees_files_owned_by_root(tmp_path: Path) -> None:
    found = contents(make(tmp_path))
    (digest,) = {
        json.loads(blob(found, entry))["layers"][0]["digest"]
        for entry in json.loads(found["index.json"])["manifests"]
    }

    with tarfile.open(fileobj=io.BytesIO(found[f"blobs/{digest.replace(':', '/')}"])) as layer:
        members = {member.name: member for member in layer.getmembers()}

    assert {"bin", "bin/sh", "link", "server"} == set(members)
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}
    assert members["link"].linkname == "server"


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()

    assert make(tmp_path / "one").read_bytes() == make(tmp_path / "other").read_bytes()
