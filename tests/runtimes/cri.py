# SPDX-License-Identifier: Apache-2.0
"""A client of the container runtime interface: what a kubelet asks of a runtime, by gRPC."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from runtimes.messages import PACKAGE, message_classes

SERVICE = f"/{PACKAGE}.RuntimeService"
PATIENCE = 60.0
"""Seconds a call may take if nothing else is said."""

_numbers = itertools.count(1)


class Refused(Exception):
    """A call failed; `code` is the name of gRPC's status, the message what the runtime said."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        self.code: str = error.code().name


class Cri:
    """A connection to a runtime's socket."""

    def __init__(self, socket: Path, *, cgroup_parent: str) -> None:
        self._socket = socket
        self._cgroup_parent = cgroup_parent
        self._channel = _channel(socket)

    def reconnect(self) -> None:
        """Forget the connection, which may be to a runtime that is no more."""
        self.close()
        self._channel = _channel(self._socket)

    def close(self) -> None:
        self._channel.close()

    def version(self) -> str:
        """Name and version of the runtime; waits until it serves."""
        answer = self._call("Version", wait=True)
        return f"{answer.runtime_name} {answer.runtime_version}"

    def conditions(self) -> dict[str, str]:
        """What is not ready, and why; empty if everything is."""
        status = self._call("Status").status
        return {one.type: one.message for one in status.conditions if not one.status}

    def network(self) -> str:
        """The network configuration in use, as text; empty if there is none."""
        return str(self._call("Status", verbose=True).info["cniconfig"])

    def pod(
        self,
        *,
        ports: Sequence[Mapping[str, Any]] = (),
        annotations: Mapping[str, str] | None = None,
    ) -> Any:
        """The configuration of one more pod."""
        name = f"pod{next(_numbers)}"
        return message_classes["PodSandboxConfig"](
            metadata={"name": name, "uid": f"uid-of-{name}", "namespace": "tests"},
            hostname=name,
            port_mappings=ports,
            annotations=annotations or {},
            linux={"cgroup_parent": self._cgroup_parent},
        )

    def run(self, config: Any, *, timeout: float = PATIENCE) -> str:
        """RunPodSandbox; the sandbox's ID."""
        return str(self._call("RunPodSandbox", timeout=timeout, config=config).pod_sandbox_id)

    @contextmanager
    def starting(self, config: Any) -> Iterator[None]:
        """RunPodSandbox of which nobody hears the end; given up on at the end of the block."""
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.run, config)
            yield
            with suppress(Refused):
                call.result()

    def stop(self, sandbox: str) -> None:
        self._call("StopPodSandbox", pod_sandbox_id=sandbox)

    def remove(self, sandbox: str, *, timeout: float = PATIENCE) -> None:
        """RemovePodSandbox, which stops a running one first."""
        self._call("RemovePodSandbox", timeout=timeout, pod_sandbox_id=sandbox)

    def state(self, sandbox: str) -> int:
        return int(self._status(sandbox).status.state)

    def addresses(self, sandbox: str) -> list[str]:
        """The addresses the runtime reports for a pod, the first one first."""
        network = self._status(sandbox).status.network
        return [network.ip, *(one.ip for one in network.additional_ips)]

    def netns(self, sandbox: str) -> Path:
        """Where a sandbox's network namespace is mounted."""
        info = json.loads(self._status(sandbox, verbose=True).info["info"])
        (path,) = (
            one["path"]
            for one in info["runtimeSpec"]["linux"]["namespaces"]
            if one["type"] == "network"
        )
        return Path(path)

    def pid(self, sandbox: str) -> int:
        """The process that is the sandbox."""
        return int(json.loads(self._status(sandbox, verbose=True).info["info"])["pid"])

    def sandboxes(self) -> list[str]:
        return [one.id for one in self._call("ListPodSandbox").items]

    def start_container(self, sandbox: str, config: Any, *, image: str) -> str:
        """A container in a sandbox, started; its ID."""
        container = self._call(
            "CreateContainer",
            pod_sandbox_id=sandbox,
            config={"metadata": {"name": "main"}, "image": {"image": image}},
            sandbox_config=config,
        ).container_id
        self._call("StartContainer", container_id=container)
        return str(container)

    def execute(self, container: str, *command: str, timeout: int = 20) -> tuple[int, str]:
        """A command in a container: its exit status, and stdout with stderr after it."""
        done = self._call("ExecSync", container_id=container, cmd=command, timeout=timeout)
        return done.exit_code, (done.stdout + done.stderr).decode(errors="replace")

    def _status(self, sandbox: str, *, verbose: bool = False) -> Any:
        return self._call("PodSandboxStatus", pod_sandbox_id=sandbox, verbose=verbose)

    def _call(
        self, method: str, *, timeout: float = PATIENCE, wait: bool = False, **fields: Any
    ) -> Any:
        call = self._channel.unary_unary(
            f"{SERVICE}/{method}",
            request_serializer=message_classes[f"{method}Request"].SerializeToString,
            response_deserializer=message_classes[f"{method}Response"].FromString,
        )
        request = message_classes[f"{method}Request"](**fields)
        try:
            return call(request, timeout=timeout, wait_for_ready=wait)
        except grpc.RpcError as error:
            raise Refused(error) from None


def _channel(socket: Path) -> grpc.Channel:
    """Of its own: by default gRPC gives a connection to the same path that is still closing."""
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(f"unix:{socket}", options=options)
