# SPDX-License-Identifier: Apache-2.0
"""etcd's JSON gateway: calls and streams over HTTP/1.1, one connection each.

Knows TLS, users and etcd's errors, and nothing of what the keys mean. Source of paths, fields and
codes: etcd 3.4, Documentation/dev-guide/api_grpc_gateway.md and etcdserverpb/rpc.proto. In its
JSON, 64-bit numbers are text, keys and values are base64, and what is 0 or false is left out.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pycni.errors import FileError, PycniError, StoreError, TryAgain
from pycni.files import read_regular, refuse_irregular
from pycni.stores.etcd.keys import Document
from pycni.stores.etcd.location import Location
from pycni.stores.interrupt import ended_by

PASSWORD_MAX = 4 << 10
"""Bytes of a file with a password."""

CALL_TIMEOUT = 5.0
"""Seconds to wait for an answer; then the next endpoint is asked."""

KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A stream is silent while nothing changes. If its host is gone, it breaks after 25 s."""

INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED = 3, 4, 7
RESOURCE_EXHAUSTED, UNAVAILABLE, UNAUTHENTICATED = 8, 14, 16
"""Status codes of gRPC (grpc/grpc, doc/statuscodes.md)."""


class Gateway:
    """A client; safe to use from several threads. Raises FileError for unusable certificates."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._tls = _tls_context(location) if location.tls else None
        self._token = ""

    def call(self, path: str, request: Document) -> Document:
        """The answer to a request, e.g. "kv/range". Raises StoreError; TryAgain without quorum."""
        with self._opened(path, request) as response:
            return _document(response.read(), self.location)

    def stream(self, path: str, request: Document, stop: threading.Event) -> Iterator[Document]:
        """The results of a request that streams, e.g. "watch", until `stop` is set.

        Raises StoreError if the stream ends before.
        """
        with self._opened(path, request) as response:
            response.wait_for_ever()
            try:
                with ended_by(stop, response.socket):
                    while not stop.is_set():
                        line = response.readline()
                        if stop.is_set():
                            return
                        if not line:
                            raise StoreError(f"{self.location} ended the stream", hint=HINT)
                        document = _document(line, self.location)
                        if "error" in document:
                            raise _refusal(self.location, document["error"])
                        yield document["result"]
            except (OSError, http.client.HTTPException) as error:
                if not stop.is_set():
                    raise StoreError(
                        f"the stream from {self.location} broke: {error}", hint=HINT
                    ) from error

    def warnings(self, key: str) -> list[str]:
        """What is not safe about how etcd is reached, a sentence each. Asks for a key (base64) as
        somebody without credentials would. Raises nothing."""
        location = self.location
        found = []
        if not location.tls and not location.is_local:
            found.append(
                f"{location} is reached without TLS: whoever is between can read and change where "
                "pods are (use etcds://, see docs/store.md)"
            )
        anyone = replace(location, user="", password_file=None, cert=None, key=None)
        with suppress(PycniError):
            Gateway(anyone).call("kv/range", {"key": key})
            found.append(
                f"{location} answers without credentials: whoever reaches it can divert the "
                "traffic of all pods (give it users, or ask for client certificates, see "
                "docs/store.md)"
            )
        return found

    def _opened(self, path: str, request: Document) -> _Response:
        """The answer of the first endpoint that gives one. Raises StoreError if none does."""
        failures = []
        for endpoint in self.location.endpoints:
            try:
                return self._ask(endpoint, path, request)
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{endpoint[0]}:{endpoint[1]}: {_reason(error)}")
        raise StoreError(f"{self.location} does not answer: {'; '.join(failures)}", hint=HINT)

    def _ask(self, endpoint: tuple[str, int], path: str, request: Document) -> _Response:
        if self.location.user and not self._token:
            self._token = self._authenticate(endpoint)
        response = self._post(endpoint, path, request)
        if response.status == http.client.UNAUTHORIZED and self._token:
            response.close()
            self._token = ""  # it ran out, or etcd started anew; a login must not carry it
            self._token = self._authenticate(endpoint)
            response = self._post(endpoint, path, request)
        if response.status == http.client.OK:
            return response
        with response:
            if response.status == http.client.NOT_FOUND:
                raise StoreError(
                    f"{self.location} has no /v3/{path}",
                    hint="it must be etcd 3.4 or later; check the host and port of store",
                )
            raise _refusal(self.location, _document(response.read(), self.location))

    def _authenticate(self, endpoint: tuple[str, int]) -> str:
        file = self.location.password_file
        assert file is not None
        try:
            password = read_regular(file, at_most=PASSWORD_MAX).decode().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(
                f"the password of etcd's user {self.location.user} cannot be read: {error}",
                hint="correct password_file in store",
            ) from error
        request = {"name": self.location.user, "password": password}
        with self._post(endpoint, "auth/authenticate", request) as response:
            answer = _document(response.read(), self.location)
            if response.status != http.client.OK:
                raise _refusal(self.location, answer)
            return str(answer["token"])

    def _post(self, endpoint: tuple[str, int], path: str, request: Document) -> _Response:
        connection = self._connect(endpoint)
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(request), headers)
            return _Response(connection)
        except BaseException:
            connection.close()
            raise

    def _connect(self, endpoint: tuple[str, int]) -> http.client.HTTPConnection:
        host, port = endpoint
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=CALL_TIMEOUT)
        return http.client.HTTPSConnection(host, port, timeout=CALL_TIMEOUT, context=self._tls)


class _Response:
    """The answer to a request that was sent; closing it closes its connection."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        # Kept here: the connection forgets its socket when the server ends it with the answer.
        self.socket: socket.socket = connection.sock
        self._response = connection.getresponse()
        self.status = self._response.status
        self.read = self._response.read
        self.readline = self._response.readline

    def __enter__(self) -> _Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def wait_for_ever(self) -> None:
        """Wait without a timeout; reading fails when the other side is gone."""
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            self.socket.setsockopt(socket.IPPROTO_TCP, option, value)


HINT = "check that etcd runs, and that its host, port and scheme in store are right"
CLOCK_HINT = "; is the clock of this machine right?"
CLOCK_ERRORS = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of openssl/x509_vfy.h."""


def _tls_context(location: Location) -> ssl.SSLContext:
    authority = [one for one in (location.ca,) if one]
    own = [one for one in (location.cert, location.key) if one]
    with _errors_about("certificate authority", location, authority):
        context = ssl.create_default_context(cafile=location.ca)
    with _errors_about("client certificate with its key", location, own):
        if location.cert is not None:
            context.load_cert_chain(location.cert, location.key)
    return context


@contextmanager
def _errors_about(what: str, location: Location, files: list[Path]) -> Iterator[None]:
    """Refuse files that are no regular ones, and turn an OSError about any into a FileError."""
    try:
        for file in files:
            refuse_irregular(file)
        yield
    except OSError as error:
        raise FileError(
            f"the {what} for {location} cannot be used: {error}",
            hint=f"correct it in store, or in {' and '.join(map(str, files))}",
        ) from error


def _document(text: bytes, location: Location) -> Document:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise StoreError(f"what answers as {location} is not etcd", hint=HINT)
    return document


def _refusal(location: Location, answer: Document) -> StoreError | TryAgain:
    """etcd's error as ours, by the gRPC code. Streams have it in another field."""
    code = answer.get("code", answer.get("grpc_code"))
    message = answer.get("message", answer.get("error", "no reason given"))
    if code in (UNAVAILABLE, DEADLINE_EXCEEDED):
        return TryAgain(
            f"{location} cannot answer now: {message}",
            hint="a majority of etcd's members must be up and reach each other",
        )
    return StoreError(
        f"{location} refuses: {message}", hint=REFUSAL_HINTS.get(int(code or 0), HINT)
    )


CREDENTIALS_HINT = "give user and password_file in store: etcd[s]://...?user=U&password_file=/F"
REFUSAL_HINTS = {
    INVALID_ARGUMENT: CREDENTIALS_HINT,
    UNAUTHENTICATED: CREDENTIALS_HINT,
    PERMISSION_DENIED: "grant the user readwrite on the prefix of store: etcdctl role "
    "grant-permission --prefix=true ROLE readwrite /PREFIX/",
    RESOURCE_EXHAUSTED: "etcd's space is used up: compact and defragment it, then disarm the "
    "alarm with etcdctl",
}


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        clock = CLOCK_HINT if error.verify_code in CLOCK_ERRORS else ""
        return f"its certificate is not accepted: {error.verify_message}{clock}"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"no answer within {CALL_TIMEOUT:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
