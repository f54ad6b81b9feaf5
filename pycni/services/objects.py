# SPDX-License-Identifier: Apache-2.0
"""Services and EndpointSlices, as far as a node needs them, checked as they come in.

Kubernetes API reference: Service v1, EndpointSlice discovery.k8s.io/v1. What the API server would
refuse is refused again: objects come from files, too. One bad object, or endpoint, is named and
stops no other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import (
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic.alias_generators import to_camel

from pycni.cluster import IPAddress, IPNetwork

CLUSTER, LOCAL = "Cluster", "Local"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
"""Who has this label is another proxy's."""
HEADLESS = "service.kubernetes.io/headless"
SERVICE_NAME = "kubernetes.io/service-name"
"""On an EndpointSlice: whose endpoints these are."""
NO_ADDRESS = "None"
DEFAULT_AFFINITY = 10_800
"""Seconds; `sessionAffinityConfig.clientIP.timeoutSeconds` of who names none."""

Protocol = Literal["TCP", "UDP", "SCTP"]
Policy = Literal["Cluster", "Local"]
Port = Annotated[int, Field(ge=1, le=65535)]


def _address(value: object) -> IPAddress:
    """An address in its one form: IPv4 in IPv6 (RFC 4291, 2.5.5.2) is IPv4."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no address")
    found = ip_address(value)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _network(value: object) -> IPNetwork:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no network")
    return ip_network(value.strip(), strict=False)


Address = Annotated[IPAddress, BeforeValidator(_address)]
Network = Annotated[IPNetwork, BeforeValidator(_network)]


def _or_empty(value: object) -> object:
    """JSON's null is an absent list."""
    return () if value is None else value


class _Part(BaseModel):
    """A part of an object; fields that are not ours are passed over."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=AliasGenerator(validation_alias=to_camel)
    )


class Metadata(_Part):
    name: str = Field(min_length=1, max_length=253)
    namespace: str = Field(default="default", max_length=63)
    uid: str = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: object) -> object:
        return {} if value is None else value


class ServicePort(_Part):
    name: str = ""
    protocol: Protocol = "TCP"
    port: Port
    node_port: int = Field(default=0, ge=0, le=65535)
    """0: none."""


class ClientIP(_Part):
    timeout_seconds: int = Field(default=DEFAULT_AFFINITY, ge=1, le=86_400)


class AffinityConfig(_Part):
    client_ip: ClientIP | None = Field(default=None, validation_alias="clientIP")


class ServiceSpec(_Part):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: str = Field(default="", validation_alias="clusterIP")
    cluster_ips: tuple[str, ...] = Field(default=(), validation_alias="clusterIPs")
    external_ips: tuple[Address, ...] = Field(default=(), validation_alias="externalIPs")
    ports: tuple[ServicePort, ...] = ()
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: AffinityConfig | None = None
    internal_traffic_policy: Policy = "Cluster"
    external_traffic_policy: Policy = "Cluster"
    health_check_node_port: int = Field(default=0, ge=0, le=65535)
    load_balancer_source_ranges: tuple[Network, ...] = ()

    _lists = field_validator(
        "cluster_ips", "external_ips", "ports", "load_balancer_source_ranges", mode="before"
    )(_or_empty)


class Ingress(_Part):
    """One address that a load balancer has for the Service; with a name alone it is of no use."""

    ip: Address | None = None
    ip_mode: Literal["VIP", "Proxy"] = "VIP"


class LoadBalancer(_Part):
    ingress: tuple[Ingress, ...] = ()

    _lists = field_validator("ingress", mode="before")(_or_empty)


class ServiceStatus(_Part):
    load_balancer: LoadBalancer = LoadBalancer()


class Service(_Part):
    """A Service. Two ports with one number and protocol, or one name, are refused."""

    metadata: Metadata
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()

    @field_validator("spec")
    @classmethod
    def _distinct_ports(cls, spec: ServiceSpec) -> ServiceSpec:
        for what, keys in (
            ("number and protocol", [(one.port, one.protocol) for one in spec.ports]),
            ("name", [one.name for one in spec.ports]),
        ):
            if len(set(keys)) != len(keys):
                raise ValueError(f"two ports have one {what}")
        return spec

    @property
    def name(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def age(self) -> tuple[float, str]:
        """The lower one counts as older. Without a time, the object counts as new."""
        made = self.metadata.creation_timestamp
        return (made.timestamp() if made else float("inf"), self.metadata.uid or self.name)

    @property
    def affinity(self) -> int:
        """Seconds for which new flows of a client keep their endpoint; 0: not at all."""
        if self.spec.session_affinity == "None":
            return 0
        config = self.spec.session_affinity_config
        client = config.client_ip if config else None
        return client.timeout_seconds if client else DEFAULT_AFFINITY

    @property
    def cluster_addresses(self) -> tuple[IPAddress, ...]:
        """The ClusterIPs, one for each family at most; none if it is headless or ExternalName."""
        spec = self.spec
        texts = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
        if spec.type == "ExternalName":
            return ()
        return tuple(_address(text) for text in texts if text not in (NO_ADDRESS, ""))

    @field_validator("spec")
    @classmethod
    def _addresses(cls, spec: ServiceSpec) -> ServiceSpec:
        texts = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
        versions = [_address(text).version for text in texts if text not in (NO_ADDRESS, "")]
        if len(set(versions)) != len(versions):
            raise ValueError("two clusterIPs are of one family")
        return spec


class Conditions(_Part):
    """Each may be absent; what that means is in EndpointSlice's API reference."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(_Part):
    name: str


class Hints(_Part):
    for_zones: tuple[Hint, ...] = ()
    for_nodes: tuple[Hint, ...] = ()

    _lists = field_validator("for_zones", "for_nodes", mode="before")(_or_empty)


class SliceEndpoint(_Part):
    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    node_name: str = ""
    zone: str = ""
    hints: Hints = Hints()

    _lists = field_validator("addresses", mode="before")(_or_empty)

    @field_validator("conditions", "hints", "node_name", "zone", mode="before")
    @classmethod
    def _absent(cls, value: object, info: Any) -> object:
        if value is not None:
            return value
        return "" if info.field_name in ("node_name", "zone") else {}


class SlicePort(_Part):
    """Of a slice: the port of each of its endpoints. Without a number it counts for nothing."""

    name: str | None = None
    protocol: Protocol = "TCP"
    port: int | None = Field(default=None, ge=0, le=65535)


class EndpointSlice(_Part):
    metadata: Metadata
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    _lists = field_validator("endpoints", "ports", mode="before")(_or_empty)

    @property
    def name(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def service(self) -> str:
        """Namespace and name of the Service whose endpoints these are; empty without one."""
        owner = self.metadata.labels.get(SERVICE_NAME, "")
        return f"{self.metadata.namespace}/{owner}" if owner else ""


@dataclass(frozen=True)
class SetAside:
    """An object, or a part of one, that is not used, and why."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Objects:
    """What was understood of a list of documents."""

    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    set_aside: tuple[SetAside, ...] = ()


_KINDS: dict[str, type[Service] | type[EndpointSlice]] = {
    "Service": Service,
    "EndpointSlice": EndpointSlice,
}


def read(documents: Iterable[dict[str, Any]]) -> Objects:
    """The Services and EndpointSlices among documents, without those that are for other proxies or
    headless (kubernetes.io/docs, "Virtual IPs and Service Proxies"). Raises nothing."""
    services: list[Service] = []
    slices: list[EndpointSlice] = []
    aside: list[SetAside] = []
    for document in documents:
        kind = str(document.get("kind", ""))
        model = _KINDS.get(kind)
        if model is None:
            continue
        try:
            made = model.model_validate(document)
        except ValidationError as error:
            aside.append(SetAside(kind, _named(document), _reason(error)))
            continue
        if PROXY_NAME in made.metadata.labels or HEADLESS in made.metadata.labels:
            continue
        if isinstance(made, Service):
            services.append(made)
        else:
            slices.append(made)
    return Objects(tuple(services), tuple(slices), tuple(aside))


def read_one(kind: str, document: dict[str, Any]) -> Objects:
    """As `read`, of one object in a list of its kind, which has no kind of its own."""
    return read([{**document, "kind": kind}])


def _named(document: dict[str, Any]) -> str:
    head = document.get("metadata")
    head = head if isinstance(head, dict) else {}
    return f"{head.get('namespace', 'default')}/{head.get('name', '(no name)')}"


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong, with the place where it stands."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}"
