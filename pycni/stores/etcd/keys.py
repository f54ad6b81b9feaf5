# SPDX-License-Identifier: Apache-2.0
"""Keys, values and the parts of transactions, as etcd's JSON gateway has them.

Pure. Source of the fields: etcd 3.4, etcdserverpb/rpc.proto. Keys and values are base64.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

Document = dict[str, Any]


def decode(text: str) -> object:
    """What a JSON text says; None for what is not JSON, or is nested too deeply to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def present(key: str) -> Document:
    """Holds if there is that key."""
    return {"key": key, "target": "VERSION", "result": "GREATER", "version": "0"}


def absent(key: str) -> Document:
    """Holds if there is no such key."""
    return {"key": key, "target": "VERSION", "result": "EQUAL", "version": "0"}


def get_key(key: str) -> Document:
    """An operation of a transaction: read. `key` in base64, as in all of these."""
    return {"request_range": {"key": key}}


def put_key(key: str, value: str, *, lease: str = "0") -> Document:
    """Write; `lease` is the ID of the lease with which the key ends, 0: none."""
    return {"request_put": {"key": key, "value": to_base64(value), "lease": lease}}


def delete_key(key: str) -> Document:
    """Delete."""
    return {"request_delete_range": {"key": key}}


def below(prefix: str) -> Document:
    """All keys that begin with a prefix: up to the same text with its last byte one higher."""
    return {
        "key": to_base64(prefix),
        "range_end": to_base64(prefix[:-1] + chr(ord(prefix[-1]) + 1)),
    }


def after(key: str) -> str:
    """The first key that there can be after one; both in base64."""
    return b64encode(b64decode(key) + b"\0").decode("ascii")


def between(first: str, end: str) -> Document:
    """All keys from the first to before the end."""
    return {"key": to_base64(first), "range_end": to_base64(end)}


def to_base64(text: str) -> str:
    """As the gateway wants keys and values: UTF-8 in base64."""
    return b64encode(text.encode(errors="surrogateescape")).decode("ascii")


def from_base64(encoded: str) -> str:
    """The undo. Bytes that are not UTF-8 become surrogates (PEP 383), so that different keys stay
    different."""
    return b64decode(encoded).decode(errors="surrogateescape")
