# SPDX-License-Identifier: Apache-2.0
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("drop",), "No such command 'drop'. Did you mean 'drops'?"),
        (("xyzzy",), "No such command 'xyzzy'."),
        (("status", "--wait", "soon"), "'soon' is not a valid number of seconds."),
    ],
    ids=["a slip", "nothing like it", "no number"],
)
def test_wrong_usage_names_what_was_meant(arguments: tuple[str, ...], words: str) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert result.output.endswith(f"{words}\n")


def test_wrong_usage_is_json_where_json_is_asked_for() -> None:
    done = run("-o", "json", "frobnicate")

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"] == "No such command 'frobnicate'."
    assert done.stderr == ""
