# SPDX-License-Identifier: Apache-2.0
"""`pycni flows`: the connections of this node's pods through Services."""

from __future__ import annotations

import sys
from contextlib import closing
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Any

import click

from pycni.cli import failure, privilege
from pycni.cli.invocation import Invocation, note, output_option, pass_invocation, warn
from pycni.cli.privilege import CAP_BPF, CAP_SYS_ADMIN

COLUMNS = ("protocol", "pod_name", "pod", "pod_port", "service", "address", "port",
           "endpoint_name", "endpoint", "endpoint_port", "state", "idle_seconds")  # fmt: skip
PROTOCOLS = ("TCP", "UDP", "SCTP")
FAMILIES = ("IPv4", "IPv6")
LIMIT = 1000


def _network(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> IPv4Network | IPv6Network | None:
    try:
        return None if value is None else ip_network(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}. Write an address, or a network as 10.244.1.0/24",
                                 context, parameter) from None  # fmt: skip


@click.command()
@click.option("--pod", default="", metavar="[NAMESPACE/]NAME",
              help="Only of this pod of this node, as client or as endpoint. The ID of its "
              "container will do, too.")  # fmt: skip
@click.option("--service", default="", metavar="[NAMESPACE/]NAME", help="Only to this Service.")
@click.option("--address", callback=_network, metavar="ADDRESS|NETWORK",
              help="Only with this address, or one of this network, as client, Service or "
              "endpoint.")  # fmt: skip
@click.option("--family", type=click.Choice(FAMILIES, case_sensitive=False))
@click.option("--protocol", type=click.Choice(PROTOCOLS, case_sensitive=False))
@click.option("--limit", type=click.IntRange(0, sys.maxsize), default=LIMIT, show_default=True,
              help="Print no more than so many. 0: all.")  # fmt: skip
@click.option("--follow", "-f", is_flag=True,
              help="Print connections as they begin, and as their state changes. All that change "
              "within a second or so come together; --limit does not count.")  # fmt: skip
@output_option
@pass_invocation
def flows(invocation: Invocation, /, *, limit: int, follow: bool, **wish: Any) -> None:
    """Connections of this node's pods through Services.

    POD is the client, and ENDPOINT whom it talks to. STATE of TCP is opening, open, closing (one
    end has sent its last byte), closed or reset, of others unanswered or answered; it is stale if
    the endpoint is gone. IDLE SECONDS are since the last packet, either way.

    Only pods of this node have names. With --follow, `-o json` prints one object a line.
    """
    privilege.require(CAP_BPF, CAP_SYS_ADMIN)
    from pycni.cli import flow_rows

    settings = invocation.settings()
    asked = flow_rows.Wish(**wish)
    if settings.services == "off":
        note('no connections: services = "off", so no Service is forwarded (docs/services.md)')
        invocation.stream([], columns=COLUMNS)
        return
    names = flow_rows.named(settings, asked, warn)
    fits = flow_rows.filters(asked, names)
    if follow:
        with failure.ended_by_interrupt():
            for row in flow_rows.followed(settings, fits, names):
                click.echo(flow_rows.line(row, as_json=invocation.as_json))
        return
    with closing(flow_rows.found(settings, fits, names)) as rows:
        invocation.stream(islice(rows, limit or None), columns=COLUMNS)
        if limit and next(rows, None) is not None:
            warn(f"there are more than {limit}: --limit 0 prints all")
