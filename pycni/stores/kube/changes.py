# SPDX-License-Identifier: Apache-2.0
"""Changes of the lists in a NodeNetwork, while others may change it, too."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from pycni.errors import PlaceLost, TryAgain
from pycni.stores.kube import objects
from pycni.stores.kube.client import Client
from pycni.stores.kube.objects import NODE_NETWORKS

TRIES = 5
"""How often a change of the own object is tried again when it changed meanwhile."""


def path_of(name: str) -> str:
    """Of a node's NodeNetwork."""
    return f"{NODE_NETWORKS}/{quote(name, safe='')}"


def change_list(
    client: Client, name: str, field: str, change: Callable[[list[str]], list[str]]
) -> list[str] | None:
    """Change the list of texts that is `field` of the spec; returns it, None if the node is not
    registered. Raises StoreError."""
    for _ in range(TRIES):
        document = client.get(path_of(name))
        if document is None:
            return None
        spec = objects.fields(document.get("spec"))
        found = spec.get(field)
        before = [str(one) for one in found] if isinstance(found, list) else []
        after = change(before)
        if before == after or client.apply(
            path_of(name), objects.with_spec(document, spec | {field: after})
        ):
            return after
    raise never_still(name)


def never_still(name: str) -> TryAgain:
    """The error for an object that changes all the time."""
    return TryAgain(
        f"the NodeNetwork {name} changes all the time", hint="nothing to do: it is tried again"
    )


def not_registered(client: Client, name: str) -> PlaceLost:
    """The error for a node that has no NodeNetwork."""
    return PlaceLost(
        f"the node {name} is not registered in {client.where}", hint="register it again"
    )
