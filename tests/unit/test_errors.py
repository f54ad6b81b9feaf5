# SPDX-License-Identifier: Apache-2.0
"""pycni/errors.py: the tree, the codes, and what a runtime is told."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader import errors as loader_errors
from pycni import errors
from pycni.errors import InvalidNetns, PycniError

VERSION = "1.0.0"
TOP = Path(__file__).parents[2]
DOCUMENTATION = TOP / "docs" / "configuration.md"
SOURCES = sorted(path for package in ("pycni", "loader") for path in (TOP / package).rglob("*.py"))
NAMES = {
    name
    for module in (errors, loader_errors)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, Exception)
}


def hintless(source: Path) -> Iterator[str]:
    """Where an error is made without a hint. One that is passed on keeps that of others."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        passed_on = node.func.id == "DelegateError"
        if (
            node.func.id in NAMES
            and not passed_on
            and not {"hint"} & {k.arg for k in node.keywords}
        ):
            yield f"{source.relative_to(TOP)}:{node.lineno}: {node.func.id}"


def all_errors(base: type[PycniError] = PycniError) -> list[type[PycniError]]:
    return [base, *(error for child in base.__subclasses__() for error in all_errors(child))]


def test_the_docstring_draws_every_error_in_its_place_with_its_code():
    drawn = re.findall(r"^ {4}([│ ├└─]*)(\w+)(?: +(\d+))?  ", errors.__doc__, re.MULTILINE)
    parents: list[str] = []
    found = {}
    for branch, name, code in drawn:
        del parents[len(branch) // 4 :]
        found[name] = (parents[-1] if parents else "Exception", code)
        parents.append(name)

    real = {
        error.__name__: (
            error.__base__.__name__,
            str(error.code) if "code" in vars(error) else "",
        )
        for error in all_errors()
    }

    assert found == real


def test_the_documentation_has_every_code_and_no_other():
    _, _, codes = DOCUMENTATION.read_text().partition("| `code` |")

    documented = re.findall(r"^\| (\d+) \|", codes, re.MULTILINE)

    assert sorted(map(int, documented)) == sorted({error.code for error in all_errors()})


@pytest.mark.parametrize("error", all_errors())
def test_every_code_may_be_emitted(error):
    reserved = {0, 9, 10, *range(12, 50), *range(52, 100)}

    assert error.code not in reserved


def test_every_error_says_what_to_do():
    assert [place for source in SOURCES for place in hintless(source)] == []


def test_an_error_object_has_code_message_and_details_with_the_hint_last():
    error = InvalidNetns("CNI_NETNS is no namespace", details="found a FIFO", hint="give another")

    assert error.to_json(VERSION) == {
        "cniVersion": VERSION,
        "code": 8,
        "msg": "CNI_NETNS is no namespace",
        "details": "found a FIFO; give another",
    }


def test_empty_details_are_left_out():
    assert "details" not in PycniError("something").to_json(VERSION)


@pytest.mark.parametrize(
    "phrase", ["not found", "Not Found", "no such file or directory", "No such file or directory"]
)
def test_a_phrase_that_a_runtime_takes_for_success_is_never_told(phrase):
    error = PycniError(f"link {phrase}", details=f"details: {phrase}", hint=f"hint: {phrase}")

    told = str(error.to_json(VERSION)).lower()

    assert "not found" not in told
    assert "no such file or directory" not in told
    assert "link missing" in told
