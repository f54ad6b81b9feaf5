# SPDX-License-Identifier: Apache-2.0
"""Where a cluster's etcd is, as the URL in `store` says. Asks nobody and reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pycni.errors import InvalidSettings

KINDS = {"etcd": False, "etcds": True}
"""Schemes of store URLs, and whether each means TLS."""
DEFAULT_PORT = 2379
DEFAULT_PREFIX = "pycni"
OPTIONS = {"ca", "cert", "key", "user", "password_file"}


@dataclass(frozen=True)
class Location:
    """What a store URL says: `etcd[s]://HOST[:PORT][,HOST[:PORT]...][/PREFIX][?OPTIONS]`."""

    endpoints: tuple[tuple[str, int], ...]
    prefix: str
    tls: bool
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Location:
        """Read a URL. Raises InvalidSettings, which says what is wrong with it."""
        scheme, _, rest = url.partition("://")
        if scheme not in KINDS:
            raise _wrong(url, "it must begin with etcd:// or etcds://")
        address, _, query = rest.partition("?")
        hosts, _, path = address.partition("/")
        try:
            endpoints = tuple(map(_endpoint, hosts.split(",")))
            options = dict(
                parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else ()
            )
        except ValueError as error:
            raise _wrong(url, str(error)) from error
        if unknown := options.keys() - OPTIONS:
            raise _wrong(url, f"unknown option {min(unknown)!r}")
        tls = KINDS[scheme]
        if not tls and options.keys() & {"ca", "cert", "key"}:
            raise _wrong(url, "ca, cert and key are for etcds://")
        if ("cert" in options) != ("key" in options):
            raise _wrong(url, "cert and key need each other")
        if ("user" in options) != ("password_file" in options):
            raise _wrong(url, "user and password_file need each other")
        files = {name: Path(text) for name, text in options.items() if name != "user"}
        for name, file in files.items():
            if not file.is_absolute():
                raise _wrong(url, f"{name} must be an absolute path")
        prefix = path.strip("/") or DEFAULT_PREFIX
        return cls(endpoints, f"/{prefix}/", tls, user=options.get("user", ""), **files)

    @property
    def is_local(self) -> bool:
        """Whether every endpoint is this machine."""
        return all(map(_is_loopback, (host for host, _ in self.endpoints)))

    def __str__(self) -> str:
        """For messages; without secrets."""
        hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                 for host, port in self.endpoints)  # fmt: skip
        return f"etcd at {','.join(hosts)}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _endpoint(text: str) -> tuple[str, int]:
    """Host and port. An IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or "@" in text:
        raise ValueError(f"{text!r} is not a host, or host:port")
    return parts.hostname, parts.port or DEFAULT_PORT


def _wrong(url: str, problem: str) -> InvalidSettings:
    return InvalidSettings(
        f"store = {url!r}: {problem}",
        hint="use 'etcd://HOST:2379' or 'etcds://HOST:2379/PREFIX?ca=/FILE&cert=/FILE&key=/FILE'",
    )
