# SPDX-License-Identifier: Apache-2.0
"""What the node is at one moment, as lines of text in sections, to compare before with after.

Left out is what the kernel changes by itself: learnt neighbours, link-local addresses and routes,
the local routing table, counters, handles. A bridge's own MAC is that of a port.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from conformance.namespaces import Netns
from conformance.netlink import Rtnl
from conformance.sandbox import SUITE
from conformance.subject import SANDBOX

Snapshot = dict[str, frozenset[str]]

ROOTS = ("/run", "/var/lib")
VOLATILE = (
    "*/last_reserved_ip.*",
    "/run/xtables.lock",
    "*/networks/*/lock",
    str(SANDBOX / "*.log"),
)
"""Files of host-local, iptables and the suite that outlive an attachment on purpose."""

RT_TABLE_LOCAL = 255
INGRESS_PARENTS = (0xFFFFFFF1, 0xFFFFFFF2, 0xFFFFFFF3)
"""Of ingress, clsact's ingress and clsact's egress filters: linux/pkt_sched.h."""
NFT_CTX_OUTPUT_JSON = 1 << 4
LARGE = 1 << 20
SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


class Oracle:
    """Takes snapshots of the namespace it was made in; `state` is a subject's own command."""

    def __init__(self, *, volatile: Sequence[str], state: Sequence[str]) -> None:
        self._volatile = (*VOLATILE, *volatile)
        self._rtnl = Rtnl()
        self._inherited = {number for number, _ in _mounts()}
        self._state = (
            subprocess.Popen(state, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if state
            else None
        )

    def snapshot(self) -> Snapshot:
        """The host; what is inside pods is `network` of their namespaces."""
        sections: dict[str, Iterator[str]] = {
            **_network(self._rtnl),
            "nftables": _nftables(),
            "files": self._files(),
            "processes": _processes(),
            "mounts": (line for number, line in _mounts() if number not in self._inherited),
            "sysctls": _sysctls(),
            "state": self._own_state(),
        }  # fmt: skip
        return {name: frozenset(lines) for name, lines in sections.items()}

    def _files(self) -> Iterator[str]:
        for root in ROOTS:
            for directory, names, files in os.walk(root):
                if directory == str(SUITE.parent):
                    names.remove(SUITE.name)
                for name in (*names, *files):
                    path = f"{directory}/{name}"
                    if not any(fnmatch(path, pattern) for pattern in self._volatile):
                        with suppress(FileNotFoundError):
                            yield f"{path} {_content(path)}"

    def _own_state(self) -> Iterator[str]:
        if self._state is None:
            return
        assert self._state.stdin is not None
        assert self._state.stdout is not None
        self._state.stdin.write(b"\n")
        self._state.stdin.flush()
        for row in json.loads(self._state.stdout.readline()):
            yield json.dumps(row, sort_keys=True)


def network(netns: Netns) -> Snapshot:
    """The network of one namespace."""
    with Rtnl(netns) as rtnl:
        return {name: frozenset(lines) for name, lines in _network(rtnl).items()}


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What went (-) and what came (+), a line each; empty if nothing did."""
    return [
        f"{sign} {section}: {line}"
        for section in before
        for sign, lines in (
            ("-", before[section] - after[section]),
            ("+", after[section] - before[section]),
        )
        for line in sorted(lines)
    ]


def _network(rtnl: Rtnl) -> dict[str, Iterator[str]]:
    links = rtnl.links()
    names = {link.index: link.name for link in links}
    return {
        "links": (
            f"{link.index} {link.name} {link.kind} up={link.up} mtu={link.mtu} "
            f"{'' if link.kind == 'bridge' else link.mac} master={names.get(link.master, '')}"
            for link in links
        ),
        "addresses": (
            f"{names.get(one.index)} {one.address}"
            for one in rtnl.addresses()
            if not one.link_local
        ),
        "routes": (
            f"{route.dst} via {route.gateway} dev {names.get(route.index)} src {route.source} "
            f"table {route.table} type {route.kind} metric {route.metric}"
            for route in rtnl.routes()
            if route.table != RT_TABLE_LOCAL and not route.dst.startswith(("fe80:", "ff00:"))
        ),
        "rules": (rule.hex() for rule in rtnl.rules()),
        "neighbours": (
            f"{names.get(index)} {address} {mac}"
            for index, address, mac in rtnl.made_neighbours()
            if names.get(index) != "lo"
        ),
        "qdiscs": (
            f"{names.get(index)} {kind} {parent:x}" for index, kind, _, parent in rtnl.qdiscs()
        ),
        "filters": _filters(rtnl, names),
    }


def _filters(rtnl: Rtnl, names: dict[int, str]) -> Iterator[str]:
    for index, kind, handle, _ in rtnl.qdiscs():
        if kind == "noqueue":
            continue
        parents = INGRESS_PARENTS if kind in ("ingress", "clsact") else (handle,)
        for parent in parents:
            with suppress(OSError):  # a qdisc without filters, or gone
                for its_kind, priority in rtnl.filters(index, parent):
                    yield f"{names.get(index)} {parent:x} {its_kind} priority {priority}"


def _nftables() -> Iterator[str]:
    try:
        nft = ctypes.CDLL("libnftables.so.1")
    except OSError:
        return
    nft.nft_ctx_new.restype = ctypes.c_void_p
    nft.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(nft.nft_ctx_new(0))
    try:
        nft.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON)
        nft.nft_ctx_buffer_output(context)
        nft.nft_ctx_buffer_error(context)
        if nft.nft_run_cmd_from_buffer(context, b"list ruleset") != 0:
            return
        for entry in json.loads(nft.nft_ctx_get_output_buffer(context))["nftables"]:
            yield from _rules(entry)
    finally:
        nft.nft_ctx_free(context)


def _rules(entry: dict[str, Any]) -> Iterator[str]:
    for kind, body in entry.items():
        if kind != "metainfo":
            text = json.dumps({key: one for key, one in body.items() if key != "handle"})
            yield f"{kind} " + re.sub(r'"(packets|bytes)": \d+', "", text)


def _processes() -> Iterator[str]:
    """Names, numbered: a daemon that was started again is the same."""
    seen: Counter[str] = Counter()
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            head, _, rest = (directory / "stat").read_text().rpartition(")")
            name = head.partition("(")[2]
            if rest.split()[0] not in "ZX":
                seen[name] += 1
                yield f"{name} {seen[name]}"


def _sysctls() -> Iterator[str]:
    for name in SYSCTLS:
        yield f"{name} = {Path('/proc/sys', name).read_text().strip()}"


def _mounts() -> Iterator[tuple[str, str]]:
    """Number and description; the machine's own, inherited by the sandbox, may come and go."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        yield fields[0], f"{fields[4]} {fields[fields.index('-') + 1]}"


def _content(path: str) -> str:
    found = os.lstat(path)
    mode = stat.filemode(found.st_mode)
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGE:
        return mode
    try:
        return f"{mode} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]}"
    except OSError:  # a namespace, whose file cannot be read
        return mode
