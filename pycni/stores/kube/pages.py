# SPDX-License-Identifier: Apache-2.0
"""All objects of a kind, in pages (kubernetes.io/docs, "Retrieving large results sets in chunks").

A page is read whole. All are of one moment, that of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pycni.errors import StoreError
from pycni.stores.kube import objects
from pycni.stores.kube.client import GONE, Client, target
from pycni.stores.kube.connection import Request
from pycni.stores.kube.objects import Document

PAGE = 500
"""Objects; client-go's default."""


@dataclass(frozen=True)
class Page:
    """Some of the objects."""

    items: list[Document]
    version: str
    """The resourceVersion of the moment, from which a watch can go on."""


def pages(client: Client, path: str, **query: str) -> Iterator[Page]:
    """All pages; one at least. Raises StoreError, also if the list takes so long that the server
    has forgotten its moment."""
    following: dict[str, str] = {}
    while True:
        request = Request("GET", target(path, limit=str(PAGE), **query, **following))
        outcome = client.call(request, accept=(GONE,))
        if outcome.status == GONE:
            raise StoreError(
                f"the list from {client.where} took so long that it ran out",
                hint="nothing to do: it is read anew",
            )
        items = outcome.document.get("items")
        head = objects.metadata(outcome.document)
        found = items if isinstance(items, list) else []
        yield Page([one for one in found if isinstance(one, dict)],
                   objects.text(head, "resourceVersion"))  # fmt: skip
        token = objects.text(head, "continue")
        if not token:
            return
        following = {"continue": token}
