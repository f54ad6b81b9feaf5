# SPDX-License-Identifier: Apache-2.0
"""Rows as a table for people. Values are printed as they are: no markup, no emoji, no colours.

No value is ever split. At a terminal texts of several words are wrapped between words; if there is
no room even so, each row becomes a paragraph with a line for each value. What is to be copied, such
as a command, is not wrapped but comes below the table. Elsewhere each row is one line, however
long, for grep and awk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pycni.cli.output import cell

GAP = 2
"""Blanks between two columns."""
PIECE = 1000
"""Rows of a long table that are in memory at a time."""


def show(
    rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], below: str | None = None
) -> None:
    """Print a table with a column for each of `columns`, which are keys of every row.

    At a terminal where the rows do not fit as lines, `below`, one of the columns, comes after the
    table: a line for each row that has a value, which begins with that of the first column.
    """
    heads = [column.replace("_", " ").upper() for column in columns]
    cells = [[cell(row[column]) for column in columns] for row in rows]
    lines = [list(one) for one in zip(heads, *cells, strict=True)]
    to = console()
    wholes = [max(map(cell_len, column)) for column in lines]
    is_wide = sum(wholes) + GAP * len(wholes) > to.width
    if below is not None and below in columns and to.is_terminal and is_wide:
        show(rows, columns=[column for column in columns if column != below])
        _show_below(to, rows, name=columns[0], value=below)
        return
    if not to.is_terminal:
        to.width = max(1, sum(wholes) + GAP * len(wholes))
    widths = plan([_least(column) for column in lines], wholes, room=to.width)
    if widths is None:
        _show_paragraphs(to, heads, cells)
        return
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for head, width in zip(heads, widths, strict=True):
        table.add_column(Text(head), width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    to.print(table)


def lines(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> Iterator[str]:
    """A table of any number of rows, some lines at a time: each row is one line, however long, and
    the first rows decide how wide the columns are."""
    left = iter(rows)
    some = [[column.replace("_", " ").upper() for column in columns], *_piece(left, columns)]
    widths = [max(map(cell_len, column)) for column in zip(*some, strict=True)]
    while some:
        yield "\n".join(_line(row, widths) for row in some)
        some = _piece(left, columns)


def plan(leasts: Sequence[int], wholes: Sequence[int], *, room: int) -> list[int] | None:
    """The width of each column in a line of `room`: as wide as its values are whole, the widest
    made narrower as far as their words allow. None if there is too little room. Pure."""
    widths = list(wholes)
    excess = sum(widths) + GAP * (len(widths) - 1) - room
    while excess > 0:
        wide = [at for at, width in enumerate(widths) if width > leasts[at]]
        if not wide:
            return None
        widths[max(wide, key=widths.__getitem__)] -= 1
        excess -= 1
    return widths


def _piece(rows: Iterator[Mapping[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    return [[cell(row[name]) for name in columns] for row in islice(rows, PIECE)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)
    )
    return (" " * GAP).join(padded).rstrip()


def _least(column: Sequence[str]) -> int:
    """The width of the longest word of a column."""
    return max((cell_len(word) for text in column for word in text.split(" ")), default=0)


def _show_paragraphs(to: Console, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    width = max(map(cell_len, heads))
    for number, row in enumerate(cells):
        if number:
            to.print()
        for head, value in zip(heads, row, strict=True):
            to.print(Text(f"{head:{width}}{GAP * ' '}{value}".rstrip()), soft_wrap=True)


def _show_below(to: Console, rows: Sequence[Mapping[str, Any]], *, name: str, value: str) -> None:
    to.print(Text(f"\n{value.replace('_', ' ').upper()}", style="bold"))
    for row in rows:
        if row[value] is not None:
            to.print(Text(f"{cell(row[name])}: {cell(row[value])}"), soft_wrap=True)


def console() -> Console:
    """stdout, for text that is never read as markup."""
    return Console(markup=False, emoji=False, highlight=False)
