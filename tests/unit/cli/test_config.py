# SPDX-License-Identifier: Apache-2.0
"""`pycni config`: effective values with their origin, and checks that need no node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pycni.cli import cli
from pycni.cli.invocation import Invocation
from pycni.errors import InvalidConfig, PycniError
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
    assert lines["uplink"].split() == ["uplink", "-", "default"]
    assert lines["link_local_services"].split() == ["link_local_services", "-", "default"]


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


def test_defaults_are_not_taken_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "pycni.toml"
    monkeypatch.setattr("pycni.cli.config.SETTINGS_PATH", absent)
    monkeypatch.setattr("pycni.settings.SETTINGS_PATH", absent)

    done = call("config", "check")

    assert done.exit_code == 0
    assert f"{absent} (not there: the defaults)" in done.stdout
    assert check()[1][0]["file"] == str(absent)


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
        ('{"plugins": [{"type": "bridge"}]}', "`pycni config translate FILE` says"),
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


OLD = {"cniVersion": "0.3.0", "name": "old", "type": "testcni", "mode": "vxlan",
       "subnet": "10.1.0.0/16", "ipam": {"rangeStart": "10.1.0.9"}}  # fmt: skip


def old(tmp_path: Path, **changes: Any) -> str:
    file = tmp_path / "10-old.conf"
    file.write_text(json.dumps(OLD | changes))
    return str(file)


def test_what_translate_says_passes_check(tmp_path: Path) -> None:
    done = call("-o", "json", "config", "translate", old(tmp_path))
    document = json.loads(done.stdout)
    file, listed = tmp_path / "pycni.toml", tmp_path / "list"
    file.write_text(f'node_name = "n1"\n{document["settings"]}')
    listed.write_text(json.dumps(document["list"]))

    status, rows = check("--settings", str(file), "--conflist", str(listed))

    assert (done.exit_code, document["ok"], status) == (0, True, 0)
    assert [row["problems"] for row in rows] == [[], []]
    assert {one["key"]: one["fate"] for one in document["keys"]}["subnet"] == "becomes"
    assert document["to_do"]


def test_people_see_each_key_then_both_files(tmp_path: Path) -> None:
    lines = call("config", "translate", old(tmp_path)).stdout.splitlines()

    assert lines[lines.index('mode = "vxlan"') + 1] == '    becomes encap = "auto"'
    assert lines.index("# /etc/pycni/pycni.toml") < lines.index('encap = "auto"')
    assert "# /etc/cni/net.d/10-pycni.conflist" in lines
    assert lines[-1].startswith("3. ")


def test_long_values_and_what_a_terminal_would_obey_are_cut_and_escaped(tmp_path: Path) -> None:
    done = call("config", "translate", old(tmp_path, **{"\x1b[31m": "x" * 500}))

    (line,) = [one for one in done.stdout.splitlines() if one.endswith("...")]
    assert line.startswith("\\x1b[31m = ")
    assert len(line) < 100


def test_a_refused_key_is_told_and_nothing_is_proposed(tmp_path: Path) -> None:
    file = old(tmp_path, mode="geneve", colour=1)

    done = call("config", "translate", file)
    told = call("config", "translate", file, "-o", "json")

    assert isinstance(done.exception, InvalidConfig)
    assert "2 of 7 keys refused: mode, colour" in done.exception.details
    assert "    refused: pycni knows no 'geneve' between nodes" in done.stdout
    assert "pycni.toml" not in done.stdout
    document = json.loads(told.stdout)
    assert (told.exit_code, document["ok"]) == (1, False)
    assert (document["settings"], document["list"], document["to_do"]) == ("", None, [])


def test_the_network_of_all_pods_is_told_beside_a_file_that_knows_a_part(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(json.dumps({"type": "bash-cni", "name": "n", "podcidr": "10.1.2.0/24"}))

    alone = call("config", "translate", str(file))
    done = call("config", "translate", "--cluster-cidr", "10.1.0.0/16", str(file))

    assert isinstance(alone.exception, InvalidConfig)
    assert "--cluster-cidr" in alone.stdout
    assert done.exit_code == 0
    assert 'cluster_cidrs = ["10.1.0.0/16"]' in done.stdout


def test_flannels_daemons_file_leaves_the_list_to_install(tmp_path: Path) -> None:
    file = tmp_path / "net-conf.json"
    file.write_text(json.dumps({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}))

    done = call("config", "translate", str(file))

    assert "# the network list: as pycni install writes it" in done.stdout


def test_a_list_of_flannel_leaves_the_settings_to_its_daemons_file(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text(json.dumps({"type": "flannel", "name": "n"}))

    assert "# nothing from this file" in call("config", "translate", str(file)).stdout


@pytest.mark.parametrize("content", [None, "[]", "{", '{"type": "x"}'])
def test_a_file_that_cannot_be_translated_is_an_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "file"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)

    done = call("config", "translate", str(file))

    assert isinstance(done.exception, PycniError)
    assert done.exception.hint
    assert done.stdout == ""


@pytest.mark.parametrize("kind", ["/dev/zero", "pipe"])
def test_a_check_of_what_never_ends_ends_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)

    status, rows = check("--settings", str(path))
    assert status == 1
    assert "not a regular file" in rows[0]["problems"][0]

    settings = tmp_path / "pycni.toml"
    settings.write_text("node_name = 'n1'\n")
    status, rows = check("--settings", str(settings), "--conflist", str(path))
    assert status == 1
    assert "not a regular file" in rows[1]["problems"][0]


def test_a_file_where_a_directory_is_to_be_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "pycni.toml"
    file.write_text(f"# first\nstate_dir = '{file}'\nrun_dir = '{file}/run'\n")

    status, rows = check("--settings", str(file))

    assert status == 1
    assert rows[0]["problems"] == [
        f"line 2: state_dir = '{file}': is there, and is no directory",
        f"line 3: run_dir = '{file}/run': cannot be made: {file} is no directory",
    ]
