"""The network configuration a runtime gives on stdin, decoded and checked.

Decides error codes 6 (cannot be decoded), 7 (a value is wrong) and, with protocol.py, 1 (version).
Unknown keys are ignored everywhere. Source: CNI spec 1.1.0, section 1 "Network configuration
format"; for `dns`, section 5 "Result types"; for what GC keeps, section 2 "GC".
"""

from __future__ import annotations

from ipaddress import ip_address
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pycni.cni import document
from pycni.cni.protocol import IDENTIFIER, OLDEST, check_version
from pycni.cni.result import Dns, Result
from pycni.errors import DecodingError, InvalidConfig

MTU_MIN = 68
"""RFC 791, section 3.2; IPv6 needs more, which is checked where the families are known."""
MTU_MAX = 65535

HEAD = ("cniVersion", "name")
DNS_KEYS = ("nameservers", "domain", "search", "options")
IPAM_KEYS = ("type", "ranges", "exclude")

OWN_IPAM = ("", "pycni")
"""Values of `ipam.type` that mean our own; any other names a plugin."""

DHCP = "dhcp"
"""The value of `ipam.type` whose plugin talks over the pod's link, from before it has an address
until its DEL."""

KEPT_BY_GC = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""What GC is told to keep; the second is an older spelling, set by libcni beside the first."""


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
    """The `dns` object of a configuration; podman cannot use a nameserver that is a name."""

    nameservers: list[Annotated[str, AfterValidator(_is_address)]] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []


class IpamConf(_Strict):
    """The `ipam` object; the keys of a plugin that we delegate to are that plugin's."""

    type: str = ""
    ranges: Any = None
    """Read by ipam/ranges.py, if the addresses are our own."""
    exclude: Any = None


class NetConf(_Strict):
    """A configuration, as far as pycni knows its keys."""

    cni_version: str = Field(alias="cniVersion")
    """One of ours; a configuration without one is in the oldest."""
    name: str
    """Of the network."""
    ip_masq: bool = Field(default=False, alias="ipMasq")
    forwards: bool = False
    """Whether pods of this network pass packets of others on: routers, VMs behind a bridge."""
    tcx: bool = False
    """Whether programs are attached to its pods by tcx: a `bandwidth` plugin may come after."""
    device: Literal["veth", "netkit", "auto"] = "veth"
    """What connects its pods; "auto": netkit where the kernel has it."""
    mtu: int | None = Field(default=None, ge=MTU_MIN, le=MTU_MAX)
    """Bytes of an IP packet; None leaves the choice to the node."""
    dns: Annotated[DnsConf, _fold(DNS_KEYS)] = DnsConf()
    ipam: Annotated[IpamConf, _fold(IPAM_KEYS)] = IpamConf()
    prev_result: Any = Field(default=None, alias="prevResult")
    """As decoded; `previous_result` reads it."""
    runtime_config: dict[str, Any] = Field(default={}, alias="runtimeConfig")
    """Capability payloads, with the spelling of the keys as the runtime has it."""
    args: Any = None
    kept_by_gc: dict[str, Any] = {}
    """Those of KEPT_BY_GC that are there; `valid_attachments` reads them."""

    @property
    def delegate(self) -> str:
        """The IPAM plugin that gives the addresses; empty if they are our own."""
        return "" if self.ipam.type in OWN_IPAM else self.ipam.type

    def dns_result(self) -> Dns:
        """The configured DNS parameters, as a result has them."""
        return Dns(
            nameservers=tuple(self.dns.nameservers),
            domain=self.dns.domain,
            search=tuple(self.dns.search),
            options=tuple(self.dns.options),
        )

    def previous_result(self) -> Result:
        """`prevResult`; raises InvalidConfig without one, DecodingError if it is no result."""
        if self.prev_result is None:
            raise InvalidConfig(
                "the network configuration has no prevResult",
                hint="the container runtime must give the result of ADD to CHECK",
            )
        from pycni.cni import result_reader

        return result_reader.from_json(self.prev_result, self.cni_version)

    def valid_attachments(self) -> set[tuple[str, str]] | None:
        """Container ID and interface name of all that GC is to keep; None if it was not told.

        Raises InvalidConfig. null is an empty list: Go writes so.
        """
        listed = next((self.kept_by_gc[k] for k in KEPT_BY_GC if k in self.kept_by_gc), ())
        if listed == ():
            return None
        try:
            if not isinstance(listed, list | None):
                raise TypeError("no list")
            found = [document.pick(one, ("containerID", "ifname")) for one in listed or []]
            pairs = {(str(one["containerID"]), str(one["ifname"])) for one in found}
            for word in chain.from_iterable(pairs):
                word.encode()  # UnicodeEncodeError: half a surrogate pair
            return pairs
        except (AttributeError, KeyError, TypeError, UnicodeError) as error:
            raise InvalidConfig(
                f"{KEPT_BY_GC[0]} in the network configuration is wrong",
                details=f"found {listed!r}",
                hint="it must be a list of objects with containerID and ifname",
            ) from error


KEYS = tuple(field.alias or name for name, field in NetConf.model_fields.items())


def parse_netconf(stdin: bytes, *, lenient: bool = False) -> NetConf:
    """The configuration in `stdin`.

    Raises DecodingError, InvalidConfig or IncompatibleVersion, in this order. `lenient` is for DEL,
    which must work after the configuration was broken: of our own keys, wrong ones are left out.
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
    """Our keys, with `name` and `cniVersion` strings, the latter not empty."""
    value = document.decode(stdin, what="the network configuration on stdin")
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise DecodingError(
            "the network configuration on stdin is no JSON object",
            details=f"found a {type(value).__name__}",
        )
    found = document.pick(value, KEYS)
    for key in HEAD:
        if not isinstance(found.setdefault(key, ""), str):
            raise DecodingError(
                f"{key} in the network configuration is not a string",
                details=f"found {found[key]!r}",
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
    """The first wrong value, by the path of its key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return InvalidConfig(
        f"{key} in the network configuration is wrong: {first['msg']}",
        details=f"found {first['input']!r}",
        hint=f"correct {key} in the network configuration list",
    )
