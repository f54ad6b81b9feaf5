# SPDX-License-Identifier: Apache-2.0
"""Reads a CNI result from JSON that others wrote: `prevResult`, or what an IPAM plugin printed.

Keys match without regard to case and null counts as absent, as in Go. Unknown keys are ignored.
Import this module where a result is read, not at the top: to make its models takes 7 ms, and most
calls read none. Source: as result.py.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pycni.cni.document import pick
from pycni.cni.protocol import OLDEST, check_version
from pycni.cni.result import OLD_FORM, Address, Dns, Interface, Result, Route
from pycni.errors import DecodingError


def from_json(document: Any, version: str, *, what: str = "prevResult") -> Result:
    """The result in a decoded document; `version` is what it is in unless it says so itself.

    Raises DecodingError (code 6) that names the part, IncompatibleVersion for an unknown version.
    """
    try:
        version = _Head.model_validate(document).version or version or OLDEST
        check_version(version)
        model = _OldForm if version in OLD_FORM else _Form
        return model.model_validate(document).to_result()
    except ValidationError as error:
        first = error.errors()[0]
        part = ".".join(map(str, first["loc"])) or "the document"
        raise DecodingError(
            f"{what} is no CNI result",
            details=f"{part}: {first['msg']}, found {first['input']!r}",
            hint="whoever wrote it must follow the CNI specification, section 5",
        ) from error


def _interface(text: Any) -> IPv4Interface | IPv6Interface:
    if not isinstance(text, str) or not text.partition("/")[2].isdecimal():
        raise ValueError("not an address with a prefix length")  # Python takes a netmask, or none
    return ip_interface(text)


def _address(text: Any) -> IPv4Address | IPv6Address | None:
    if not isinstance(text, str):
        raise ValueError("not an address")  # Python takes a number
    return ip_address(text) if text else None


_Prefix = Annotated[IPv4Interface | IPv6Interface, BeforeValidator(_interface)]
_Gateway = Annotated[IPv4Address | IPv6Address | None, BeforeValidator(_address)]
_Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _fold_keys(cls, found: Any) -> Any:
        keys = (field.alias or name for name, field in cls.model_fields.items())
        return pick(found, keys) if isinstance(found, dict) else found


class _Head(_Part):
    version: str = Field(default="", alias="cniVersion")


class _Interface(_Part):
    name: str = ""
    mac: str = ""
    sandbox: str = ""
    mtu: _Count | None = None
    socket_path: str = Field(default="", alias="socketPath")
    pci_id: str = Field(default="", alias="pciID")


class _Address(_Part):
    address: _Prefix
    gateway: _Gateway = None
    interface: int | None = None


class _Route(_Part):
    dst: _Prefix
    gateway: _Gateway = Field(default=None, alias="gw")
    mtu: _Count | None = None
    advmss: _Count | None = None
    priority: _Count | None = None
    table: _Count | None = None
    scope: _Count | None = None

    def to_route(self) -> Route:
        return Route(**dict(self) | {"dst": self.dst.network})


class _Dns(_Part):
    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []

    def to_dns(self) -> Dns:
        return Dns(tuple(self.nameservers), self.domain, tuple(self.search), tuple(self.options))


class _Form(_Part):
    """A result of 0.3.0 and later."""

    interfaces: list[_Interface] = []
    ips: list[_Address] = []
    routes: list[_Route] = []
    dns: _Dns = _Dns()

    @model_validator(mode="after")
    def _check_indexes(self) -> Self:
        for index in (one.interface for one in self.ips):
            if index is not None and index not in range(len(self.interfaces)):
                raise ValueError(f"ips has interface {index} of {len(self.interfaces)}")
        return self

    def to_result(self) -> Result:
        return Result(
            interfaces=tuple(Interface(**dict(one)) for one in self.interfaces),
            ips=tuple(Address(**dict(one)) for one in self.ips),
            routes=tuple(one.to_route() for one in self.routes),
            dns=self.dns.to_dns(),
        )


class _Half(_Part):
    """`ip4` or `ip6` of the old form."""

    ip: _Prefix
    gateway: _Gateway = None
    routes: list[_Route] = []


class _OldForm(_Part):
    """A result of 0.1.0 and 0.2.0."""

    ip4: _Half | None = None
    ip6: _Half | None = None
    dns: _Dns = _Dns()

    def to_result(self) -> Result:
        halves = [half for half in (self.ip4, self.ip6) if half is not None]
        return Result(
            ips=tuple(Address(half.ip, half.gateway) for half in halves),
            routes=tuple(one.to_route() for half in halves for one in half.routes),
            dns=self.dns.to_dns(),
        )
