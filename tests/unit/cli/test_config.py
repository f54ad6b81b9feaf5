# SPDX-License-Identifier: Apache-2.0
"""`pycni config`: effective values with their origin, and checks that need no node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pycni.cli import cli
from pycni.cli.invocation import Invocation
from pycni.settings import Settings
from pycni.setup import conflist
from pycni.setup.conflist import Network
from unit.cli.test_install import NODE


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, obj=Invocation(), env=environment)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "pycni.toml"
    file.write_text(
        f'node_name = "n1"\nstate_dir = "{tmp_path}"\n# a comment\nmtu = 1400\n'
        "[node_prefix]\nipv4 = 25\n"
    )
    return file


def shown(*arguments: str, **environment: str) -> dict[str, Any]:
    done = call(*arguments, "config", "show", "-o", "json", **environment)
    assert done.exit_code == 0, done.output
    return {row["key"]: row for row in json.loads(done.stdout)}


def test_every_setting_is_shown_with_its_value_and_origin(settings: Path) -> None:
    rows = shown("--config", str(settings))

    assert rows.keys() == Settings.model_fields.keys()
    assert (rows["mtu"]["value"], rows["mtu"]["from"]) == (1400, f"{settings}, line 4")
    assert rows["node_prefix"]["value"] == {"ipv4": 25, "ipv6": 64}
    assert rows["node_prefix"]["from"] == f"{settings}, line 5"
    assert (rows["port"]["value"], rows["port"]["from"]) == (4789, "default")
    assert rows["store"]["value"] == f"sqlite:{settings.parent}/cluster.db"


def test_people_see_values_as_the_file_has_them(settings: Path) -> None:
    done = call("--config", str(settings), "config", "show")

    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "0x20000000" in lines["masquerade_mark"]
    assert "ipv4=25 ipv6=64" in lines["node_prefix"]


def test_the_environment_and_options_go_before_the_file(settings: Path) -> None:
    settings.write_text('log_level = "error"\nlog_format = "json"\n')

    rows = shown("--log-format", "logfmt", PYCNI_LOG_LEVEL="debug", PYCNI_CONFIG=str(settings))

    assert (rows["log_level"]["value"], rows["log_level"]["from"]) == ("debug", "PYCNI_LOG_LEVEL")
    assert (rows["log_format"]["value"], rows["log_format"]["from"]) == ("logfmt", "--log-format")
    rows = shown("--verbose", "--config", str(settings))
    assert (rows["log_level"]["value"], rows["log_level"]["from"]) == ("info", "--verbose")
    assert rows["log_format"]["from"] == f"{settings}, line 2"


def test_on_a_node_what_it_was_set_up_with_is_beside(settings: Path) -> None:
    (settings.parent / "node.json").write_text(json.dumps(NODE))

    rows = shown("--config", str(settings))

    assert (rows["mtu"]["value"], rows["mtu"]["in_use"]) == (1400, 1450)
    assert rows["vtep"]["in_use"] == "192.0.2.1"
    assert rows["cluster_cidrs"]["in_use"] == ["10.244.0.0/16"]
    assert "IN USE" in call("--config", str(settings), "config", "show").stdout


def check(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = call("config", "check", "-o", "json", *arguments)
    return done.exit_code, json.loads(done.stdout)


def test_right_settings_and_a_right_list_are_said_to_be_right(
    settings: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list"
    listed.write_bytes(conflist.render(Network(mtu=1300)))

    status, rows = check("--settings", str(settings), "--conflist", str(listed))

    assert status == 0
    assert rows == [
        {"file": str(settings), "ok": True, "problems": []},
        {"file": str(listed), "ok": True, "problems": []},
    ]


@pytest.mark.parametrize("text", ["vni = 0", "vni = = 1", "vin = 7"])
def test_wrong_settings_are_told_with_their_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pycni.toml"
    file.write_text(f"# first\n{text}\n")

    status, rows = check("--settings", str(file))

    assert status == 1
    assert "line 2" in rows[0]["problems"][0]


def test_all_that_is_wrong_is_told_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "pycni.toml"
    file.write_text('vni = 0\nnodename = "x"\nencap = "foo"\n')

    _, rows = check("--settings", str(file))
    table = call("config", "check", "--settings", str(file)).stdout

    assert [one[:7] for one in rows[0]["problems"]] == ["line 1:", "line 2:", "line 3:"]
    assert len(table.splitlines()) == 1 + 3


@pytest.mark.parametrize("store", ["etcd//x", "mysql:/x", "sqlite:x", "etcd://"])
def test_a_store_that_nobody_could_open_is_told(tmp_path: Path, store: str) -> None:
    file = tmp_path / "pycni.toml"
    file.write_text(f'store = "{store}"\n')

    status, rows = check("--settings", str(file))

    assert status == 1
    assert store in rows[0]["problems"][0]


def test_a_settings_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    status, rows = check("--settings", str(tmp_path / "nothing"))

    assert status == 1
    assert "there is no settings file" in rows[0]["problems"][0]


def edit(**changes: Any) -> str:
    document = json.loads(conflist.render(Network()))
    document["plugins"][0] |= changes
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "no JSON: Expecting property name"),
        ("[]", "no JSON object"),
        ('{"plugins": [{"type": "bridge"}]}', 'no plugin of type "pycni"'),
        (edit(mtu="x"), "mtu in the network configuration is wrong"),
        (edit(mtu=1500), "MTU of 1500; it must be from 1280 to 1400, by the settings"),
        (edit(ipMask=True), "unknown key ipMask: did you mean ipMasq?"),
        (edit(ipam={"ranges": ["192.0.2.0/24"]}), "192.0.2.0/24 is not in the cluster's networks"),
        (edit(ipam={"ranges": ["nonsense"]}), "ipam.ranges"),
        (edit(ipam={"exclude": [3]}), "ipam.exclude"),
        (edit().replace('"1.0.0", "name"', '"9.0.0", "name"'), "9.0.0"),
        (edit().replace('"name": "pycni"', '"name": "a b"'), "name in the network configuration"),
    ],
)
def test_what_is_wrong_with_a_list_is_told(
    settings: Path, tmp_path: Path, text: str, problem: str
) -> None:
    listed = tmp_path / "list"
    listed.write_text(text)

    status, rows = check("--settings", str(settings), "--conflist", str(listed))

    assert status == 1
    assert problem in " ".join(rows[1]["problems"])


def test_a_list_in_which_another_plugin_goes_first_is_told(settings: Path, tmp_path: Path) -> None:
    document = json.loads(edit())
    document["plugins"].insert(0, {"type": "bridge"})
    listed = tmp_path / "list"
    listed.write_text(json.dumps(document))

    status, rows = check("--settings", str(settings), "--conflist", str(listed))

    assert status == 1
    assert "must be the first plugin" in rows[1]["problems"][0]


def test_a_list_that_is_not_there_is_told(settings: Path) -> None:
    status, rows = check("--settings", str(settings), "--conflist", "/nowhere")

    assert (status, rows[1]["problems"]) == (1, ["it cannot be read: No such file or directory"])
