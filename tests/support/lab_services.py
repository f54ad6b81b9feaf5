# SPDX-License-Identifier: Apache-2.0
"""Services in a lab: objects in the file that its agents read."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pycni.dataplane import maps
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from support.labs import prepared_lab, start, within, write_settings
from support.waiting import wait_until

VIPS = {4: "10.96.0.10", 6: "fd00:96::10"}
PORT, TARGET = 80, 8080
FAMILY = {4: "IPv4", 6: "IPv6"}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
SOCKETS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}

Document = dict[str, Any]


def address_of(lab: Lab, pod: Pod, version: int) -> str:
    """Of a pod, in one family."""
    return next(one for one in lab.addresses(pod) if ip_address(one).version == version)


def service(name: str = "web", *, vips: Sequence[str] = tuple(VIPS.values()),
            ports: Sequence[Document], **spec: Any) -> Document:  # fmt: skip
    """A Service of the namespace `default`."""
    whole = {"clusterIP": vips[0], "clusterIPs": list(vips), "ports": list(ports)} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def port(protocol: str, number: int = PORT) -> Document:
    """Of a Service."""
    return {"name": protocol.lower(), "port": number, "protocol": protocol}


def slices(
    name: str, ends: Sequence[tuple[str, str]], *, ports: Sequence[Document], **conditions: bool
) -> list[Document]:
    """One for each family; `ends` are addresses, each with the name of its node."""
    made = []
    for version, family in FAMILY.items():
        ones = [
            {"addresses": [address], "nodeName": node, "conditions": conditions}
            for address, node in ends
            if ip_address(address).version == version
        ]
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-{version}",
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": family,
                "endpoints": ones,
                "ports": list(ports),
            }
        )
    return made


def ends_of(lab: Lab, *pods: Pod) -> list[tuple[str, str]]:
    """Both addresses of pods."""
    return [(address, pod.node) for pod in pods for address in lab.addresses(pod)]


@dataclass(frozen=True)
class File:
    """The file with a lab's Services."""

    lab: Lab
    path: Path

    def write(self, *documents: Document) -> None:
        """Say what there is, and wait until every agent that runs has taken it."""
        self.put(*documents)
        for node in self.lab.layout.nodes:
            if self.lab.has_agent(node):
                wait_until(
                    partial(_is_written, node, documents),
                    f"{node.name} has taken the Services",
                )

    def put(self, *documents: Document) -> None:
        """Say what there is."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"kind": "List", "items": list(documents)}))
        new.rename(self.path)


@contextmanager
def services_lab(mode: str) -> Iterator[File]:
    """Two nodes with two pods each, whose Services are in a file; `mode`: their setting
    `services`."""
    with prepared_lab(nodes=2, pods=2) as lab:
        file = File(lab, lab.layout.directory / "services.yaml")
        file.put()
        for node in lab.layout.nodes:
            write_settings(node, services=mode, services_file=str(file.path))
        start(lab)
        yield file


def _is_written(node: LabNode, documents: Sequence[Document]) -> bool:
    """Whether the maps have these endpoints, and no others, as far as they may be chosen."""
    services = {one["metadata"]["name"] for one in documents if one["kind"] == "Service"}
    wanted = {
        (end["addresses"][0], one_port["port"])
        for one in documents
        if one["kind"] == "EndpointSlice"
        and one["metadata"]["labels"]["kubernetes.io/service-name"] in services
        for one_port in one["ports"]
        for end in one["endpoints"]
        if end["conditions"].get("ready", True)
    }
    backends = entries(node, "backends").values()
    fronts = [one for one in entries(node, "services").values() if one.id]
    expected = sum(
        len(one["spec"]["ports"]) * len(one["spec"]["clusterIPs"])
        for one in documents
        if one["kind"] == "Service"
    )
    return len(fronts) == expected and wanted == {
        (str(one.addr), one.port) for one in backends if one.all and one.service
    }


def entries(node: LabNode, name: str) -> dict[Any, Any]:
    """A map of a node."""
    with maps.open_table(load(node.settings_path).pin_root, name) as table:
        return dict(table.items())


@contextmanager
def answering(
    netns: str, addresses: Iterable[str], number: int = TARGET, *, own: bool = False
) -> Iterator[None]:
    """Servers of TCP and UDP that tell each client by which address they see it, or their own."""
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for address in addresses:
            for kind in SOCKETS.values():
                server = stack.enter_context(within(netns, partial(_server, address, number, kind)))
                selector.register(server, selectors.EVENT_READ)
        done = threading.Event()
        thread = threading.Thread(target=_serve, args=(selector, done), kwargs={"own": own})
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _server(address: str, number: int, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(AF[ip_address(address).version], kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, number))
    if kind is socket.SOCK_STREAM:
        made.listen()
    return made


def _serve(selector: selectors.BaseSelector, done: threading.Event, *, own: bool) -> None:
    while not done.is_set():
        for key, _ in selector.select(0.05):
            server = key.fileobj
            assert isinstance(server, socket.socket)
            with suppress(OSError):
                if server.type is socket.SOCK_DGRAM:
                    _, client = server.recvfrom(2048)
                    server.sendto(_told(server, client, own=own), client)
                    continue
                connection, client = server.accept()
                with connection:
                    connection.sendall(_told(server, client, own=own))


def _told(server: socket.socket, client: tuple[str, int], *, own: bool) -> bytes:
    found: str = server.getsockname()[0] if own else client[0]
    return found.encode()
