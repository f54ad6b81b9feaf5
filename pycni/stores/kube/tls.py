# SPDX-License-Identifier: Apache-2.0
"""TLS contexts for the Kubernetes API: its own authority only, made anew when a file changes.

Python's default context would also trust the machine's authorities, and takes five times as long.
"""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path

from pycni.errors import FileError
from pycni.files import refuse_irregular
from pycni.stores.kube.access import Access

KEPT = 4
"""Contexts that are kept: one is used, the others are of before."""

Stamp = tuple[int, int, int]

_contexts: dict[tuple[Access, tuple[Stamp, ...]], ssl.SSLContext] = {}
_lock = threading.Lock()


def context_for(access: Access) -> ssl.SSLContext:
    """The context by the files as they are now. Raises FileError for unusable ones."""
    files = [one for one in (access.ca_file, access.cert_file, access.key_file) if one]
    try:
        key = access, tuple(map(_stamp, files))
        with _lock:
            if key not in _contexts:
                while len(_contexts) >= KEPT:
                    del _contexts[next(iter(_contexts))]
                _contexts[key] = _make(access)
            return _contexts[key]
    except (OSError, ValueError) as error:
        raise FileError(
            f"a certificate or key for {access.where} cannot be used: {error}",
            hint=f"correct the files or the kubeconfig; the files are "
            f"{', '.join(map(str, files)) or 'in the kubeconfig'}",
        ) from error


def _make(access: Access) -> ssl.SSLContext:
    """Raises OSError or ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if access.ca_file is None and not access.ca_data:
        context.load_default_certs()
    else:
        context.load_verify_locations(access.ca_file, cadata=access.ca_data or None)
    if access.cert_data:
        _load_from_memory(context, access.cert_data)
    elif access.cert_file is not None:
        context.load_cert_chain(access.cert_file, access.key_file)
    return context


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
