# SPDX-License-Identifier: Apache-2.0
"""What `--help` and the shell's completion import: click, and nothing that does work."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LIGHT = {"pycni.errors", "pycni.logfmt", "pycni.names"}
"""What cli modules may import at the top beside the standard library, click and each other."""

REPORT = """
import atexit, json, sys
before = set(sys.modules)

@atexit.register
def report():
    print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""

MAIN = REPORT + "from pycni.cli import main\nmain()"

EVERY_HELP = (
    REPORT
    + """
import click
from pycni.cli import cli

def ask(command, path):
    context = click.Context(command, info_name=path[-1])
    command.get_help(context)
    asked.append(" ".join(path))
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        ask(command.get_command(context, name), [*path, name])

asked = []
ask(cli, ["pycni"])
print(json.dumps(asked))
"""
)


def run(program: str, *arguments: str, **environment: str) -> tuple[str, set[str]]:
    """stdout of a program, and the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode in (0, 2), done.stderr
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def heavy(modules: set[str]) -> set[str]:
    """Those of the modules that neither belong to the command line nor to what it is made of."""
    return {
        name
        for name in modules
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "click", "colorama"}
        and name not in ("pycni", "pycni.cli", *LIGHT)
        and not name.startswith("pycni.cli.")
    }


def test_every_help_imports_nothing_that_does_work() -> None:
    stdout, modules = run(EVERY_HELP)

    asked = json.loads(stdout)
    assert {"pycni", "pycni status", "pycni lab run", "pycni maps dump"} <= set(asked)
    assert heavy(modules) == set()
    assert "pycni.cli.status" in modules


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["install", "--help"], []])
def test_the_program_imports_nothing_that_does_work_to_help(arguments: list[str]) -> None:
    _, modules = run(MAIN, *arguments)

    assert heavy(modules) == set()


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pycni ", "endpoints"),
        ("pycni sta", "status"),
        ("pycni lab ", "ping"),
        ("pycni install --", "--mtu"),
        ("pycni -o ", "json"),
    ],
)
def test_completion_imports_nothing_that_does_work(words: str, completed: str) -> None:
    stdout, modules = complete(words)

    assert f"plain,{completed}" in stdout.splitlines()
    assert heavy(modules) == set()


def test_the_names_of_maps_are_completed() -> None:
    stdout, _ = complete("pycni maps dump re")

    assert stdout.splitlines() == ["plain,remotes"]


def complete(words: str) -> tuple[str, set[str]]:
    """What the shell would offer behind `words`."""
    return run(
        REPORT + "import sys; sys.argv = ['pycni']\nfrom pycni.cli import main\nmain()",
        _PYCNI_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )


def test_a_command_imports_its_own_module_only() -> None:
    _, modules = run(MAIN, "version")

    assert "pycni.cli.version" in modules
    assert "pycni.cli.lab" not in modules
