# SPDX-License-Identifier: Apache-2.0
"""The pages: what they name is there, and what is there they name."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pycni.cli import cli
from pycni.settings import Settings

TOP = Path(__file__).parents[2]
PAGES = sorted(
    [*TOP.glob("*.md"), *(TOP / "docs").glob("*.md"), TOP / "bpf/README.md",
     TOP / "deploy/README.md", TOP / "vagrant/README.md"]
)  # fmt: skip
SETTINGS = TOP / "docs" / "configuration.md"

LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"```\n(.*?)```|`([^`]+)`", re.DOTALL)
SOURCE = re.compile(r"(?:[\w-]+/)*[\w-]+\.(?:py|h|c)")
ROOTS = ("", "pycni", "bpf", "tests")
"""Directories below which the pages name files."""
COMMENT = re.compile(r"\s#.*")
END = re.compile(r"&&|[|;()]| -- |: ")
"""Of a command in a line of the shell."""
WALKS = sorted((TOP / "docs").glob("walk-*.md"))
NAME = re.compile(r"(?:\w+\.)*(\w+)")
PLACED = re.compile(r"`(?:\w+\.)*(\w+)`\s\(`((?:[\w-]+/)*[\w-]+\.(?:py|h|c))`")
"""A function, and the file that a walk says it is in."""
DRAWN = re.compile("[─│►]")
"""In lines of pictures."""


def page_id(page: Path) -> str:
    return str(page.relative_to(TOP))


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def code(page: Path) -> Iterator[str]:
    """What a page has between backticks, line by line."""
    for block, span in CODE.findall(page.read_text(encoding="utf-8")):
        yield from (block or " ".join(span.split())).splitlines()


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each `pycni` that a page shows."""
    for line in code(page):
        for text in END.split("" if DRAWN.search(line) else COMMENT.sub("", line)):
            words = re.sub(r"[][\"']", "", text).split()
            if words and words[0].rpartition("/")[2] == "pycni":
                yield words[1:]


def strange(arguments: list[str]) -> str:
    """The first word that is neither a command nor an option of it; empty if there is none."""
    command: click.Command = cli
    context = click.Context(cli)
    for word in arguments:
        if word == "--":
            return ""
        if word.startswith("-"):
            known = {name for one in command.get_params(context) for name in
                     (*one.opts, *one.secondary_opts)}  # fmt: skip
            if word.split("=")[0].rstrip(",") not in known:
                return word
        elif isinstance(command, click.Group) and word.islower() and word.isalpha():
            found = command.get_command(context, word)
            if found is None:
                return word
            command = found
    return ""


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for path, name in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        if not target.exists():
            lost.append(path)
        elif name and name not in map(anchor, HEADING.findall(target.read_text(encoding="utf-8"))):
            lost.append(f"{path}#{name}")

    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_source_that_is_named_is_there(page: Path) -> None:
    files = {path.name for root in ROOTS[1:] for path in (TOP / root).rglob("*")}
    files |= {path.name for path in TOP.glob("*.py")}

    def is_there(name: str) -> bool:
        places = (TOP / root / name for root in ROOTS)
        return name in files or (page.parent / name).exists() or any(p.exists() for p in places)

    named = [word for line in code(page) for word in line.split() if SOURCE.fullmatch(word)]

    assert [name for name in named if not is_there(name)] == []


def words(*files: Path) -> set[str]:
    return {word for file in files for word in re.findall(r"\w+", file.read_text("utf-8"))}


def sources() -> list[Path]:
    tops = (TOP / "pycni", TOP / "loader", TOP / "bpf")
    return [file for top in tops for file in top.rglob("*") if file.suffix in (".py", ".h", ".c")]


@pytest.mark.parametrize("page", WALKS, ids=page_id)
def test_every_function_of_a_walk_is_in_the_sources(page: Path) -> None:
    known = words(*sources()) | {file.stem for file in sources()}
    named = [found[1] for line in code(page) if (found := NAME.fullmatch(line))]

    assert [name for name in named if name not in known] == []


@pytest.mark.parametrize("page", WALKS, ids=page_id)
def test_every_function_of_a_walk_is_in_the_file_that_it_says(page: Path) -> None:
    strays = []
    for name, place in PLACED.findall(page.read_text(encoding="utf-8")):
        files = [file for file in sources() if str(file).endswith(f"/{place}")]
        if name not in words(*files):
            strays.append(f"{name} ({place})")

    assert strays == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    assert [words for words in commands(page) if strange(words)] == []


def test_every_setting_has_a_row() -> None:
    text = SETTINGS.read_text(encoding="utf-8").partition("## Network configuration")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    documented = [name.strip("`") for row in rows for name in row.split(", ")]

    assert sorted(documented) == sorted(Settings.model_fields)


def test_the_words_of_the_glossary_are_in_order() -> None:
    text = (TOP / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = [term.lower() for term in re.findall(r"^\*\*(.*?)\*\*", text, re.MULTILINE)]

    assert terms == sorted(terms)


def test_every_row_of_status_is_on_the_page_of_upkeep() -> None:
    page = (TOP / "docs" / "upkeep.md").read_text(encoding="utf-8")
    text = "".join(file.read_text(encoding="utf-8") for file in sources() if file.suffix == ".py")
    rows = set(re.findall(r"\bRow\(\s*\"([\w ]+)\"", text))
    rows |= set(re.findall(r'^(?:PART|ADDRESSES) = "([\w ]+)"', text, re.MULTILINE))

    assert sorted(row for row in rows if f"`{row}`" not in page) == []


def test_every_command_is_on_the_page() -> None:
    text = SETTINGS.read_text(encoding="utf-8").partition("## Commands")[2]
    words = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`]+)`", text))))

    assert [name for name in cli.list_commands(click.Context(cli)) if name not in words] == []


def test_make_help_lists_every_target_that_says_what_it_does() -> None:
    said = re.findall(r"^([^\s:]+):.*## ", (TOP / "Makefile").read_text("utf-8"), re.MULTILINE)

    shown = subprocess.run(["make", "-C", TOP, "help"], capture_output=True, text=True, check=True)

    listed = {line.split()[0] for line in shown.stdout.splitlines() if line.strip()}
    assert [target for target in said if target not in listed] == []
