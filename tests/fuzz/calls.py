# SPDX-License-Identifier: Apache-2.0
"""What a broken or hostile runtime may hand to the plugin: environments and bytes of stdin.

Most of it is nearly right, because what is all wrong is refused at the first check.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from hypothesis import strategies as st

from pycni.cni.plugin import VERSIONS
from pycni.cni.protocol import COMMANDS

OWN_KEYS = ("ipMasq", "mtu", "dns", "ipam", "prevResult", "runtimeConfig", "args")
GC_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")
HEAD_KEYS = ("cniVersion", "name", "type")

INNER_KEYS = (
    *("type", "ranges", "exclude", "subnet", "rangeStart", "rangeEnd", "gateway"),
    *("nameservers", "domain", "search", "options", "servers", "searches"),
    *("portMappings", "HostPort", "ContainerPort", "Protocol", "HostIP", "hostPort"),
    *("bandwidth", "IngressRate", "IngressBurst", "egressRate", "egressBurst"),
    *("ips", "mac", "ipRanges", "cni", "aliases", "containerID", "ifname"),
    *("interfaces", "routes", "address", "interface", "version", "dst", "gw", "ip4", "ip6", "ip"),
    *("cniVersion", "CNIVersion", "name", "sandbox", "mtu", "priority", "table", "scope"),
)

TELLING = (
    *("10.244.1.7", "10.244.1.7/24", "10.244.1.0/24", "fd00::7", "fd00::/64", "::/0", "0.0.0.0/0"),
    *("10.244.1.300", "10.244.1.7/33", "1.2.3.4/255.0.0.0", "fe80::1%eth0", "::ffff:10.0.0.1"),
    *("02:00:00:00:00:07", "02-00-00-00-00-07", "ff:ff:ff:ff:ff:ff", "tcp", "UDP", "sctp"),
    *("eth0", "eth%d", "lo", "../../etc", "a/b", "not found", "No such file or directory"),
    *("host-local", "pycni", "x" * 300, "\x00", "\ud800", "é", "\u0661", "\n", "", *VERSIONS),
)
NUMBERS = (0, 1, -1, 68, 1280, 1450, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**40)

SHALLOW = st.integers(1, 400)
DEPTHS = SHALLOW | st.integers(450, 5000)
"""Of lists in lists: what can be decoded everywhere, and as deep as any interpreter goes."""
DEEP = re.compile(rb'"lists in lists: (\d+)"')


scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(TELLING)
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(INNER_KEYS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=20,
)
own_values = values | DEPTHS.map(lambda depth: f"lists in lists: {depth}")
"""Of a key that pycni reads; `encoded` makes what the text says, which is too deep for Python."""

heads = st.fixed_dictionaries(
    {
        "cniVersion": st.sampled_from((*VERSIONS, *VERSIONS[-1:] * 3)),
        "name": st.sampled_from(("podnet", "a", "n" * 300)),
    }
)
"""What makes a document a configuration at all; GC and STATUS need the newest version."""

own_parts = st.dictionaries(
    st.sampled_from(OWN_KEYS), values | SHALLOW.map(lambda depth: f"lists in lists: {depth}")
)
"""Of a document that can be decoded."""

attachments = st.fixed_dictionaries(
    {
        "containerID": st.sampled_from(("c0ffee", *TELLING)) | values,
        "ifname": st.sampled_from(("eth0", *TELLING)) | values,
    }
)
kept = st.lists(attachments, max_size=4) | own_values
"""What GC is told to keep."""

odd_heads = st.dictionaries(st.sampled_from(HEAD_KEYS), values, max_size=2)
keys = (*OWN_KEYS, "CNIVERSION", "IPAM", "unknown")

configurations = st.builds(
    lambda head, body, kept, odd: head | body | kept | odd,
    heads,
    st.dictionaries(st.sampled_from(keys), own_values, max_size=4),
    st.dictionaries(st.sampled_from(GC_KEYS), kept, max_size=2),
    st.just({}) | odd_heads,
)
"""Documents that pass the first checks more often than not."""


def encoded(document: Any) -> bytes:
    """JSON."""
    return DEEP.sub(_lists, json.dumps(document).encode())


def _lists(found: re.Match[bytes]) -> bytes:
    return b"[" * int(found[1]) + b"]" * int(found[1])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A configuration with a part of its bytes replaced."""
    whole = encoded(draw(configurations))
    begin = draw(st.integers(0, len(whole)))
    end = draw(st.integers(begin, min(len(whole), begin + 8)))
    return whole[:begin] + draw(st.binary(max_size=8)) + whole[end:]


stdins = (
    st.binary(max_size=200)
    | values.map(encoded)
    | configurations.map(encoded)
    | configurations.map(encoded)
    | damaged()
    | DEPTHS.map(lambda depth: b'{"name":"a","args":' + b"[" * depth + b"]" * depth + b"}")
)

words = st.binary(max_size=24).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
"""What a variable can be: any bytes but NUL, as Python gives them."""

container_ids = st.sampled_from(("c0ffee", "c" * 300, "../x", "a b", "abc\n", "")) | words
ifnames = st.sampled_from(("eth0", "net1", "eth%d", "lo", "é" * 8, "e" * 16, ".", "")) | words
cni_args = st.sampled_from(
    ("IgnoreUnknown=1;K8S_POD_NAME=a", "IP=10.244.1.9", "IP=x", "MAC=y", "IP", "=;=", ";")
)

environments = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from(COMMANDS) | words},
    optional={
        "CNI_CONTAINERID": container_ids,
        "CNI_IFNAME": ifnames,
        "CNI_NETNS": st.sampled_from(("/run/netns/a", "", "/")) | words,
        "CNI_ARGS": cni_args | words,
        "CNI_PATH": st.sampled_from(("/nonexistent", ":", "/nonexistent:/")) | words,
        "CNI_NETNS_OVERRIDE": st.sampled_from(("1", "true", "")) | words,
    },
)


def usual(command: str) -> dict[str, str]:
    """An environment in which nothing is wrong."""
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c0ffee",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/a",
        "CNI_PATH": "/",
    }


def complete(command: str) -> st.SearchStrategy[dict[str, str]]:
    """Environments in which nothing that `command` needs is wrong."""
    some = st.fixed_dictionaries(
        {}, optional={"CNI_CONTAINERID": st.just("c" * 300), "CNI_ARGS": cni_args}
    )
    return some.map(lambda one: usual(command) | one)
