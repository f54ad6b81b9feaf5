# SPDX-License-Identifier: Apache-2.0
"""One run of the command line: which settings it has, and in which form it prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pycni.cli.output import escape, to_json

if TYPE_CHECKING:
    from pycni.settings import Settings

TABLE, JSON = "table", "json"


@dataclass
class Invocation:
    """What the options before the command say. stdout is text, or exactly one JSON document."""

    path: Path | None = None
    """The settings file that was named, if any."""
    output: str = TABLE
    log_options: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What was said about the log before the command: value by key, and where it was said."""

    @property
    def as_json(self) -> bool:
        return self.output == JSON

    def settings(self) -> Settings:
        """The node's settings. Raises InvalidSettings."""
        from pycni.settings import load

        return load(self.path)

    def log(self, *, level: str, form: str) -> None:
        """Log to stderr from now on; `level` and `form` count where no option says otherwise."""
        from pycni.logfmt import configure

        said = {key: value for key, (value, _) in self.log_options.items()}
        configure(level=said.get("log_level", level), form=said.get("log_format", form))

    def emit(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        columns: Sequence[str],
        below: str | None = None,
    ) -> None:
        """Print rows. `columns` are the table's columns, and keys of every row; `below` is that
        which a narrow terminal gets below the table."""
        if self.as_json:
            click.echo(to_json(list(rows)))
            return
        from pycni.cli import table

        table.show(rows, columns=columns, below=below)

    def stream(self, rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> None:
        """As `emit`, for rows that may be very many: they are printed as they come."""
        if self.as_json:
            head = "["
            for row in rows:
                click.echo(f"{head}\n  {to_json(row, indent=None)}", nl=False)
                head = ","
            click.echo("[]" if head == "[" else "\n]")
            return
        from pycni.cli import table

        for some in table.lines(rows, columns=columns):
            click.echo(some)

    def say(self, *lines: str, **fields: Any) -> None:
        """Print what a verb did: lines of text, or its fields as one JSON object."""
        if self.as_json:
            click.echo(to_json(fields))
            return
        for line in lines:
            click.echo(escape(line))


def note(text: str) -> None:
    """Print one line about progress to stderr; if nobody can read it, the work goes on."""
    with suppress(OSError):
        click.echo(escape(text), err=True)


def warn(text: str) -> None:
    """Print one line about what is likely wrong, though nothing failed, to stderr."""
    click.echo(f"warning: {escape(text)}", err=True)


def _choose(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).output = value


output_option: Callable[..., Any] = click.option(
    "-o",
    "--output",
    type=click.Choice([TABLE, JSON]),
    is_eager=True,
    expose_value=False,
    callback=_choose,
    help="Form of the output. Default: table.",
)
"""`-o` of every command and group: the last one given counts."""

dry_run_option: Callable[..., Any] = click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be done, and change nothing. Directories that cannot be written to are "
    "refused as without it; whether there is room is not asked.",
)

pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
