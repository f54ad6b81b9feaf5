# SPDX-License-Identifier: Apache-2.0
"""Certificates for servers on loopback, by openssl(1), valid from and to days from today."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

CURRENT = (-1, 2)

CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
extendedKeyUsage = serverAuth, clientAuth
[ca]
default_ca = default
[default]
database = index.txt
rand_serial = yes
default_md = sha256
policy = policy
new_certs_dir = .
unique_subject = no
[policy]
commonName = supplied
"""


def make_authority(directory: Path, name: str) -> None:
    """NAME.pem and NAME.key, which sign certificates."""
    _make(directory, name, "authority", ["-selfsign", "-keyfile", f"{name}.key"], CURRENT)


def make_certificate(
    directory: Path, name: str, *, authority: str, days: tuple[int, int] = CURRENT
) -> None:
    """NAME.pem and NAME.key, for 127.0.0.1."""
    signer = ["-cert", f"{authority}.pem", "-keyfile", f"{authority}.key"]
    _make(directory, name, "server", signer, days)


def _make(
    directory: Path, name: str, section: str, signer: list[str], days: tuple[int, int]
) -> None:
    (directory / "openssl.cnf").write_text(CONFIG)
    (directory / "index.txt").touch()
    start, end = (
        (datetime.now(UTC) + timedelta(days=day)).strftime("%Y%m%d%H%M%SZ") for day in days
    )
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.csr"]
    _openssl(directory, "req", "-new", *key, "-subj", f"/CN={name}", *files)
    validity = ["-startdate", start, "-enddate", end, "-extensions", section]
    request = ["-in", f"{name}.csr", "-out", f"{name}.pem"]
    _openssl(directory, "ca", "-batch", "-notext", *signer, *validity, *request)


def _openssl(directory: Path, command: str, *arguments: str) -> None:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("missing: openssl (apt install openssl)")
    done = subprocess.run(
        [tool, command, "-config", "openssl.cnf", *arguments],
        cwd=directory,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
