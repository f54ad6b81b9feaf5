# SPDX-License-Identifier: Apache-2.0
"""What setup does as it is told, and what an operator probably did not mean.

Looks before setup and changes nothing. None of it is an error: `pycni setup` and the agent say it.
"""

from __future__ import annotations

from pycni.errors import PycniError
from pycni.node import direct
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores.existence import what_is_missing


def look(settings: Settings) -> list[str]:
    """Warnings, one sentence each, without a full stop."""
    found = []
    if not settings.store:
        found.append(
            "`store` is not set: this machine is a cluster of its own, and its pods reach no other "
            "machine's. Set store = 'etcd://HOST:2379' on every node; if one machine is meant, "
            f"set store = '{settings.store_url}'"
        )
    elif Node.load_if_any(settings) is None and (missing := _missing(settings)):
        found.append(
            f"{missing}: setup makes a new cluster, which has no other node. If this node was to "
            "join one, `store` is wrong: correct it, run `pycni teardown` and `pycni setup`"
        )
    if settings.routers_know_pods and not direct.is_wanted(settings):
        found.append(
            f'routers_know_pods = true says nothing with encap = "{settings.encap}": all packets '
            'to other nodes leave as VXLAN. Set encap = "direct" or "auto-direct", or remove it'
        )
    return found


def _missing(settings: Settings) -> str:
    """What setup has to make of the store; empty if it is there, or does not answer."""
    try:
        return what_is_missing(settings.store_url, settings.cluster)
    except PycniError:
        return ""
