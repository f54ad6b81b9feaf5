"""The commands as a whole: found by name, in both forms, with the options on either side."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import pycni
from pycni.cli import COMMANDS, cli
from pycni.cli.invocation import Invocation
from pycni.errors import InvalidConfig
from pycni.setup import install, units


def leaves(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    names = command.list_commands(context)
    found = [(name, command.get_command(context, name)) for name in names]
    return [leaf for name, one in found if one for leaf in leaves(one, (*path, name))]


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


LEAVES = leaves(cli, ())


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, obj=Invocation())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, errors and all."""
    return subprocess.run(
        [sys.executable, "-m", "pycni", *arguments], capture_output=True, text=True, check=False
    )


def test_every_command_of_the_table_is_there() -> None:
    assert {leaf[0] for leaf in LEAVES} == set(COMMANDS)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_says_what_it_does_and_takes_o(path: tuple[str, ...]) -> None:
    command = command_at(path)

    assert command.help
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("-o" in options) != (path == ("lab", "exec"))  # the command's own output


def test_help_documents_the_exit_statuses() -> None:
    text = invoke("--help").output

    assert re.search(r"^ *0 .*\n *1 .*\n *2 .*\n *130 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments", [("-o", "json", "version"), ("version", "-o", "json"), ("version", "-ojson"),
                  ("-o", "table", "version", "--output", "json")]
)  # fmt: skip
def test_the_form_is_chosen_before_or_after_the_noun(arguments: tuple[str, ...]) -> None:
    document = json.loads(invoke(*arguments).output)

    assert document["pycni"] == pycni.__version__
    assert document.keys() == {"pycni", "python", "kernel"}


def test_the_version_is_told_by_an_option_too() -> None:
    assert invoke("--version").output == f"pycni, version {pycni.__version__}\n"
    assert invoke("version").output.startswith(f"pycni {pycni.__version__} (Python ")


def test_a_group_takes_the_form_too(tmp_path: Path) -> None:
    settings = tmp_path / "pycni.toml"
    settings.write_text("vni = 0\n")

    done = run("--config", str(settings), "nodes", "-o", "json")

    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error.keys() == {"message", "details", "hint", "code"}
    assert f"{settings}: line 1: vni = 0" in error["message"]
    assert error["code"] == InvalidConfig.code
    assert done.stderr == ""


def test_wrong_usage_is_json_where_json_is_asked_for() -> None:
    done = run("-o", "json", "frobnicate")

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"] == "No such command 'frobnicate'."
    assert done.stderr == ""


def test_install_says_what_it_wrote_and_uninstall_what_it_removed(tmp_path: Path) -> None:
    settings = tmp_path / "pycni.toml"
    settings.write_text(f"state_dir = '{tmp_path}/state'\n")
    where = ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]
    head = ["--config", str(settings), "-o", "json"]

    written = json.loads(invoke(*head, "install", *where).output)["written"]
    there = [Path(file).exists() for file in written]
    removed = json.loads(invoke(*head, "uninstall", *where, "--unit-dir", str(tmp_path)).output)

    assert all(there)
    assert str(tmp_path / "bin" / install.PLUGIN) in written
    assert sorted(removed["removed"]) == sorted(written)
    assert not any(Path(file).exists() for file in written)


def test_uninstall_of_nothing_says_so(tmp_path: Path) -> None:
    where = [option for name in ("bin", "conf", "unit") for option in (f"--{name}-dir", tmp_path)]

    assert invoke("uninstall", *map(str, where)).output == "nothing of pycni is installed there\n"


def test_install_refuses_an_mtu_with_which_every_add_would_fail(tmp_path: Path) -> None:
    settings = tmp_path / "pycni.toml"
    settings.write_text(f"state_dir = '{tmp_path}'\n")
    record = {"name": "n1", "node_id": 1, "vtep": "192.0.2.1", "pod_cidrs": ["10.244.0.0/24"],
              "cluster_cidrs": ["10.244.0.0/16"], "uplink": "eth0", "mtu": 1450,
              "port": 4789}  # fmt: skip
    (tmp_path / "node.json").write_text(json.dumps(record))
    where = ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]

    refused = run("--config", str(settings), "install", *where, "--mtu", "9000")

    assert refused.returncode == 1
    assert "MTU of 9000" in refused.stderr
    assert "from 68 to 1450" in refused.stderr
    assert "change --mtu" in refused.stderr
    assert not (tmp_path / "bin").exists()
    assert run("--config", str(settings), "install", *where, "--mtu", "1400").returncode == 0


def test_install_with_systemd_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "HIDDEN", ())
    config = tmp_path / "pycni.toml"
    config.write_text(f"state_dir = '{tmp_path}/state'\n")
    where = ["--bin-dir", tmp_path / "bin", "--conf-dir", tmp_path / "net.d"]

    done = invoke(
        "--config", str(config), "install", "--systemd", "--unit-dir", str(tmp_path / "units"),
        *map(str, where),
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    assert "systemctl daemon-reload && systemctl enable --now" in done.output
    assert f"--config {config}" in (tmp_path / "units" / "pycni-agent.service").read_text()
