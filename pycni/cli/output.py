"""Rows for people (a table) or for programs (JSON): every noun prints through here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]

output_option: Callable[..., Any] = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Form of the output.",
)


def emit(rows: Sequence[Row], output: str, *, columns: Sequence[str]) -> None:
    """Print rows; `columns` names the table's columns, which are keys of every row."""
    if output == "json":
        click.echo(json.dumps(list(rows), indent=2, default=str))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    _console().print(table)


def _console() -> Console:
    """A pipe gets wide lines: a table cut at 80 columns is of no use to grep."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if value is None:
        return "-"
    return "yes" if value is True else "no" if value is False else str(value)
