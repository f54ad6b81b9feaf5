# SPDX-License-Identifier: Apache-2.0
"""kubeconfig files: where the API server is, how it is known, and who one is (v1 Config)."""

from __future__ import annotations

import base64
import json
from typing import Any

from cluster.layout import Cluster
from pycni.files import replace_file


def document(cluster: Cluster, authority: bytes, token: str) -> dict[str, Any]:
    """A kubeconfig that needs no other file; JSON is YAML, too."""
    data = base64.b64encode(authority).decode()
    name = cluster.name
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": cluster.api, "certificate-authority-data": data}}
        ],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def write(cluster: Cluster, tokens: dict[str, str]) -> None:
    """KEYS/USER.kubeconfig for each user with a token."""
    authority = (cluster.keys / "ca.crt").read_bytes()
    for user, token in tokens.items():
        text = json.dumps(document(cluster, authority, token), indent=2)
        replace_file(cluster.keys / f"{user}.kubeconfig", text.encode())
