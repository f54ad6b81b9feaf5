# SPDX-License-Identifier: Apache-2.0
"""`pycni bgp`: with whom this node speaks BGP, and what is said."""

from __future__ import annotations

import click

from pycni.cli.invocation import Invocation, output_option, pass_invocation


@click.group()
@output_option
def bgp() -> None:
    """BGP sessions of this node, and their routes."""


@bgp.command()
@output_option
@pass_invocation
def sessions(invocation: Invocation) -> None:
    """BIRD's sessions, and how many routes each one carries.

    STATE is a word of RFC 4271: routes are exchanged in Established only. RECEIVED counts the
    routes that the filters let in, ANNOUNCED those that this node tells the speaker.
    """
    from pycni.cli import bgp_rows

    columns = (
        "name", "speaker", "asn", "state", "since", "received", "announced", "last_error",
    )  # fmt: skip
    invocation.emit(bgp_rows.sessions(invocation.settings()), columns=columns)


@bgp.command()
@output_option
@pass_invocation
def routes(invocation: Invocation) -> None:
    """Routes that this node hears by BGP, and those that it tells.

    USED: whether a received route is the best one to its network.
    """
    from pycni.cli import bgp_rows

    columns = (
        "direction", "network", "next_hop", "session", "as_path", "communities", "used",
    )  # fmt: skip
    invocation.emit(bgp_rows.routes(invocation.settings()), columns=columns)
