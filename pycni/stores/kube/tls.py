# SPDX-License-Identifier: Apache-2.0
"""TLS contexts for the Kubernetes API: its own authority only, made anew when a file changes.

Python's default context would also trust the machine's authorities, and takes five times as long.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.errors import FileError
from pycni.files import refuse_irregular
from pycni.stores.kube.access import Access

KEPT = 4
"""Contexts that are kept: one is used, the others are of before."""

AUTHORITY, CERTIFICATE = "certificate authority", "client certificate with its key"

Stamp = tuple[int, int, int]

_contexts: dict[tuple[Access, tuple[Stamp, ...]], ssl.SSLContext] = {}
_lock = threading.Lock()


def context_for(access: Access) -> ssl.SSLContext:
    """The context by the files as they are now. Raises FileError for unusable ones."""
    authority = [one for one in (access.ca_file,) if one]
    own = [one for one in (access.cert_file, access.key_file) if one]
    with _errors_about(AUTHORITY, access, authority):
        stamps = tuple(map(_stamp, authority))
    with _errors_about(CERTIFICATE, access, own):
        stamps += tuple(map(_stamp, own))
    key = access, stamps
    with _lock:
        if key not in _contexts:
            while len(_contexts) >= KEPT:
                del _contexts[next(iter(_contexts))]
            _contexts[key] = _make(access, authority, own)
        return _contexts[key]


def _make(access: Access, authority: list[Path], own: list[Path]) -> ssl.SSLContext:
    """Raises FileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with _errors_about(AUTHORITY, access, authority):
        if access.ca_file is None and not access.ca_data:
            context.load_default_certs()
        else:
            context.load_verify_locations(access.ca_file, cadata=access.ca_data or None)
    with _errors_about(CERTIFICATE, access, own):
        if access.cert_data:
            _load_from_memory(context, access.cert_data)
        elif access.cert_file is not None:
            context.load_cert_chain(access.cert_file, access.key_file)
    return context


@contextmanager
def _errors_about(what: str, access: Access, files: list[Path]) -> Iterator[None]:
    """Turn what is raised for unusable files, or parts of a kubeconfig, into a FileError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(
            f"the {what} for {access.where} cannot be used: {error}",
            hint=f"correct {' and '.join(map(str, files)) or 'the kubeconfig'}",
        ) from error


def _load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL takes a key from a file only; this one has no name and is never on a disk."""
    descriptor = os.memfd_create("pycni-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _stamp(file: Path) -> Stamp:
    """Changes when a file is replaced or written, also behind a symbolic link. Raises OSError for
    what is no regular file."""
    refuse_irregular(file)
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
