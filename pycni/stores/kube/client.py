# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API by its verbs. Knows tokens, busy servers and the API's errors, no kinds.

Source: kubernetes.io/docs, "Kubernetes API Concepts"; errors are `Status` objects
(apimachinery, pkg/apis/meta/v1/types.go).
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from pycni import __version__
from pycni.errors import StoreError, TryAgain
from pycni.stores.kube.access import Access
from pycni.stores.kube.body import Body
from pycni.stores.kube.bucket import bucket_of
from pycni.stores.kube.connection import Answer, Request, asked

Document = dict[str, object]

CALL_TIMEOUT = 10.0
"""Seconds to wait for each part of an answer."""
PATIENCE = 10.0
"""Seconds for which a call is tried again while the server is busy, or our bucket is empty."""
BODY_MAX = 32 << 20
"""Bytes of an answer: more than 500 objects of our kinds have."""
SHOWN = 500
"""Characters of a server's message that an error shows."""

MANAGER = "pycni-agent"
"""Who owns the fields that are applied (server-side apply)."""
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

OK, CREATED = http.client.OK, http.client.CREATED
UNAUTHORIZED, FORBIDDEN = http.client.UNAUTHORIZED, http.client.FORBIDDEN
INVALID = http.client.UNPROCESSABLE_ENTITY
NOT_FOUND, CONFLICT, GONE = http.client.NOT_FOUND, http.client.CONFLICT, http.client.GONE
BUSY = (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE)

_preferred: dict[tuple[tuple[str, int], ...], int] = {}
"""Which of several servers answered last: a dead one costs a timeout."""


@dataclass(frozen=True)
class Outcome:
    """What came of a call."""

    status: int
    document: Document

    @property
    def reason(self) -> str:
        """The machine-readable one of a `Status`."""
        return str(self.document.get("reason", ""))


class Client:
    """Safe to use from several threads: each call has a connection of its own."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._bucket = bucket_of(access.servers)

    @property
    def where(self) -> str:
        """For messages."""
        return self.access.where

    def get(self, path: str) -> Document | None:
        """An object; None if there is none. Raises StoreError."""
        outcome = self.call(Request("GET", path), accept=(NOT_FOUND,))
        return None if outcome.status == NOT_FOUND else outcome.document

    def create(self, path: str, document: Document) -> bool:
        """Make an object below `path`; False if there is one of that name. Raises StoreError."""
        outcome = self.call(_with_body("POST", path, document, JSON), accept=(CONFLICT,))
        return outcome.status != CONFLICT

    def apply(self, path: str, document: Document) -> bool:
        """Make the fields of `document` ours and all others of ours go (server-side apply); makes
        the object if there is none. With a resourceVersion in it: False if the object has changed
        since, and with a uid, if it is gone. Raises StoreError."""
        query = urlencode({"fieldManager": MANAGER, "force": "true"})
        request = _with_body("PATCH", f"{path}?{query}", document, APPLY)
        return self.call(request, accept=(CONFLICT,)).status != CONFLICT

    def merge(self, path: str, document: Document) -> bool:
        """Change an object as a JSON merge patch says (RFC 7386); False if there is none."""
        outcome = self.call(_with_body("PATCH", path, document, MERGE), accept=(NOT_FOUND,))
        return outcome.status != NOT_FOUND

    def delete(self, path: str, **preconditions: str) -> bool:
        """Delete an object, as long as its `uid` and `resourceVersion` are these; False if there is
        none, or it is another. Raises StoreError."""
        document: Document = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if preconditions:
            document["preconditions"] = preconditions
        request = _with_body("DELETE", path, document, JSON)
        return self.call(request, accept=(NOT_FOUND, CONFLICT)).status not in (NOT_FOUND, CONFLICT)

    def call(self, request: Request, *, accept: tuple[int, ...] = ()) -> Outcome:
        """What came of a request: 2xx, or a status of `accept`. Raises StoreError, or TryAgain
        while the server is busy."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._wait_for_turn(deadline)
            with self.answered(request) as answer:
                document = self.document(answer)
            outcome = Outcome(answer.status, document)
            if OK <= outcome.status < 300 or outcome.status in accept:
                return outcome
            if outcome.status not in BUSY:
                raise self.refusal(outcome, request)
            pause = jittered(answer.retry_after or 1.0)
            if time.monotonic() + pause > deadline:
                raise TryAgain(
                    f"{self.where} is busy: {_message(document)}",
                    details=f"it asks to wait {answer.retry_after:g} s",
                    hint="nothing to do: it is asked again",
                )
            time.sleep(pause)

    @contextmanager
    def answered(self, request: Request) -> Iterator[Answer]:
        """The answer of the first server that gives one, whatever its status.

        The token is read for each request. If it is refused it may just have been replaced, and is
        read once more. Raises StoreError if no server answers, and FileError.
        """
        with ExitStack() as undo:
            answer = self._first_answer(request, undo)
            if answer.status == UNAUTHORIZED:
                undo.pop_all().close()
                answer = self._first_answer(request, undo)
            try:
                yield answer
            except (OSError, http.client.HTTPException) as error:
                raise StoreError(
                    f"the answer of {self.where} broke off: {_reason(error)}", hint=HINT
                ) from error

    def _first_answer(self, request: Request, undo: ExitStack) -> Answer:
        servers = self.access.servers
        headers = {"Accept": JSON, "Accept-Encoding": "gzip", "User-Agent": AGENT}
        headers |= request.headers
        if token := self.access.bearer():
            headers["Authorization"] = f"Bearer {token}"
        complete = Request(request.method, request.target, request.body, headers, request.timeout)
        first = _preferred.get(servers, 0)
        failures, hint = [], HINT
        for number in range(first, first + len(servers)):
            index = number % len(servers)
            host, port = servers[index]
            try:
                answer = undo.enter_context(asked(self.access, servers[index], complete))
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{host}:{port}: {_reason(error)}")
                if isinstance(error, ssl.SSLCertVerificationError):
                    hint = self._authority_hint()
            else:
                _preferred[servers] = index
                return answer
        raise StoreError(f"{self.where} does not answer: {'; '.join(failures)}", hint=hint)

    def _authority_hint(self) -> str:
        """What to do where a certificate is not accepted."""
        known = self.access.ca_file or "the kubeconfig"
        return (
            f"{known} must have the authority of the API servers' certificates, and these the name "
            "or address that is asked. In a pod, kube-controller-manager gives it: --root-ca-file"
        )

    def _wait_for_turn(self, deadline: float) -> None:
        delay = self._bucket.take()
        if time.monotonic() + delay > deadline:
            self._bucket.give_back()
            raise TryAgain(
                f"this node asks {self.where} more often than it may",
                details=f"the next request would be in {delay:.0f} s",
                hint="nothing to do: it is asked again; if it lasts, report it as a bug",
            )
        if delay:
            time.sleep(delay)

    def document(self, answer: Answer) -> Document:
        """The body of an answer; empty if it is no JSON object. Raises StoreError if a success has
        no such body."""
        document = _json(_whole(answer.body)) if answer.is_json else {}
        if document is None or (answer.status < 300 and not answer.is_json):
            raise StoreError(f"what answers as {self.where} is not Kubernetes", hint=HINT)
        return document

    def refusal(self, outcome: Outcome, request: Request) -> StoreError:
        """A status that is no success, as an error that says what to do."""
        status, message = outcome.status, _message(outcome.document)
        path = request.target.partition("?")[0]
        if status == UNAUTHORIZED:
            return StoreError(
                f"{self.where} does not accept our credentials",
                hint="the token or client certificate has run out, or is of another cluster",
            )
        if status == FORBIDDEN:
            return StoreError(
                f"{self.where} forbids {request.method} {path}: {message}",
                hint="apply deploy/kubernetes/rbac.yaml, or use a kubeconfig with these rights",
            )
        if status == NOT_FOUND:
            return StoreError(
                f"{self.where} has no {path}",
                hint="apply deploy/kubernetes/crds.yaml; if it is applied, check the server",
            )
        hint = RULE_HINT if status == INVALID else HINT
        return StoreError(
            f"{self.where} refuses {request.method} {path} with {status}: {message}", hint=hint
        )


RULE_HINT = (
    "the message names the rule. A node may change only its own objects: as administrator use "
    "kubectl, such as kubectl delete node for a node that is gone"
)
HINT = "check that the API server runs, and that store names the right one"
AGENT = f"pycni/{__version__}"
CLOCK_HINT = "; is the clock of this machine right?"
CLOCK_ERRORS = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of openssl/x509_vfy.h."""


def target(path: str, **query: str) -> str:
    """A path with a query."""
    return f"{path}?{urlencode(query)}" if query else path


def jittered(seconds: float) -> float:
    """At least so long, and up to twice: who was told the same time shall not all come then."""
    return random.uniform(seconds, 2 * seconds)


def _with_body(method: str, path: str, document: Mapping[str, object], kind: str) -> Request:
    return Request(method, path, json.dumps(document).encode(), {"Content-Type": kind})


def _whole(body: Body) -> bytes:
    found = bytearray()
    while piece := body.piece():
        found += piece
        if len(found) > BODY_MAX:
            raise http.client.HTTPException(f"the body has more than {BODY_MAX} bytes")
    return bytes(found)


def _json(text: bytes) -> Document | None:
    """A JSON object; None for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _message(document: Document) -> str:
    """A server's own words, short and in printable ASCII."""
    text = str(document.get("message", "no reason given"))
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        clock = CLOCK_HINT if error.verify_code in CLOCK_ERRORS else ""
        return f"its certificate is not accepted: {error.verify_message}{clock}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
