# SPDX-License-Identifier: Apache-2.0
"""What a node is at one moment, as lines of text in sections, to compare before with after.

`take` looks from inside the node's namespace: sysctls, nftables and links are then the node's. What
the kernel changes by itself (ages, reachability, statistics) is left out.

As a program it looks at the machine that it runs on, by the default settings, and prints JSON.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import socket
import stat
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute

from loader import tcx
from loader.places import EGRESS, INGRESS
from pycni.dataplane import dumps
from pycni.errors import NotAvailable
from pycni.lab.layout import NODE_UPLINK, LabNode
from pycni.lab.topology import NETNS_DIR
from pycni.settings import Settings, load

Snapshot = dict[str, list[str]]

CLONE_NEWNET = 0x40000000
IFA_F_TENTATIVE = 0x40
RTM_F_CLONED = 0x200
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
"""linux/neighbour.h. The kernel makes the first kind for the first packet to a next hop on a device
without ARP (arp_constructor in net/ipv4/arp.c); the second is made by somebody."""
LEARNT = " learnt"
NFT_CTX_OUTPUT_JSON = 1 << 4

VOLATILE_FILES = (
    "rotation.json", ".rotation.json", "resting", "cluster.db", "locks",
    "upkeep.json", "report.json", ".report.json",
)  # fmt: skip
"""The rotation outlives a DEL on purpose, as does what a killed writer left, until the next
(files.replace_file), and the log of addresses that rest; the store has heartbeats, lock files stay,
and an agent counts its mends and reports what it sees."""

SYSCTL_TREES = ("net/ipv4/conf", "net/ipv6/conf")
SYSCTLS = ("net/ipv4/ip_forward",)


def take(node: LabNode) -> Snapshot:
    """The node as it is now, seen by a thread that enters the namespace and ends."""
    return take_in(NETNS_DIR / node.netns, load(node.settings_path))


def take_in(netns: Path, settings: Settings) -> Snapshot:
    """The same for a network namespace, and the directories and the BPF file system of `settings`
    as this process finds them."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_look_in, netns, settings).result()


def differences(before: Snapshot, after: Snapshot, *, without: Collection[str] = ()) -> list[str]:
    """What went (-) and what came (+), a line each; empty if the node is as it was.

    The kernel forgets neighbours that it has learnt when it likes: one that went is none. One that
    came on the underlay is none, either: other nodes ask for this one's MAC when they like.
    """
    found = []
    for section in before.keys() - set(without):
        had, has = set(before[section]), set(after[section])
        gone = (line for line in had - has if not line.endswith(LEARNT))
        found += [f"- {section}: {line}" for line in sorted(gone)]
        came = (line for line in has - had if not _is_met(line))
        found += [f"+ {section}: {line}" for line in sorted(came)]
    return found


def _is_met(line: str) -> bool:
    """Whether this is a machine of the underlay that the kernel got to know."""
    return line.startswith(f"{NODE_UPLINK} ") and line.endswith(LEARNT)


def _look_in(netns: Path, settings: Settings) -> Snapshot:
    with netns.open() as opened:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(opened.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    return look(settings)


def look(settings: Settings) -> Snapshot:
    """What is in the network and mount namespaces of this thread."""
    with IPRoute() as ipr:
        names = {link["index"]: str(link.get("ifname")) for link in ipr.get_links()}
        return {
            "links": sorted(_links(ipr)),
            "addresses": sorted(_addresses(ipr, names)),
            "routes": sorted(_routes(ipr, names)),
            "rules": sorted(_rules(ipr)),
            "neighbours": sorted(_neighbours(ipr, names)),
            "fdb": sorted(_fdb(ipr, names)),
            "qdiscs": sorted(_qdiscs(ipr, names)),
            "filters": sorted(_filters(ipr, names)),
            "pins": sorted(_pins(settings.bpffs)),
            "maps": sorted(_maps(settings.pin_root)),
            "nft": sorted(_nft()),
            "files": sorted(_files(settings)),
            "sysctls": sorted(_sysctls()),
            "mounts": sorted(_mounts(settings.bpffs)),
        }


def _links(ipr: IPRoute) -> Iterator[str]:
    for link in ipr.get_links():
        yield (
            f"{link['index']} {link.get('ifname')} {link.get(('linkinfo', 'kind'))} "
            f"{link.get('address')} mtu={link.get('mtu')} flags={link['flags']:x} "
            f"alias={link.get('ifalias')}"
        )


def _addresses(ipr: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for entry in ipr.get_addr():
        address = entry.get("IFA_LOCAL") or entry.get("IFA_ADDRESS")
        flags = (entry.get("IFA_FLAGS") or 0) & ~IFA_F_TENTATIVE
        yield f"{names[entry['index']]} {address}/{entry['prefixlen']} flags={flags:x}"


def _routes(ipr: IPRoute, names: dict[int, str]) -> Iterator[str]:
    """But for link-local ones, which come when duplicate address detection ends."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in ipr.get_routes(family=family):
            own = str(route.get("RTA_DST")).startswith(("fe80", "ff00"))
            if not own and not route["flags"] & RTM_F_CLONED:
                yield (
                    f"{route.get('RTA_DST')}/{route['dst_len']} via {route.get('RTA_GATEWAY')} "
                    f"dev {names.get(route.get('RTA_OIF'))} src {route.get('RTA_PREFSRC')} "
                    f"table {route.get('RTA_TABLE')} type {route['type']} family {family} "
                    f"metric {route.get('RTA_PRIORITY')}"
                )


def _rules(ipr: IPRoute) -> Iterator[str]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for rule in ipr.get_rules(family=family):
            lengths = f"{rule['src_len']} to /{rule['dst_len']}"
            yield f"family {family} action {rule['action']} from /{lengths} {dict(rule['attrs'])}"


def _neighbours(ipr: IPRoute, names: dict[int, str]) -> Iterator[str]:
    """All but those that come and go by themselves: multicast, link-local, unanswered, and those of
    devices without ARP."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in ipr.get_neighbours(family=family):
            address = str(entry.get("NDA_DST"))
            if entry["state"] == NUD_NOARP or address.startswith(("ff", "fe80", "224.")):
                continue
            if entry.get("NDA_LLADDR"):
                kind = " made" if entry["state"] & NUD_PERMANENT else LEARNT
                yield f"{names[entry['ifindex']]} {address} {entry.get('NDA_LLADDR')}{kind}"


def _fdb(ipr: IPRoute, names: dict[int, str]) -> Iterator[str]:
    """But for the groups that the kernel itself joins on every interface."""
    for entry in ipr.fdb("dump"):
        mac = str(entry.get("NDA_LLADDR"))
        if not int(mac[:2], 16) & 1:
            yield f"{names[entry['ifindex']]} {mac} {entry.get('NDA_DST')}"


def _qdiscs(ipr: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for qdisc in ipr.get_qdiscs():
        yield f"{names[qdisc['index']]} {qdisc.get('TCA_KIND')} {qdisc['handle']:x}"


def _filters(ipr: IPRoute, names: dict[int, str]) -> Iterator[str]:
    """And the programs of tcx, which need no qdisc."""
    for index, name in names.items():
        for place in (INGRESS, EGRESS):
            for number, program in enumerate(tcx.programs(index, place)):
                yield f"{name} {place:x} tcx place={number} program={program}"
    clsact = {q["index"] for q in ipr.get_qdiscs() if q.get("TCA_KIND") == "clsact"}
    for index in clsact:
        for parent in (INGRESS, EGRESS):
            for entry in ipr.get_filters(index=index, parent=parent):
                options = entry.get_attr("TCA_OPTIONS")
                if entry["handle"] and hasattr(options, "get_attr"):
                    yield (
                        f"{names[index]} {parent:x} {entry.get('TCA_KIND')} "
                        f"prio={entry['info'] >> 16} handle={entry['handle']:x} "
                        f"{options.get_attr('TCA_BPF_NAME')} "
                        f"program={options.get_attr('TCA_BPF_ID')}"
                    )


def _pins(bpffs: Path) -> Iterator[str]:
    for path in bpffs.rglob("*"):
        target = f" -> {path.readlink()}" if path.is_symlink() else ""
        yield f"{path.relative_to(bpffs)}{target}"


def _maps(root: Path) -> Iterator[str]:
    for name in ("endpoints", "remotes", "vteps"):
        with suppress(NotAvailable):
            for row in dumps.dump(root, name)[0]:
                yield f"{name} {json.dumps(row)}"


def _nft() -> Iterator[str]:
    nft = ctypes.CDLL("libnftables.so.1")
    nft.nft_ctx_new.restype = ctypes.c_void_p
    nft.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(nft.nft_ctx_new(0))
    nft.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON)
    nft.nft_ctx_buffer_output(context)
    assert nft.nft_run_cmd_from_buffer(context, b"list ruleset") == 0
    for entry in json.loads(nft.nft_ctx_get_output_buffer(context))["nftables"]:
        for kind, body in entry.items():
            if kind != "metainfo":
                body.pop("handle", None)
                if kind == "counter":
                    body |= {"packets": None, "bytes": None}
                if kind == "set":
                    body.pop("elem", None)  # follows the cluster, as the maps do
                for part in body.get("expr", ()):
                    if isinstance(part, dict) and "counter" in part:
                        part["counter"] = None  # other plugins' rules count every packet
                yield f"{kind} {json.dumps(body)}"
    nft.nft_ctx_free(context)


def _files(settings: Settings) -> Iterator[str]:
    for root in (settings.state_dir, settings.run_dir):
        for path in (root, *root.rglob("*")) if root.exists() else ():
            relative = path.relative_to(root)
            if str(relative).startswith(VOLATILE_FILES):
                continue
            with suppress(FileNotFoundError):  # it goes meanwhile
                yield f"{root.name}/{relative} {_file(path)}"


def _file(path: Path) -> str:
    mode = path.lstat().st_mode
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else ""
    return f"{stat.filemode(mode)} {digest}"


def _sysctls() -> Iterator[str]:
    for tree in SYSCTL_TREES:
        for directory, _, files in os.walk(f"/proc/sys/{tree}"):
            for file in files:
                with suppress(OSError):  # some cannot be read before they are set
                    yield _sysctl(Path(directory, file))
    for name in SYSCTLS:
        yield _sysctl(Path("/proc/sys", name))


def _sysctl(path: Path) -> str:
    return f"{path.relative_to('/proc/sys')} = {path.read_text().strip()}"


def _mounts(bpffs: Path) -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where, kind = line.split()[1:3]
        if where == str(bpffs):
            yield f"{where} {kind}"


if __name__ == "__main__":
    json.dump(look(Settings()), sys.stdout)
