# SPDX-License-Identifier: Apache-2.0
"""`python -m statements`, from tests/: each statement about Services with the tests that show it,
or the reason why none does.

A test names a statement in its name's parameters or its docstring: S-074. The reasons are in
statements.toml; `unit/test_statements.py` fails if a statement has neither a test nor a reason.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

TESTS = Path(__file__).parent
REASONS = TESTS / "statements.toml"
NUMBER = re.compile(r"\bS-\d{3}\b")
OWN = {"statements.py"}
"""Names numbers and shows none."""


@dataclass(frozen=True)
class Statements:
    """What tests and reasons say."""

    numbers: tuple[str, ...]
    """All there are."""
    tests: Mapping[str, frozenset[str]]
    """By number: file and function."""
    reasons: Mapping[str, str]

    @property
    def faults(self) -> list[str]:
        """Numbers with neither test nor reason, with both, or that there are not."""
        known = set(self.numbers)
        return [
            *(f"{one}: no test names it, and no reason is given" for one in self.numbers
              if one not in self.tests and not self.reasons.get(one)),
            *(f"{one}: there is a reason why it has no test, and {min(self.tests[one])}"
              for one in sorted(self.tests.keys() & self.reasons.keys())),
            *(f"{one}: there is no such statement"
              for one in sorted((self.tests.keys() | self.reasons.keys()) - known)),
        ]  # fmt: skip


def collect(tests: Path = TESTS, reasons: Path = REASONS) -> Statements:
    """Of the files below `tests`."""
    told = tomllib.loads(reasons.read_text(encoding="utf-8"))
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(tests.rglob("*.py")):
        name = path.relative_to(tests).as_posix()
        if name in OWN:
            continue
        for function, number in _named(path.read_text(encoding="utf-8")):
            found[number].add(f"{name}::{function}" if function else name)
    numbers = tuple(f"S-{number:03}" for number in range(1, told["last"] + 1))
    named = {number: frozenset(ones) for number, ones in found.items()}
    return Statements(numbers, named, told["without_a_test"])


def _named(source: str) -> Iterator[tuple[str, str]]:
    """The numbers in the texts of a file, each with the function that it is in or before, if
    any."""
    if not NUMBER.search(source):
        return
    for part in ast.parse(source).body:
        function = getattr(part, "name", "")
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for number in NUMBER.findall(node.value):
                    yield function, number


def main() -> int:
    found = collect()
    for number in found.numbers:
        click.echo(f"{number}  {found.reasons.get(number, '')}".rstrip())
        for test in sorted(found.tests.get(number, ())):
            click.echo(f"       {test}")
    shown = len(found.tests.keys() & set(found.numbers))
    click.echo(f"{shown} of {len(found.numbers)} statements are shown by tests")
    for fault in found.faults:
        click.echo(f"statements: {fault}", err=True)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
