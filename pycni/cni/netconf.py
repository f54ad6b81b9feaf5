# SPDX-License-Identifier: Apache-2.0
"""The network configuration that a runtime writes to stdin, decoded and checked.

Errors have code 6 (cannot be decoded), 7 (a value is wrong) or 1 (version, with protocol.py).
Unknown keys are ignored everywhere. Source: CNI spec 1.1.0, section 1 "Network configuration
format"; for `dns`, section 5 "Result types"; for what GC keeps, section 2 "GC".
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pycni.cni import document
from pycni.cni.protocol import (
    IDENTIFIER,
    OLDEST,
    check_container_id,
    check_ifname,
    check_version,
)
from pycni.cni.result import Dns, Result
from pycni.errors import DecodingError, InvalidConfig, InvalidParameter
from pycni.names import IPVLAN, MACVLAN

MTU_MIN = 68
"""RFC 791, section 3.2. IPv6 needs more; Node.pod_mtu checks that."""
MTU_MAX = 65535

HEAD = ("cniVersion", "name")
DNS_KEYS = ("nameservers", "domain", "search", "options")
IPAM_KEYS = ("type", "ranges", "exclude", "perNode")

OWN_IPAM = ("", "pycni")
"""Values of `ipam.type` that mean pycni's own IPAM; any other names a plugin."""

DHCP = "dhcp"
"""The value of `ipam.type` whose plugin uses the pod's link, from before the pod has an address
until the plugin's DEL."""

KEPT_BY_GC = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""Keys that list what GC shall keep; libcni sets both, the second is the older spelling."""


def _is_address(text: str) -> str:
    ip_address(text)
    return text


def _fold(keys: tuple[str, ...]) -> BeforeValidator:
    return BeforeValidator(
        lambda value: document.pick(value, keys) if isinstance(value, dict) else value
    )


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class DnsConf(_Strict):
    """The `dns` object of a configuration. podman cannot use a nameserver that is a name."""

    nameservers: list[Annotated[str, AfterValidator(_is_address)]] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []


class IpamConf(_Strict):
    """The `ipam` object; another plugin has keys of its own, which it reads itself."""

    type: str = ""
    ranges: Any = None
    """Read by ipam/ranges.py, if the addresses are our own."""
    exclude: Any = None
    per_node: int | None = Field(default=None, alias="perNode", ge=1)
    """With macvlan and ipvlan: how many addresses of each range a node has (on_lan/parts.py)."""


class NetConf(_Strict):
    """The keys of a configuration that pycni knows."""

    cni_version: str = Field(alias="cniVersion")
    """One that pycni speaks; without the key, the oldest."""
    name: str
    """Of the network."""
    ip_masq: bool = Field(default=False, alias="ipMasq")
    forwards: bool = False
    """Whether pods of this network forward packets of others: routers, VMs behind a bridge."""
    tcx: bool = False
    """Whether programs are attached with tcx, which leaves room for a later `bandwidth` plugin."""
    device: Literal["veth", "netkit", "auto", "macvlan", "ipvlan"] = "veth"
    """The kind of its pods' links; "auto": netkit where the kernel has it, else veth."""
    master: str = ""
    """With macvlan and ipvlan: the interface whose network the pods are on; "": the uplink."""
    mode: str = ""
    """With macvlan and ipvlan: see lan/devices.py."""
    mtu: int | None = Field(default=None, ge=MTU_MIN, le=MTU_MAX)
    """Bytes of an IP packet; None leaves the choice to the node."""
    dns: Annotated[DnsConf, _fold(DNS_KEYS)] = DnsConf()
    ipam: Annotated[IpamConf, _fold(IPAM_KEYS)] = IpamConf()
    prev_result: Any = Field(default=None, alias="prevResult")
    """As decoded; see `previous_result`."""
    runtime_config: dict[str, Any] = Field(default={}, alias="runtimeConfig")
    """Values of the capabilities, under the runtime's spelling of the keys."""
    args: Any = None
    kept_by_gc: dict[str, Any] = {}
    """Those of KEPT_BY_GC that are present; see `valid_attachments`."""

    @property
    def on_lan(self) -> bool:
        """Whether its pods are on the network of one of the node's interfaces."""
        return self.device in (MACVLAN, IPVLAN)

    @property
    def delegate(self) -> str:
        """The IPAM plugin that gives the addresses; empty for pycni's own IPAM."""
        return "" if self.ipam.type in OWN_IPAM else self.ipam.type

    def dns_result(self) -> Dns:
        """The configured DNS parameters, for a result."""
        return Dns(
            nameservers=tuple(self.dns.nameservers),
            domain=self.dns.domain,
            search=tuple(self.dns.search),
            options=tuple(self.dns.options),
        )

    def previous_result(self) -> Result:
        """`prevResult`. Raises InvalidConfig if it is absent, DecodingError if it is no result."""
        if self.prev_result is None:
            raise InvalidConfig(
                "the network configuration has no prevResult",
                hint="the container runtime must give the result of ADD to CHECK",
            )
        from pycni.cni import result_reader

        return result_reader.from_json(self.prev_result, self.cni_version)

    def valid_attachments(self) -> set[tuple[str, str]] | None:
        """Container ID and interface name of every attachment that GC shall keep; None if there is
        no list. null is an empty list, as Go writes it. Raises InvalidConfig."""
        listed = next((self.kept_by_gc[k] for k in KEPT_BY_GC if k in self.kept_by_gc), ())
        if listed == ():
            return None
        try:
            if not isinstance(listed, list | None):
                raise TypeError("no list")
            found = [document.pick(one, ("containerID", "ifname")) for one in listed or []]
            pairs = {(one["containerID"], one["ifname"]) for one in found}
            for container_id, ifname in pairs:  # GC would remove what a wrong one stands for
                check_container_id(container_id)
                check_ifname(ifname)
            return pairs
        except (AttributeError, InvalidParameter, KeyError, TypeError, UnicodeError) as error:
            raise InvalidConfig(
                f"{KEPT_BY_GC[0]} in the network configuration is wrong",
                details=f"found {listed!r}",
                hint="it must be a list of objects with containerID and ifname, as they were given "
                "to ADD",
            ) from error


KEYS = tuple(field.alias or name for name, field in NetConf.model_fields.items())


def parse_netconf(stdin: bytes, *, lenient: bool = False) -> NetConf:
    """The configuration in `stdin`.

    Raises DecodingError, InvalidConfig or IncompatibleVersion, in this order. `lenient` is for DEL,
    which must work even if somebody has broken the configuration: wrong values are left out.
    """
    found = _decode(stdin)
    _check_name(found["name"])
    check_version(found["cniVersion"])
    try:
        return NetConf.model_validate(found)
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors()}
        if lenient:
            return NetConf.model_validate({k: v for k, v in found.items() if k not in wrong})
        raise _as_invalid_config(error) from error


def _decode(stdin: bytes) -> dict[str, Any]:
    """The known keys; `name` and `cniVersion` are strings, `cniVersion` is not empty."""
    value = document.decode(stdin, what="the network configuration on stdin")
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise DecodingError(
            "the network configuration on stdin is no JSON object",
            details=f"found a {type(value).__name__}",
            hint="the container runtime must write one network configuration to it",
        )
    found = document.pick(value, KEYS)
    for key in HEAD:
        if not isinstance(found.setdefault(key, ""), str):
            raise DecodingError(
                f"{key} in the network configuration is not a string",
                details=f"found {found[key]!r}",
                hint=f"write it in quotes: {key} in the network list",
            )
    found["cniVersion"] = found["cniVersion"] or OLDEST
    found["kept_by_gc"] = {key: value[key] for key in KEPT_BY_GC if key in value}
    return found


def _check_name(name: str) -> None:
    if not name:
        raise InvalidConfig("the network configuration has no name", hint="set its key `name`")
    if not IDENTIFIER.fullmatch(name):
        raise InvalidConfig(
            "name in the network configuration has characters that are not allowed",
            details=f"found {name!r}",
            hint="it must begin with a letter or digit, then letters, digits, '_', '.' and '-'",
        )


def _as_invalid_config(error: ValidationError) -> InvalidConfig:
    """The error for the first wrong value, with the path of its key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return InvalidConfig(
        f"{key} in the network configuration is wrong: {first['msg']}",
        details=f"found {first['input']!r}",
        hint=f"correct {key} in the network configuration list",
    )
