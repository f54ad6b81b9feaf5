# SPDX-License-Identifier: Apache-2.0
"""BGP as the store: a file with this node's own place, and what it learnt of the others."""

from __future__ import annotations

from pycni.stores.bgp.store import BgpStore

__all__ = ["BgpStore"]
