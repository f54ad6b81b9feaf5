"""`pycni forget`: a node that cannot leave the cluster by itself."""

from __future__ import annotations

import click

from pycni.cli.invocation import Invocation, output_option, pass_invocation


@click.command()
@click.argument("node")
@output_option
@pass_invocation
def forget(invocation: Invocation, node: str) -> None:
    """Take a NODE that is gone for good out of the cluster."""
    from pycni.errors import StoreError
    from pycni.stores import open_store

    settings = invocation.settings()
    store = open_store(settings.store_url, settings.cluster, create=False)
    liveness = store.listing().liveness.get(node)
    if liveness is None:
        raise StoreError(f"the cluster has no node {node}", hint="`pycni nodes` lists them")
    if liveness.alive:
        raise StoreError(
            f"the agent of node {node} is alive",
            hint=f"run `pycni teardown` on {node}; forget is for nodes that are gone",
        )
    store.remove(node)
    invocation.say(f"node {node} is forgotten", node=node)
