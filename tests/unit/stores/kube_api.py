# SPDX-License-Identifier: Apache-2.0
"""A fake Kubernetes API server on loopback: real HTTP and TLS, real streams, and its bad days."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from unit.stores.kube_objects import Document, Objects
from unit.stores.kube_schemas import problem

COLLECTIONS = (
    "/api/v1/nodes",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
    "/apis/pycni.dev/v1alpha1/nodenetworks",
    "/apis/pycni.dev/v1alpha1/podblocks",
    "/apis/pycni.dev/v1alpha1/clusternetworks",
    "/apis/pycni.dev/v1alpha1/ippools",
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/pycni.dev/v1alpha1/bgppeers",
)
(
    NODES, LEASES, NODE_NETWORKS, POD_BLOCKS, CLUSTER_NETWORKS, IP_POOLS, SERVICES, SLICES,
    BGP_PEERS,
) = COLLECTIONS  # fmt: skip
PAGE = 500
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists",
           410: "Expired", 422: "Invalid", 429: "TooManyRequests"}  # fmt: skip
ON, OFF, OLD, MUTE = "on", "off", "old", "mute"
"""What becomes of a wish for a streamed list: served, 422, ignored (a plain watch follows), served
without the bookmark that ends it."""


@dataclass
class Api:
    """The server. Whatever is set may be set while it runs."""

    clock: Callable[[], float] = time.time
    streams_lists: str = ON
    gzips: bool = False
    flushes_members: bool = True
    """Each event of a compressed watch is a gzip member of its own, as of Kubernetes 1.37."""
    tokens: set[str] = field(default_factory=set)
    """That are accepted; none: nobody is asked for one."""
    node_of: dict[str, str] = field(default_factory=dict)
    """Tokens of pods, and the node that each is bound to: only its objects may be written."""
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Method and collection that RBAC lacks."""
    absent: set[str] = field(default_factory=set)
    """Collections without a CRD."""
    busy: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers that the next requests get instead: status and headers."""
    next_lines: list[bytes] = field(default_factory=list)
    """What the next watch says first."""
    cuts_after: int | None = None
    """Bytes of a watch after which its connection breaks."""
    ends_watches: bool = False
    """Each watch ends, in good order, when it has told what there is."""
    silent: bool = False
    """Requests are taken, and never answered."""
    make_node: Callable[[str], None] = lambda _name: None
    """Called before a Node is read."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, target and headers of each."""
    objects: Objects = field(init=False)
    host: str = "127.0.0.1"
    port: int = 0
    scheme: str = "http"
    _server: ThreadingHTTPServer | None = None

    def __post_init__(self) -> None:
        self.objects = Objects(self.clock)
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def start(self, context: ssl.SSLContext | None = None) -> None:
        """With TLS by `context`. May be called again after `stop`, on the same port."""
        self.stopped.clear()
        server = _Server((self.host, self.port), _Handler)
        server.api = self
        if context is not None:
            self.scheme = "https"
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is not None:
            self.stopped.set()
            with self.objects.changed:
                self.objects.changed.notify_all()
            self._server.shutdown()
            self._server.server_close()
            self._server.break_all()
            self._server = None

    def break_all(self) -> None:
        """Break all connections."""
        assert self._server is not None
        self._server.break_all()

    def asked(self, method: str, part: str) -> list[str]:
        """Targets of requests of a method that have a text."""
        return [target for verb, target, _ in self.requests if verb == method and part in target]

    def bookmark(self, path: str = NODE_NETWORKS) -> None:
        """Tell watches of the current version, and nothing else."""
        self.objects.bookmark(path)


def _unwanted(selector: str) -> list[str]:
    """The labels that a selector of `!label,!label` wants nobody to have."""
    return [part.removeprefix("!") for part in selector.split(",") if part]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    api: Api

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def break_all(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Tests look at `requests`."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._create)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    @property
    def api(self) -> Api:
        return self.server.api

    def _answer(self, verb: Callable[[], None]) -> None:
        api = self.api
        self.close_connection = True
        api.requests.append((self.command, self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length", "0"))
        self.body = json.loads(self.rfile.read(length)) if length else {}
        while api.silent and not api.stopped.wait(0.02):
            pass
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query))
        self.collection, self.name = _split(parts.path)
        if api.busy:
            status, headers = api.busy.pop(0)
            self._status(status, "busy", headers)
        elif api.tokens and self._token not in api.tokens:
            self._status(401, "Unauthorized")
        elif (self.command, self.collection) in api.forbidden:
            self._status(403, f"cannot {self.command.lower()} {self.collection}")
        elif not self.collection or self.collection in api.absent:
            self._send(404, b"404 page not found\n", kind="text/plain")
        else:
            verb()

    @property
    def _token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    def _get(self) -> None:
        if self.name:
            if self.collection == NODES:
                self.api.make_node(self.name)
            found = self.api.objects.get(self.collection, self.name)
            self._status(404, f"{self.name} not found") if found is None else self._json(200, found)
        elif self.query.get("watch"):
            self._watch()
        else:
            self._list()

    def _list(self) -> None:
        objects = self.api.objects
        begin, _, version = self.query.get("continue", f"0.{objects.version}").partition(".")
        if int(version) < objects.forgotten:
            self._status(410, "The provided continue parameter is too old")
            return
        found = objects.list(self.collection)
        if wanted := self.query.get("fieldSelector"):
            node = wanted.removeprefix("spec.node=")
            found = [one for one in found if one["spec"].get("node") == node]
        found = list(filter(self._is_wanted, found))
        size = int(self.query.get("limit", PAGE))
        end = int(begin) + size
        head: Document = {"resourceVersion": version}
        if end < len(found):
            head["continue"] = f"{end}.{version}"
        self._json(200, {"kind": "List", "metadata": head, "items": found[int(begin) : end]})

    def _is_wanted(self, document: Document) -> bool:
        """Whether an object has none of the labels that nobody shall have."""
        labels = document["metadata"].get("labels") or {}
        return not any(key in labels for key in _unwanted(self.query.get("labelSelector", "")))

    def _create(self) -> None:
        name = self.body["metadata"]["name"]
        if not self._may_write(name, self.body):
            return
        with self.api.objects.changed:
            if self.api.objects.get(self.collection, name) is not None:
                self._status(409, f"{name} already exists")
                return
            made = self.api.objects.put(self.collection, name, self.body)
        self._json(201, made)

    def _patch(self) -> None:
        if not self._may_write(self.name, self.body):
            return
        if self._kind == "application/apply-patch+yaml":
            found = self.api.objects.apply(self.collection, self.name, self.body)
            self._status(409, "it changed") if found is None else self._json(200, found)
        else:
            found = self.api.objects.merge(self.collection, self.name, self.body)
            self._status(404, "not found") if found is None else self._json(200, found)

    def _delete(self) -> None:
        found = self.api.objects.get(self.collection, self.name)
        if found is None:
            self._status(404, f"{self.name} not found")
            return
        if not self._may_write(self.name, found):
            return
        for key, value in self.body.get("preconditions", {}).items():
            if found["metadata"][key] != value:
                self._status(409, f"{key} is another")
                return
        self.api.objects.delete(self.collection, self.name)
        self._json(200, {"kind": "Status", "status": "Success"})

    def _may_write(self, name: str, document: Document) -> bool:
        found = problem(self.collection, document)
        if found and self.command in ("POST", "PATCH") and "merge" not in self._kind:
            self._status(422, found)
            return False
        return self._is_own(name, document)

    @property
    def _kind(self) -> str:
        return str(self.headers["Content-Type"])

    def _is_own(self, name: str, document: Document) -> bool:
        """As deploy/kubernetes/admission.yaml: only objects of the token's own node."""
        node = self.api.node_of.get(self._token)
        owner = document.get("spec", {}).get("node") if self.collection == POD_BLOCKS else name
        if node is None or owner == node:
            return True
        self._status(422, "ValidatingAdmissionPolicy 'pycni-own-objects' denied request")
        return False

    def _watch(self) -> None:
        api = self.api
        lists = self.query.get("sendInitialEvents") == "true" and api.streams_lists != OLD
        if lists and api.streams_lists == OFF:
            self._status(422, "sendInitialEvents is forbidden for watch unless the WatchList "
                         "feature gate is enabled")  # fmt: skip
            return
        since = int(self.query.get("resourceVersion") or 0)
        if not lists and since < api.objects.forgotten:
            self._status(410, "too old resource version")
            return
        self._head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
        stream = _Stream(self)
        for line in [api.next_lines.pop(0) for _ in range(len(api.next_lines))]:
            stream.send(line)
        with api.objects.changed:
            version = api.objects.version
            initial = api.objects.list(self.collection)
        if lists:
            for document in filter(self._is_wanted, initial):
                stream.event("ADDED", document)
            if api.streams_lists == ON:
                stream.bookmark(version, {"k8s.io/initial-events-end": "true"})
            since = version
        elif api.streams_lists == OLD and self.query.get("sendInitialEvents"):
            since = version
        self._follow(stream, since)
        stream.end()

    def _follow(self, stream: _Stream, since: int) -> None:
        objects, api = self.api.objects, self.api
        deadline = time.monotonic() + float(self.query.get("timeoutSeconds", "300"))
        while not api.stopped.is_set() and time.monotonic() < deadline:
            with objects.changed:
                fresh = [one for one in objects.history if one.version > since]
                if not fresh and since >= objects.forgotten:
                    if api.ends_watches:
                        return
                    objects.changed.wait(0.1)
                    continue
                too_old = since < objects.forgotten
                since = objects.version
            if too_old:
                stream.send(
                    json.dumps({"type": "ERROR", "object": _status(410, "too old")}).encode()
                )
                return
            for change in fresh:
                if change.path == self.collection:
                    is_wanted = self._is_wanted(change.document)
                    stream.event(change.kind if is_wanted else "DELETED", change.document)

    def _status(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._json(status, _status(status, message), headers)

    def _json(self, status: int, document: Document, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), headers=headers)

    def _send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        head = {"Content-Type": kind} | (headers or {})
        if self._zips:
            body = gzip.compress(body)
        self._head(status, head | {"Content-Length": str(len(body))})
        self.wfile.write(body)
        self.wfile.flush()

    @property
    def _zips(self) -> bool:
        return self.api.gzips and self.headers.get("Accept-Encoding") == "gzip"

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if self._zips:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()


class _Stream:
    """A watch on its way out, in chunks."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self._zip = zlib.compressobj(wbits=31) if handler._zips else None
        self._sent = 0

    def event(self, kind: str, document: Document) -> None:
        self.send(json.dumps({"type": kind, "object": document}).encode())

    def bookmark(self, version: int, annotations: dict[str, str]) -> None:
        head = {"resourceVersion": str(version), "annotations": annotations}
        self.event("BOOKMARK", {"kind": "NodeNetwork", "metadata": head})

    def send(self, line: bytes) -> None:
        data = line + b"\n"
        if self._zip is not None and self._handler.api.flushes_members:
            data = gzip.compress(data)
        elif self._zip is not None:
            data = self._zip.compress(data) + self._zip.flush(zlib.Z_SYNC_FLUSH)
        self._chunk(data)

    def end(self) -> None:
        if self._zip is not None and not self._handler.api.flushes_members:
            self._chunk(self._zip.flush())
        self._handler.wfile.write(b"0\r\n\r\n")
        self._handler.wfile.flush()

    def _chunk(self, data: bytes) -> None:
        out = b"%x\r\n%s\r\n" % (len(data), data)
        limit = self._handler.api.cuts_after
        if limit is not None and self._sent + len(out) > limit:
            self._handler.wfile.write(out[: limit - self._sent])
            self._handler.wfile.flush()
            raise ConnectionAbortedError
        self._sent += len(out)
        self._handler.wfile.write(out)
        self._handler.wfile.flush()


@contextmanager
def serving(context: ssl.SSLContext | None = None, **options: Any) -> Iterator[Api]:
    """A server that runs in the block."""
    api = Api(**options)
    api.start(context)
    try:
        yield api
    finally:
        api.stop()


def kubeconfig(directory: Path, api: Api, **user: str) -> Path:
    """A kubeconfig for a server."""
    document = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": user}],
    }
    file = directory / "kubeconfig"
    file.write_text(json.dumps(document))
    return file


def _split(path: str) -> tuple[str, str]:
    """The collection that a path is in, and the name of an object."""
    for collection in COLLECTIONS:
        if path == collection:
            return collection, ""
        if path.startswith(f"{collection}/"):
            return collection, path.removeprefix(f"{collection}/")
    return "", ""


def _status(code: int, message: str) -> Document:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message,
            "reason": REASONS.get(code, "")}  # fmt: skip
