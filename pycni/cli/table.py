"""Rows as a table for people. Values are printed as they are: no markup, no emoji, no colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pycni.cli.output import cell

PIPE_WIDTH = 200
"""Columns where stdout is no terminal: a table cut at 80 columns is of no use to grep."""


def show(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str]) -> None:
    """Print a table with a column for each of `columns`, which are keys of every row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column.replace("_", " ").upper()), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row[column])) for column in columns))
    console().print(table)


def console() -> Console:
    """stdout, for text that is never read as markup."""
    made = Console(markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made
