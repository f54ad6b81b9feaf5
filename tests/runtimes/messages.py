# SPDX-License-Identifier: Apache-2.0
"""The messages of the container runtime interface that the tests use, built without a compiler.

Names and numbers: k8s.io/cri-api, runtime/v1/api.proto. Enumerations are declared as int32, which
is the same on the wire; fields that no test needs are left out, which protobuf allows.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "runtime.v1"

TCP, UDP, SCTP = range(3)
"""runtime.v1.Protocol."""
READY, NOT_READY = range(2)
"""runtime.v1.PodSandboxState."""

MESSAGES = {
    "VersionRequest": "version:1:string",
    "VersionResponse": "version:1:string runtime_name:2:string runtime_version:3:string",
    "StatusRequest": "verbose:1:bool",
    "StatusResponse": "status:1:RuntimeStatus info:2:map",
    "RuntimeStatus": "conditions:1:*RuntimeCondition",
    "RuntimeCondition": "type:1:string status:2:bool reason:3:string message:4:string",
    "PodSandboxMetadata": "name:1:string uid:2:string namespace:3:string attempt:4:uint32",
    "PortMapping": "protocol:1:int32 container_port:2:int32 host_port:3:int32 host_ip:4:string",
    "LinuxPodSandboxConfig": "cgroup_parent:1:string",
    "PodSandboxConfig": "metadata:1:PodSandboxMetadata hostname:2:string log_directory:3:string "
    "port_mappings:5:*PortMapping annotations:7:map linux:8:LinuxPodSandboxConfig",
    "RunPodSandboxRequest": "config:1:PodSandboxConfig",
    "RunPodSandboxResponse": "pod_sandbox_id:1:string",
    "StopPodSandboxRequest": "pod_sandbox_id:1:string",
    "StopPodSandboxResponse": "",
    "RemovePodSandboxRequest": "pod_sandbox_id:1:string",
    "RemovePodSandboxResponse": "",
    "PodSandboxStatusRequest": "pod_sandbox_id:1:string verbose:2:bool",
    "PodSandboxStatusResponse": "status:1:PodSandboxStatus info:2:map",
    "PodSandboxStatus": "id:1:string metadata:2:PodSandboxMetadata state:3:int32 "
    "network:5:PodSandboxNetworkStatus",
    "PodSandboxNetworkStatus": "ip:1:string additional_ips:2:*PodIP",
    "PodIP": "ip:1:string",
    "ListPodSandboxRequest": "",
    "ListPodSandboxResponse": "items:1:*PodSandbox",
    "PodSandbox": "id:1:string metadata:2:PodSandboxMetadata state:3:int32",
    "ImageSpec": "image:1:string",
    "ContainerMetadata": "name:1:string attempt:2:uint32",
    "ContainerConfig": "metadata:1:ContainerMetadata image:2:ImageSpec command:3:*string",
    "CreateContainerRequest": "pod_sandbox_id:1:string config:2:ContainerConfig "
    "sandbox_config:3:PodSandboxConfig",
    "CreateContainerResponse": "container_id:1:string",
    "StartContainerRequest": "container_id:1:string",
    "StartContainerResponse": "",
    "ExecSyncRequest": "container_id:1:string cmd:2:*string timeout:3:int64",
    "ExecSyncResponse": "stdout:1:bytes stderr:2:bytes exit_code:3:int32",
}
"""Each field as name:number:type; `*` before the type is `repeated`, `map` maps text to text."""

Field = descriptor_pb2.FieldDescriptorProto


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="runtime/v1/tests.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            _add_field(message, *field.split(":"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in MESSAGES
    }


def _add_field(message: Any, name: str, number: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if kind == "map":
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", "1", "string")
        _add_field(entry, "value", "2", "string")
        kind = f"*{message.name}.{entry.name}"
    if kind.startswith("*"):
        field.label, kind = Field.LABEL_REPEATED, kind[1:]
    if kind[0].isupper():
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(Field, f"TYPE_{kind.upper()}")


message_classes = _build()
"""The classes by message name."""
