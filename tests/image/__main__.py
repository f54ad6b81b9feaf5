# SPDX-License-Identifier: Apache-2.0
"""`python -m image`: build the image, render the manifests, or fetch what its tests
need. See `make image`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from image import build, manifests, nft
from image.architectures import ALL
from pycni.errors import PycniError
from vm.apt import ArchiveError

TELL = partial(click.echo, err=True)


@click.group()
def main() -> None:
    """The container image of pycni and its manifests."""


@main.command("build")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The archive; `ctr images import` reads it. Default: in the cache, built if need be.",
)
@click.option("--name", default=build.NAME, show_default=True, help="Name and tag of the image.")
@click.option(
    "--architecture",
    "names",
    type=click.Choice(sorted(ALL)),
    multiple=True,
    help="What machines it is for; may be given twice. Default: machines like this one.",
)
def build_image(output: Path | None, name: str, names: tuple[str, ...]) -> None:
    """Build the image as an archive."""
    wanted = [ALL[one] for one in names]
    if output is None:
        built = build.provide(wanted, tell=TELL)
    else:
        built = build.build(output.absolute(), name=name, architectures=wanted, tell=TELL)
    click.echo(build.summary(built))


@main.command("nft")
def fetch_nft() -> None:
    """Fetch the releases of nft that the tests need into the cache."""
    for suite in (nft.OLDER, nft.NEWER):
        click.echo(nft.provide(suite).root)


@main.command("manifests")
def write_manifests() -> None:
    """Render the manifests in deploy that are made of others."""
    for path, text in manifests.rendered().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(path)


def _run() -> None:
    """The commands, with errors in words: what was found, and what to do."""
    try:
        main(prog_name="python -m image")
    except PycniError as error:
        lines = (error.message, error.details, error.hint and f"to do: {error.hint}")
        sys.exit("\n".join(["image: " + lines[0], *filter(None, lines[1:])]))
    except ArchiveError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    _run()
