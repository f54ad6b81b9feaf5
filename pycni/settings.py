# SPDX-License-Identifier: Apache-2.0
"""A node's settings: one TOML file, every key optional.

Only what the file says and its defaults: nothing here looks at links, routes or the store. An
unknown key is an error, because a misspelt one would silently be its default.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from pycni import bgp_settings
from pycni.bgp_settings import Bgp, BgpPeer
from pycni.cluster import (
    IPV4_MTU_MIN,
    VNI_MAX,
    Cluster,
    mtu_needed,
)
from pycni.directories import conflicts, refuse_unwritable
from pycni.errors import ClusterError, InvalidSettings
from pycni.files import (
    make_own_directory,
    make_private_directory,
    read_regular,
    refuse_own_directory,
)
from pycni.names import DEVICE, SETTINGS_PATH, is_host_ifname, is_node_name
from pycni.setting_types import AbsolutePath, Cidr, LinkLocal, OptionalPath, OwnAddress

DEFAULT_CLUSTER_CIDRS = (IPv4Network("10.244.0.0/16"), IPv6Network("fd00:10:244::/56"))
"""256 nodes in both families, with the default prefixes of NodePrefix."""

NODE_NAME = "PYCNI_NODE_NAME"
"""An environment variable: the name of a node whose settings name none. The nodes of a DaemonSet
share one settings file, and a host's name need not be that of its Node."""
STATE_MARKS = frozenset({"node.json", "nodes.jsonl", "cluster.db", "delegated"})
AGENT_SOCKET = "agent.sock"
BGP_STORE = "bgp"
"""The kind of store by which nodes find each other by BGP alone."""
RUN_MARKS = frozenset({"locks", AGENT_SOCKET, "event.sock"})
"""Files by which a directory is known to be pycni's, though it is open to others."""

KUBE_PROXY_MARKS = 0x4000 | 0x8000
"""Bits kube-proxy marks packets with: --iptables-masquerade-bit 14, and KUBE-MARK-DROP's 15."""

IFNAME_MAX = 15
"""Bytes; IFNAMSIZ of linux/if.h without the closing zero."""

SOCKET_PATH_MAX = 107
"""Bytes; sun_path of unix(7) without the closing zero."""

LINK_LOCAL_MAX = 4
"""Addresses; room in `struct config`, bpf/lib/types.h."""

PORT_MAX = 2**16 - 1
MTU_MAX = 2**16 - 1
"""Bytes; IPv4's total length has 16 bits (RFC 791, 3.1)."""

PROBE_MIN, PROBE_MAX = 5, 3600
"""Seconds between probes of a node."""

SIZE_MAX = 1 << 20
"""Bytes of a settings file."""

AT = re.compile(r"line (\d+): ")
TOML_TABLE = re.compile(r"\s*\[(\[?)\s*([\w\"'-]+(?: *\. *[\w\"'-]+)*)\s*\]")
"""One bracket more for a table of an array; the name."""
TOML_KEY = re.compile(r"\s*([\w\"'-]+(?: *\. *[\w\"'-]+)*)\s*=")


_NODE_NAME_RULE = "must be a DNS name: a-z, 0-9 and '-', in labels of 63 with dots between"


def _node_name(value: str) -> str:
    if not is_node_name(value):
        raise ValueError(_NODE_NAME_RULE)
    return value


def _ifname(value: str) -> str:
    if len(value.encode()) > IFNAME_MAX or value in (".", "..") or re.search(r"[/:%\s]", value):
        raise ValueError("must be the name of a network interface, or empty")
    if value == DEVICE:
        raise ValueError("is pycni's own device; name the interface towards the other nodes")
    if is_host_ifname(value):
        raise ValueError("is the name of a pod's link; name the interface towards the other nodes")
    return value


def _few(value: tuple[IPv4Address, ...]) -> tuple[IPv4Address, ...]:
    if len(value) > LINK_LOCAL_MAX:
        raise ValueError(f"must be {LINK_LOCAL_MAX} addresses or fewer")
    return value


def _mark(value: int) -> int:
    if value.bit_count() != 1 or value >= 2**32 or value < 0:
        raise ValueError("must have exactly one of 32 bits set, such as 0x20000000")
    if value & KUBE_PROXY_MARKS:
        raise ValueError("is a bit of kube-proxy's; choose another than 0x4000 and 0x8000")
    return value


def _vni(value: int) -> int:
    if not 1 <= value <= VNI_MAX:
        raise ValueError(f"must be from 1 to {VNI_MAX}")
    return value


def _port(value: int) -> int:
    if not 1 <= value <= PORT_MAX:
        raise ValueError(f"must be from 1 to {PORT_MAX}")
    return value


def _mtu(value: int) -> int:
    if value and not IPV4_MTU_MIN <= value <= MTU_MAX:
        raise ValueError(f"must be 0 (automatic) or from {IPV4_MTU_MIN} to {MTU_MAX}")
    return value


def _probe_interval(value: int) -> int:
    if value and not PROBE_MIN <= value <= PROBE_MAX:
        raise ValueError(f"must be 0 (no probes) or from {PROBE_MIN} to {PROBE_MAX} seconds")
    return value


WRONG_TYPE = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "string_type": "must be text in quotes",
    "tuple_type": "must be a list in brackets",
    "model_type": "must be a table such as { ipv4 = 24, ipv6 = 64 }",
}
"""What pydantic's error types mean to a writer of TOML."""


Encap = Literal["ebpf", "kernel", "auto", "direct", "auto-direct", "ipip"]
ENCAPS: tuple[str, ...] = get_args(Encap)
"""How packets travel between nodes."""


class NodePrefix(BaseModel):
    """Prefix lengths, in bits, of the pod CIDR that each node gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ipv4: StrictInt = 24
    ipv6: StrictInt = 64


class Settings(BaseModel):
    """What the administrator may choose. `load` reads it from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_name: Annotated[StrictStr, AfterValidator(_node_name)] = Field(
        default_factory=lambda: os.environ.get(NODE_NAME) or socket.gethostname().lower(),
        validate_default=True,
    )
    """Name in the cluster store; the node's name in Kubernetes. Without it that in the environment
    (NODE_NAME), and without that, but not with the store `kube:`, the host's."""
    uplink: Annotated[StrictStr, AfterValidator(_ifname)] = ""
    """Interface towards the other nodes; empty: the one with the VTEP, or that of the routes to the
    other nodes if that one leads nowhere (loopback)."""
    vtep: OwnAddress = None
    """Address other nodes send to; None (in the file: empty): the one that they know, or for a new
    node the best of the uplink."""
    state_dir: AbsolutePath = Path("/var/lib/pycni")
    run_dir: AbsolutePath = Path("/run/pycni")
    bpffs: AbsolutePath = Path("/sys/fs/bpf")
    cache_dir: AbsolutePath = Path("/var/cache/pycni")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of the agent. The command line's options and the environment go before."""
    log_format: Literal["logfmt", "json"] = "logfmt"
    """One line per event, either way."""
    store: StrictStr = ""
    """URL of the cluster store; empty: the embedded one. Read `store_url` instead."""
    cluster_cidrs: tuple[Cidr, ...] = DEFAULT_CLUSTER_CIDRS
    node_prefix: NodePrefix = NodePrefix()
    vni: Annotated[StrictInt, AfterValidator(_vni)] = 7
    port: Annotated[StrictInt, AfterValidator(_port)] = 4789
    """UDP port of the overlay (RFC 7348)."""
    mtu: Annotated[StrictInt, AfterValidator(_mtu)] = 0
    """Bytes of a pod's IP packet; 0: that of the narrowest interface to other nodes, less what
    encapsulation takes."""
    encap: Encap = "auto"
    """Who makes VXLAN: our programs, the kernel's device, or ours where the kernel lets them. With
    "direct" and "auto-direct", nodes on one link send to each other without VXLAN, and with "ipip"
    all in IPIP; the others as with "auto"."""
    routers_know_pods: StrictBool = False
    """Whether the routers between nodes have routes to the pods behind each node. With "direct" and
    "auto-direct", nodes behind them get packets without VXLAN, too."""
    probe_interval: Annotated[StrictInt, AfterValidator(_probe_interval)] = 20
    """Seconds between two probes of another node, through the overlay and beside it; 0: none."""
    masquerade_mark: Annotated[StrictInt, AfterValidator(_mark)] = 0x20000000
    """The bit of skb->mark that asks for masquerading."""
    vxlan_by_kernel_only: StrictBool = True
    """Whether processes of this node, root's too, are kept from sending UDP to `port`."""
    answer_unreachable: StrictBool = True
    """Whether pods get an ICMP error for packets to cluster addresses that nobody has."""
    services: Literal["off", "pods", "pods+host"] = "off"
    """Whether pycni forwards what pods send to the ClusterIPs of Services, and also what processes
    of the node send. kube-proxy may be there as well: it forwards the rest."""
    services_file: OptionalPath = None
    """Services and EndpointSlices, as YAML or JSON, where there is no Kubernetes to list them; None
    (in the file: empty): those of the store `kube:`."""
    link_local_services: Annotated[tuple[LinkLocal, ...], AfterValidator(_few)] = ()
    """IPv4 link-local addresses of services that pods may reach, such as the cloud's metadata."""
    bgp: Bgp | None = None
    """Sessions with routers and other nodes; None: none."""

    @property
    def store_url(self) -> str:
        if self.store == f"{BGP_STORE}:":
            return f"{BGP_STORE}:{self.state_dir}/bgp.db"
        return self.store or f"sqlite:{self.state_dir}/cluster.db"

    @property
    def store_file(self) -> Path | None:
        """The file of an embedded store, or of a node's own place where BGP is the store."""
        kind, _, rest = self.store_url.partition(":")
        file = Path(rest.removeprefix("//"))
        return file if kind in ("sqlite", BGP_STORE) and file.is_absolute() else None

    @property
    def learns_pods(self) -> bool:
        """Whether BGP is the store."""
        return self.store.partition(":")[0] == BGP_STORE

    @property
    def has_bgp_resources(self) -> bool:
        """Whether BGPPeer resources say with whom nodes speak, too."""
        return self.bgp is not None and self.store.startswith("kube:")

    @property
    def announces_services(self) -> bool:
        """Whether addresses of Services are told by BGP."""
        return self.bgp is not None and bool(self.bgp.of_services)

    @property
    def given_pod_cidrs(self) -> tuple[Cidr, ...]:
        """The node's pod CIDRs, where no store gives it any."""
        return self.bgp.pod_cidrs if self.bgp is not None else ()

    @property
    def has_services(self) -> bool:
        """Whether there is a place where Services are listed."""
        return self.services_file is not None or self.store.startswith("kube:")

    @property
    def socket_path(self) -> Path:
        """Where the agent listens."""
        return self.run_dir / AGENT_SOCKET

    @property
    def event_socket_path(self) -> Path:
        """Where the agent serves the events of the programs to followers."""
        return self.run_dir / "event.sock"

    @property
    def pin_root(self) -> Path:
        """The directory below which programs and maps are pinned."""
        return self.bpffs / "pycni"

    @property
    def directories(self) -> dict[str, Path]:
        """By their keys."""
        keys = ("state_dir", "run_dir", "bpffs", "cache_dir")
        return {key: getattr(self, key) for key in keys}

    @property
    def cluster(self) -> Cluster:
        return Cluster(
            cidrs=self.cluster_cidrs,
            node_prefix4=self.node_prefix.ipv4,
            node_prefix6=self.node_prefix.ipv6,
            vni=self.vni,
            port=self.port,
        )


def load(path: Path | None = None) -> Settings:
    """The settings in `path`; without one, those in SETTINGS_PATH, all defaults if it is absent.

    Raises InvalidSettings: which key has what value in which file, and what it may be.
    """
    file = path or SETTINGS_PATH
    return parse(_read(file, must_exist=path is not None), file)


def parse(text: str, file: Path) -> Settings:
    """The settings in a TOML text; `file` is where it came from, for the errors.

    Raises InvalidSettings.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = "at end of document"
        problem = str(error).replace(end, f"{end}, line {len(text.splitlines())}")
        raise InvalidSettings(
            f"{file} is not TOML: {problem}", hint="correct that line; see https://toml.io"
        ) from error
    if str(values.get("store", "")).startswith("kube:") and "node_name" not in values:
        values["node_name"] = _name_of_node(file)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        lines = _lines(text)
        problems = [_describe(problem, values, lines) for problem in error.errors()]
        raise _wrong(file, problems) from error
    _check_together(settings, file, _lines(text))
    return settings


def lines(path: Path | None = None) -> dict[str, int]:
    """The line of each key that a settings file has; empty without a file. Raises InvalidSettings
    if it cannot be read."""
    return _lines(_read(path or SETTINGS_PATH, must_exist=path is not None))


def make_directories(settings: Settings) -> None:
    """Makes the state, run and cache directories, mode 0700. Closes a state or run directory that
    is open to others. Raises FileError."""
    make_own_directory(settings.state_dir, marks=STATE_MARKS)
    make_own_directory(settings.run_dir, marks=RUN_MARKS)
    make_private_directory(settings.cache_dir)


def refuse_directories(settings: Settings) -> None:
    """Raise FileError if `make_directories` would, or if the embedded store could not be written to
    where it is; changes nothing. Whether there is room is not asked."""
    refuse_own_directory(settings.state_dir, marks=STATE_MARKS)
    refuse_own_directory(settings.run_dir, marks=RUN_MARKS)
    refuse_unwritable(settings.cache_dir)
    refuse_store(settings)


def refuse_store(settings: Settings) -> None:
    """Raise FileError if an embedded store could not be written to, or made."""
    if (file := settings.store_file) is not None:
        refuse_unwritable(file.parent)


def _read(file: Path, *, must_exist: bool) -> str:
    try:
        return read_regular(file, at_most=SIZE_MAX).decode()
    except FileNotFoundError as error:
        if not must_exist:
            return ""
        raise InvalidSettings(
            f"there is no settings file {file}", hint="name an existing file, or none for defaults"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{file} is not UTF-8", hint="save it as UTF-8 text") from error
    except OSError as error:
        is_for_root = isinstance(error, PermissionError) and os.geteuid() != 0
        raise InvalidSettings(
            f"{file} cannot be read: {error.strerror}",
            hint="run it as root"
            if is_for_root
            else "it must be a regular file that root can read",
        ) from error


def _name_of_node(file: Path) -> str:
    """The name of the Node that this process is on, as its pod is told. Raises InvalidSettings."""
    if name := os.environ.get(NODE_NAME):
        if not is_node_name(name):
            raise InvalidSettings(
                f"{NODE_NAME} = {name!r} in the environment: {_NODE_NAME_RULE}",
                hint="give the Node another name (kubelet --hostname-override), for a name in DNS "
                "has no longer labels",
            )
        return name
    raise InvalidSettings(
        f"{file}: node_name is not set, and neither is {NODE_NAME} in the environment: with the "
        "store kube: it is the name of the Node, which may be another than the host's",
        hint=f"in a pod, set {NODE_NAME} from the field spec.nodeName; elsewhere write "
        "node_name = '...', as in: kubectl get nodes",
    )


def _check_together(settings: Settings, file: Path, lines: Mapping[str, int]) -> None:
    """What only several keys together can violate."""
    try:
        cluster = settings.cluster
    except ClusterError as error:
        where = _at(lines, "cluster_cidrs") or _at(lines, "node_prefix")
        raise InvalidSettings(
            f"{file}: {where}cluster_cidrs and node_prefix: {error.message}", hint=error.hint
        ) from error
    if settings.mtu and settings.mtu < mtu_needed(cluster):
        problem = f"mtu = {settings.mtu}: must be {mtu_needed(cluster)} or more with IPv6 pods"
        raise _wrong(file, [_at(lines, "mtu") + problem])
    if settings.vtep and any(settings.vtep in cidr for cidr in cluster.cidrs):
        problem = f"vtep = '{settings.vtep}': must not be in one of cluster_cidrs"
        raise _wrong(file, [_at(lines, "vtep") + problem])
    key, why = bgp_settings.problem(
        settings.bgp,
        cluster,
        is_store=settings.learns_pods,
        encap=settings.encap,
        has_resources=settings.has_bgp_resources,
        has_services=settings.has_services,
    )
    if key:
        raise _wrong(file, [f"{_at(lines, *key.split('.'))}{key}: {why}"])
    if settings.services != "off" and not settings.has_services:
        problem = f"services = '{settings.services}': there are none in store = '{settings.store}'"
        raise _wrong(file, [_at(lines, "services") + f"{problem}; set services_file"])
    if len(bytes(settings.socket_path)) > SOCKET_PATH_MAX:
        limit = SOCKET_PATH_MAX - len("/") - len(settings.socket_path.name)
        problem = f"run_dir = '{settings.run_dir}': must be {limit} bytes or less, for a socket"
        raise _wrong(file, [_at(lines, "run_dir") + problem])
    if wrong := dict(conflicts(_paths(settings))):
        raise _wrong(file, [about(settings, key, why, lines) for key, why in wrong.items()])


def about(settings: Settings, key: str, problem: str, lines: Mapping[str, int]) -> str:
    """A problem of one of `directories` or of the store, as the others are told. `lines` are those
    of the file's keys."""
    return f"{_at(lines, key)}{key} = '{getattr(settings, key)}': {problem}"


def _paths(settings: Settings) -> dict[str, Path]:
    """`directories`, and that of the embedded store."""
    file = settings.store_file if settings.store else None
    return settings.directories | ({"store": file.parent} if file else {})


def _lines(text: str) -> dict[str, int]:
    """The line of each key, by its dotted name, as far as lines tell: for messages only."""
    table, found, tables = "", dict[str, int](), Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := TOML_TABLE.match(line):
            name = re.sub(r"[ \"']", "", header[2])
            found.setdefault(name, number)
            if header[1]:
                tables[name] += 1
                name = f"{name}.{tables[name] - 1}"
                found[name] = number
            table = f"{name}."
        elif key := TOML_KEY.match(line):
            found.setdefault(table + re.sub(r"[ \"']", "", key[1]), number)
    return found


def _at(lines: Mapping[str, int], *path: str) -> str:
    """Where a key is, or else the table that it is in; empty if that is not known."""
    for end in range(len(path), 0, -1):
        if number := lines.get(".".join(path[:end])):
            return f"line {number}: "
    return ""


def _wrong(file: Path, problems: list[str]) -> InvalidSettings:
    """The error about problems, those of the file's first lines first."""
    problems = sorted(problems, key=lambda one: int(found[1]) if (found := AT.match(one)) else 0)
    error = InvalidSettings(f"{file}: {'; '.join(problems)}", hint=f"correct it in {file}")
    error.problems = tuple(problems)
    return error


def _describe(problem: Any, values: Mapping[str, object], lines: Mapping[str, int]) -> str:
    location: tuple[str | int, ...] = problem["loc"]
    where = _at(lines, *map(str, location))
    key = location[0] if isinstance(location[0], str) else ""
    dotted = ".".join(str(part) for part in location if part in _KEYS or key == "bgp")
    if problem["type"] == "extra_forbidden":
        return where + _describe_unknown([str(part) for part in location])
    if problem["type"] == "missing":
        return f"{where}{dotted} is missing"
    text: str = WRONG_TYPE.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "literal_error":
        text = f"must be {problem['ctx']['expected']}".replace("'", '"')
    origin = "" if key in values else " (not set in the file; this is the default)"
    return f"{where}{dotted} = {problem['input']!r}{origin}: {text}"


def _describe_unknown(location: list[str]) -> str:
    table: type[BaseModel] = Settings
    for part in location[:-1]:
        table = TABLES.get(part, table)
    known = table.model_fields
    import difflib  # 0.2 MB, which settings without mistakes do not need

    close = difflib.get_close_matches(location[-1], known, n=1)
    guess = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"unknown key {'.'.join(location)}: {guess}"


TABLES: Mapping[str, type[BaseModel]] = {"node_prefix": NodePrefix, "bgp": Bgp, "peers": BgpPeer}
"""By their names in the file."""
_KEYS = {*Settings.model_fields, *NodePrefix.model_fields}
