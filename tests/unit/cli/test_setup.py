# SPDX-License-Identifier: Apache-2.0
"""`pycni teardown`: what it says of a network list that stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pycni.cli import cli, privilege
from pycni.cli.invocation import Invocation
from pycni.setup import runtimes, undoing
from pycni.setup.conflist import CONFLIST
from pycni.setup.runtimes import Found, Runtime


@pytest.mark.parametrize("plugin", ["pycni", "bridge"])
def test_a_list_that_still_uses_the_plugin_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    runtime = Runtime("containerd", tmp_path, tmp_path, "a file")
    monkeypatch.setattr(runtimes, "find", lambda: Found(runtime))
    monkeypatch.setattr(privilege, "require", lambda *_: None)
    monkeypatch.setattr(undoing, "words", lambda _: ["remove it"])
    monkeypatch.setattr(undoing, "teardown", lambda *_, **__: True)
    listed = tmp_path / CONFLIST
    listed.write_text(json.dumps({"name": "x", "plugins": [{"type": plugin}]}))

    done = CliRunner().invoke(cli, ["teardown", "--yes"], obj=Invocation())

    assert done.exit_code == 0, done.output
    assert (f"the network list {listed} stays" in done.stderr) is (plugin == "pycni")
    assert ("pycni uninstall" in done.stderr) is (plugin == "pycni")
