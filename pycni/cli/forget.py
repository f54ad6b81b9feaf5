# SPDX-License-Identifier: Apache-2.0
"""`pycni forget`: a node that cannot leave the cluster by itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pycni.cli.invocation import Invocation, dry_run_option, output_option, pass_invocation

if TYPE_CHECKING:
    from pycni.settings import Settings
    from pycni.stores import Listing, Store

TODO = "run `pycni teardown` on it; forget is for nodes that are gone"


@click.command()
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@output_option
@pass_invocation
def forget(invocation: Invocation, /, *, node: str, yes: bool, dry_run: bool) -> None:
    """Take a NODE that is gone for good out of the cluster.

    Asks first if the node shows signs of life, for afterwards no other node reaches its pods.
    """
    from pycni.errors import StoreError
    from pycni.settings import refuse_store
    from pycni.stores import open_store

    settings = invocation.settings()
    store = open_store(settings.store_url, settings.cluster, create=False)
    listing = store.listing()
    if node not in listing.liveness and node not in _claimants(store):
        raise StoreError(f"the cluster has no node {node}", hint="`pycni nodes` lists them")
    signs = _signs_of_life(settings, listing, node)
    if dry_run:
        refuse_store(settings)
        alive = f"would ask first: {'; '.join(signs)}" if signs else "it shows no sign of life"
        invocation.say(f"would forget node {node}", alive, node=node, signs=signs, dry_run=True)
        return
    if signs and not yes:
        _ask(node, signs)
    store.remove(node)
    invocation.say(f"node {node} is forgotten", node=node, signs=signs, dry_run=False)


def _claimants(store: Store) -> set[str]:
    """Nodes that are silent, and have claims to blocks, if not a record."""
    registry = store.blocks()
    return {name for one in registry.census() for name in one.silent} if registry else set()


def _ask(node: str, signs: list[str]) -> None:
    """Raise Abort for an answer that is not yes, StoreError if nobody is there to answer."""
    from pycni.errors import StoreError

    if not _is_interactive():
        raise StoreError(
            f"node {node} shows signs of life, and there is no terminal to ask at",
            details="; ".join(signs),
            hint=f"{TODO}. If it is gone all the same, give --yes",
        )
    for sign in signs:
        click.echo(f"node {node}: {sign}", err=True)
    click.confirm("Cut off its pods from all other nodes, and forget it?", abort=True, err=True)


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def _signs_of_life(settings: Settings, listing: Listing, node: str) -> list[str]:
    """What says that the node, or something at its addresses, still works."""
    from pycni.cluster import gateway
    from pycni.kernel import echo
    from pycni.node.record import Node

    signs = []
    own = Node.load_if_any(settings)
    if own is not None and own.name == node:
        signs.append("it is this node, and it is set up")
    if (liveness := listing.liveness.get(node)) is not None and liveness.alive:
        signs.append(f"its agent is {liveness}")
    record = next((one for one in listing.nodes if one.name == node), None)
    if record is not None:
        names = {gateway(cidr): "the gateway of its pods" for cidr in record.pod_cidrs}
        names[record.vtep] = "its VTEP"
        try:
            answered = echo.who_answers(names)
        except PermissionError:
            answered = set()
            signs.append("nobody can say whether it answers: that takes CAP_NET_RAW")
        signs += [f"{names[one]}, {one}, answers" for one in names if one in answered]
    return signs
