# SPDX-License-Identifier: Apache-2.0
"""How the Kubernetes API is reached: addresses, and who we are. Of a pod, or of a kubeconfig.

In a pod: kubernetes.io/docs, "Accessing the Kubernetes API from a Pod". The files of the service
account are replaced while we run, so each is opened by its path whenever it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pycni.errors import FileError, InvalidSettings
from pycni.files import read_regular
from pycni.stores.kube.location import Location, host_and_port

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_MAX = 64 << 10
"""Bytes; a service account's token has about 1,200."""


@dataclass(frozen=True)
class Access:
    """Where to ask and what to show. Secrets are no part of its text."""

    servers: tuple[tuple[str, int], ...]
    tls: bool = True
    server_name: str = ""
    """The name that the servers' certificate must have; empty: that of the address."""
    ca_file: Path | None = None
    ca_data: str = ""
    """PEM; instead of `ca_file`."""
    token_file: Path | None = None
    token: str = field(default="", repr=False)
    """Instead of `token_file`."""
    cert_file: Path | None = None
    key_file: Path | None = None
    cert_data: bytes = field(default=b"", repr=False)
    """PEM of certificate and key, one after the other; instead of the files."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"Kubernetes at {','.join(host_and_port(*one) for one in self.servers)}"

    def bearer(self) -> str:
        """The token to show now; empty without one. Raises FileError."""
        if self.token_file is None:
            return _checked(self.token, "of the kubeconfig")
        try:
            token = read_regular(self.token_file, at_most=TOKEN_MAX).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(
                f"the token {self.token_file} cannot be read: {error}",
                hint="a pod needs a service account whose token is mounted; outside of a pod, name "
                "a kubeconfig in store",
            ) from error
        return _checked(token, str(self.token_file))


def _checked(token: str, where: str) -> str:
    """A token that a header can have. Raises FileError, which does not show it."""
    lines = len(token.splitlines())
    what = "more than one line" if lines > 1 else "blanks" if " " in token else ""
    if what or not (token.isascii() and token.isprintable()):
        raise FileError(
            f"the token {where} is none: it has {what or 'characters that no token has'}",
            hint="write the token alone, on one line: `kubectl create token` makes one",
        )
    return token


def find(location: Location, environment: Mapping[str, str] = os.environ) -> Access:
    """The access that a store URL means. Raises InvalidSettings or FileError."""
    if location.kubeconfig is None:
        return _of_pod(location, environment)
    # Imported here: agents in pods need no YAML.
    from pycni.stores.kube.kubeconfig import read

    return read(location)


def _of_pod(location: Location, environment: Mapping[str, str]) -> Access:
    servers = location.servers
    if not servers:
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdigit():
            raise InvalidSettings(
                "store = 'kube:' is for pods, and this process is in none: the environment has no "
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT",
                hint="use 'kube:/PATH/OF/A/KUBECONFIG', or name the API servers: "
                "'kube:?server=HOST:PORT'",
            )
        servers = ((host, int(port)),)
    return Access(servers, ca_file=SERVICE_ACCOUNT / "ca.crt", token_file=SERVICE_ACCOUNT / "token")
