# SPDX-License-Identifier: Apache-2.0
"""A kubeconfig: one cluster and one user of it, those of a context.

Source of the fields: client-go, tools/clientcmd/api/v1/types.go. Tokens, token files and client
certificates are taken; programs that make credentials are not run.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from pycni.errors import FileError, InvalidSettings
from pycni.files import read_regular
from pycni.logfmt import quoted
from pycni.stores.kube.access import Access
from pycni.stores.kube.location import DEFAULT_PORT, Location

Fields = dict[str, object]
PORTS = {"https": DEFAULT_PORT, "http": 80}
SIZE_MAX = 1 << 20
"""Bytes of a kubeconfig."""
RUNS_PROGRAMS = ("exec", "auth-provider")
NOT_TAKEN = ("username", "password", "as", "as-uid", "as-groups", "as-user-extra")


def read(location: Location) -> Access:
    """The access that a kubeconfig gives. Raises InvalidSettings or FileError."""
    file = location.kubeconfig
    assert file is not None
    config = _Config(file)
    context = location.context or config.text(config.whole, "current-context")
    if not context:
        raise config.wrong("it has no current-context", hint="name one in store: ?context=NAME")
    chosen = config.named("contexts", "context", context)
    cluster = config.named("clusters", "cluster", config.text(chosen, "cluster"))
    user = config.named("users", "user", config.text(chosen, "user"))
    config.refuse(cluster, user)
    url = urlsplit(config.text(cluster, "server"))
    if url.scheme not in PORTS or not url.hostname or url.path.strip("/"):
        raise config.wrong(
            f"its server {quoted(url.geturl())} is not https://HOST:PORT", hint="correct it"
        )
    return Access(
        servers=location.servers or ((url.hostname, url.port or PORTS[url.scheme]),),
        tls=url.scheme == "https",
        server_name=config.text(cluster, "tls-server-name"),
        ca_file=config.path(cluster, "certificate-authority"),
        ca_data=config.data(cluster, "certificate-authority-data").decode("ascii", "replace"),
        token_file=config.path(user, "tokenFile"),
        token=config.text(user, "token"),
        cert_file=config.path(user, "client-certificate"),
        key_file=config.path(user, "client-key"),
        cert_data=config.certificate(user),
    )


class _Config:
    """The document of a file, and the errors about it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            whole = yaml.safe_load(read_regular(file, at_most=SIZE_MAX).decode())
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(
                f"the kubeconfig {file} cannot be read: "
                + (getattr(error, "strerror", None) or "it is not UTF-8"),
                hint="correct its path in store, and run as root",
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            raise self.wrong("it is not YAML", hint="`kubectl config view` checks it") from error
        if not isinstance(whole, dict):
            raise self.wrong("it is not a kubeconfig", hint="`kubectl config view` checks it")
        self.whole: Fields = whole

    def wrong(self, problem: str, *, hint: str) -> InvalidSettings:
        return InvalidSettings(f"the kubeconfig {self.file} cannot be used: {problem}", hint=hint)

    def named(self, plural: str, singular: str, name: str) -> Fields:
        """The one of that name in a list such as `clusters`."""
        entries = self.whole.get(plural)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(singular)
                return found if isinstance(found, dict) else {}
        raise self.wrong(f"it has no {singular} {quoted(name)}", hint="correct context in store")

    def text(self, fields: Fields, key: str) -> str:
        value = fields.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(f"its {key} is not text", hint="`kubectl config view` checks it")
        return value

    def path(self, fields: Fields, key: str) -> Path | None:
        """A file, beside the kubeconfig if it is relative."""
        text = self.text(fields, key)
        return self.file.parent / text if text else None

    def data(self, fields: Fields, key: str) -> bytes:
        try:
            return base64.b64decode(self.text(fields, key), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.wrong(f"its {key} is not base64", hint="make it anew") from error

    def certificate(self, user: Fields) -> bytes:
        parts = [self.data(user, f"client-{part}-data") for part in ("certificate", "key")]
        if any(parts) and not all(parts):
            raise self.wrong(
                "client-certificate-data and client-key-data need each other", hint="give both"
            )
        return b"\n".join(parts) if all(parts) else b""

    def refuse(self, cluster: Fields, user: Fields) -> None:
        """Raise InvalidSettings for what would not be done, or not safely."""
        for key in RUNS_PROGRAMS:
            if user.get(key):
                raise self.wrong(
                    f"its user has {key}: pycni runs no programs to get credentials",
                    hint="give the user a token, a tokenFile or a client certificate: "
                    "`kubectl create token` makes one",
                )
        for key in NOT_TAKEN:
            if user.get(key):
                raise self.wrong(f"its user has {key}, which is not supported",
                                 hint="use a token or a client certificate")  # fmt: skip
        if cluster.get("insecure-skip-tls-verify"):
            raise self.wrong(
                "it has insecure-skip-tls-verify: whoever is between could divert all pods",
                hint="give certificate-authority instead",
            )
        if cluster.get("proxy-url"):
            raise self.wrong("it has proxy-url, which is not supported", hint="reach the server "
                             "directly: ?server=HOST:PORT")  # fmt: skip
