"""`pycni version`: what runs here, as a report of a problem needs it."""

from __future__ import annotations

import click

from pycni import __version__
from pycni.cli.invocation import Invocation, output_option, pass_invocation


@click.command()
@output_option
@pass_invocation
def version(invocation: Invocation) -> None:
    """The versions of pycni, of Python and of the kernel."""
    import os
    import platform

    kernel, python = os.uname().release, platform.python_version()
    invocation.say(
        f"pycni {__version__} (Python {python}, Linux {kernel})",
        pycni=__version__,
        python=python,
        kernel=kernel,
    )
