# SPDX-License-Identifier: Apache-2.0
"""Where the Kubernetes API is, as the URL in `store` says. Asks nobody and reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pycni.errors import InvalidSettings

KIND = "kube:"
DEFAULT_PORT = 443
OPTIONS = {"context", "server"}


@dataclass(frozen=True)
class Location:
    """What a store URL says: `kube:[/KUBECONFIG][?context=NAME][&server=HOST:PORT,...]`."""

    kubeconfig: Path | None = None
    """None: in a pod, by its service account."""
    context: str = ""
    """Of the kubeconfig; empty: its current one."""
    servers: tuple[tuple[str, int], ...] = ()
    """Host and port of API servers to ask, in this order; none: as the pod or kubeconfig says."""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Read a URL. Raises InvalidSettings, which says what is wrong with it."""
        path, _, query = url.removeprefix(KIND).partition("?")
        try:
            options = dict(
                parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else ()
            )
            servers = tuple(map(_server, filter(None, options.get("server", "").split(","))))
        except ValueError as error:
            raise _wrong(url, str(error)) from error
        if unknown := options.keys() - OPTIONS:
            raise _wrong(url, f"unknown option {min(unknown)!r}")
        if path and not Path(path).is_absolute():
            raise _wrong(url, "the path of the kubeconfig is not absolute")
        if "context" in options and not path:
            raise _wrong(url, "context is for a kubeconfig")
        return cls(Path(path) if path else None, options.get("context", ""), servers)


def host_and_port(host: str, port: int) -> str:
    """As a URL has them (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _server(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or "@" in text or "/" in text:
        raise ValueError(f"{text!r} is not a host, or host:port")
    return parts.hostname, parts.port or DEFAULT_PORT


def _wrong(url: str, problem: str) -> InvalidSettings:
    return InvalidSettings(
        f"store = {url!r}: {problem}",
        hint="use 'kube:' in a pod, or 'kube:/etc/kubernetes/admin.conf?context=NAME'; "
        "'kube:?server=10.0.0.1:6443,10.0.0.2:6443' names the API servers",
    )
