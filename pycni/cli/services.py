# SPDX-License-Identifier: Apache-2.0
"""`pycni services`: what a node makes of Services and EndpointSlices."""

from __future__ import annotations

from pathlib import Path

import click

from pycni.cli.invocation import Invocation, output_option, pass_invocation, warn

FRONTENDS = ("service", "port_name", "kind", "address", "port", "protocol", "policy", "endpoints",
             "state")  # fmt: skip
ENDPOINTS = ("port_name", "address", "port", "protocol", "node", "cluster", "local", "why_not")


@click.command()
@click.argument("name", required=False, metavar="[[NAMESPACE/]NAME]")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read Services and EndpointSlices from this file (YAML or JSON) instead of the cluster. "
    "May be given several times.",
)
@click.option("--node", help="Look as this node does. Default: this node.")
@click.option(
    "--zone", help="The zone of that node. Default: as its Node object says; none with -f."
)
@output_option
@pass_invocation
def services(
    invocation: Invocation, name: str | None, files: tuple[Path, ...], node: str | None,
    zone: str | None,
) -> None:  # fmt: skip
    """Services: the addresses that clients use, and the endpoints that a node chooses among.

    With NAME, the endpoints of that Service: which are chosen here, and why not the others. CLUSTER
    is for traffic with the policy Cluster, LOCAL with the policy Local.

    This is what Kubernetes asks of every node. With services = "pods", pycni forwards by it what
    pods send to ClusterIPs, and with "pods+host" what processes of the node send there, too; all
    else is kube-proxy's.
    """
    from pycni.cli import service_rows

    found = service_rows.survey(invocation.settings, files=files, node=node, zone=zone)
    if name is None:
        invocation.emit(service_rows.frontends(found), columns=FRONTENDS)
    else:
        invocation.emit(service_rows.endpoints(found, name), columns=ENDPOINTS)
    for line in service_rows.set_aside(found, name):
        warn(line)
    if files and node is None:
        for line in service_rows.strange(found, invocation.settings().node_name):
            warn(line)
