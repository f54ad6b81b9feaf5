"""Keys and values in etcd: records as JSON, and the parts of transactions over them.

Pure. Source of the fields: etcd 3.4, etcdserverpb/rpc.proto.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from ipaddress import ip_address, ip_network
from typing import Any

from pycni.stores import NodeRecord

Document = dict[str, Any]

NEVER = 0.0
"""The heartbeat of a node whose lease has run out: etcd does not know when."""


def encode(record: NodeRecord, identity: str) -> str:
    """A record as it is stored; the name is in the key, and the heartbeat in the lease."""
    return json.dumps(
        {
            "node_id": record.node_id,
            "vtep": str(record.vtep),
            "pod_cidrs": [str(cidr) for cidr in record.pod_cidrs],
            "extra": [str(prefix) for prefix in record.extra],
            "identity": identity,
        }
    )


def decode(name: str, text: str) -> tuple[NodeRecord, str]:
    """A stored record and the machine's identity. Raises ValueError, KeyError or TypeError."""
    document = json.loads(text)
    record = NodeRecord(
        name=name,
        node_id=int(document["node_id"]),
        vtep=ip_address(document["vtep"]),
        pod_cidrs=tuple(map(ip_network, document["pod_cidrs"])),
        heartbeat=NEVER,
        extra=tuple(map(ip_network, document["extra"])),
    )
    return record, str(document["identity"])


def present(key: str) -> Document:
    return {"key": key, "target": "VERSION", "result": "GREATER", "version": "0"}


def absent(key: str) -> Document:
    return {"key": key, "target": "VERSION", "result": "EQUAL", "version": "0"}


def put_key(key: str, value: str, *, lease: str = "0") -> Document:
    return {"request_put": {"key": key, "value": to_base64(value), "lease": lease}}


def delete_key(key: str) -> Document:
    return {"request_delete_range": {"key": key}}


def below(prefix: str) -> Document:
    """Of all keys that begin with a prefix: up to the same with its last byte one higher."""
    return {
        "key": to_base64(prefix),
        "range_end": to_base64(prefix[:-1] + chr(ord(prefix[-1]) + 1)),
    }


def to_base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")


def from_base64(encoded: str) -> str:
    return b64decode(encoded).decode(errors="replace")
