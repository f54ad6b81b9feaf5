# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and tokens of one cluster, by openssl(1); in a private directory.

Clients show tokens (`--token-auth-file`), so only the API server needs a certificate.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import API_SERVICE, DNS_DOMAIN, Cluster, addresses
from pycni.errors import PycniError
from pycni.files import make_private_directory, replace_file

DAYS = "365"
CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, digitalSignature
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class User:
    """Who may speak to the API server; `name` is also that of the kubeconfig file."""

    name: str
    username: str
    groups: tuple[str, ...] = ()


def users(cluster: Cluster) -> list[User]:
    """The administrator, the components, and a kubelet for each machine."""
    return [
        User("admin", "admin", ("system:masters",)),
        User("controller-manager", "system:kube-controller-manager"),
        User("scheduler", "system:kube-scheduler"),
        User("proxy", "system:kube-proxy"),
        *(
            User(f"kubelet-{node.name}", f"system:node:{node.name}", ("system:nodes",))
            for node in cluster.machines
        ),
    ]


def server_names(cluster: Cluster) -> list[str]:
    """What the API server is called by, as subjectAltName has it."""
    service = "kubernetes.default.svc"
    names = ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.{DNS_DOMAIN}")
    numbers = (*addresses(cluster.control), *API_SERVICE, "127.0.0.1", "::1")
    return [*(f"DNS:{name}" for name in names), *(f"IP:{number}" for number in numbers)]


def make_files(cluster: Cluster) -> None:
    """ca, api and service-account: NAME.crt or .pub, and NAME.key. Raises PycniError."""
    make_private_directory(cluster.keys)
    text = CONFIG.format(names=", ".join(server_names(cluster)))
    (cluster.keys / "openssl.cnf").write_text(text)
    _certify(cluster.keys, "ca", "authority", ())
    _certify(cluster.keys, "api", "server", ("-CA", "ca.crt", "-CAkey", "ca.key"))
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    _openssl(cluster.keys, "genpkey", *curve, "-out", "service-account.key")
    keys = ("-in", "service-account.key", "-pubout", "-out", "service-account.pub")
    _openssl(cluster.keys, "pkey", *keys)


def make_tokens(cluster: Cluster) -> dict[str, str]:
    """A token for each user, in the file that the API server reads; returned by user's name."""
    tokens = {user.name: secrets.token_urlsafe(24) for user in users(cluster)}
    lines = token_lines(users(cluster), tokens)
    replace_file(cluster.keys / "tokens.csv", "".join(lines).encode())
    return tokens


def token_lines(known: Iterable[User], tokens: dict[str, str]) -> list[str]:
    """Lines of a static token file: token, user, user's ID, and groups in quotation marks."""
    return [
        f'{tokens[user.name]},{user.username},{user.name},"{",".join(user.groups)}"\n'
        for user in known
    ]


def _certify(directory: Path, name: str, section: str, signer: tuple[str, ...]) -> None:
    subject = ("-subj", f"/CN=pycni-cluster-{name}", "-days", DAYS, "-extensions", section)
    files = ("-keyout", f"{name}.key", "-out", f"{name}.crt", "-config", "openssl.cnf")
    _openssl(directory, "req", "-x509", *EC_KEY, *subject, *signer, *files)


def _openssl(directory: Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=False, umask=0o077
        )
    except FileNotFoundError as error:
        raise PycniError("openssl is missing", hint="install it: make test-packages") from error
    if done.returncode != 0:
        raise PycniError(
            f"openssl {arguments[0]} failed",
            details=done.stderr.strip()[-500:],
            hint="OpenSSL 3.0 or newer is needed",
        )
