# SPDX-License-Identifier: Apache-2.0
"""What others do to a node, as a table: how it is done, and what must be said of it.

A damage is done from outside, as an administrator, a network service or an attacker with root does
it. It must be right on a node that is whole, whatever was mended on it before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

from loader import Hook, libbpf, tcx
from loader.clsact import attached
from pycni.dataplane import maps
from pycni.kernel import nft, sysctl
from pycni.kernel.links import IFF_UP, Link
from pycni.kernel.routes import Route, local_route
from pycni.kernel.rtnl import Rtnl
from pycni.lab import processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import NODE_UPLINK, UNDERLAY4, UNDERLAY6, LabNode
from pycni.lab.topology import open_rtnl
from pycni.node import claim, firewall_accepts, masquerade, overlay, overlay_guard
from pycni.node.overlay import DEVICE
from pycni.node.record import Node, record_path
from pycni.pods import port_table
from pycni.pods.lease import leases
from pycni.settings import load
from pycni.stores import open_store
from support.kernel import open_iproute
from support.labs import within

T = TypeVar("T")

OTHER_MAC = "02:11:22:33:44:55"
OTHER_NAME = "wan0"
KEPT_MAC = "uplink.mac"
MTU, LOWER, HIGHER = 1500, 1400, 1600
"""MTUs of an uplink, the usual one first."""
EVENT, LOOK = 5.0, 45.0
"""Seconds within which a busy test machine must have mended what has an event, and what has none.
An agent alone on a machine takes less than one, and less than 31."""
STORE = 20.0
"""As EVENT, for what the agent hears by the store, and mends by a setup: alone it takes 3."""


@dataclass(frozen=True)
class Damage:
    """One kind of damage."""

    name: str
    do: Callable[[Lab, LabNode], object]
    part: str
    """The row of `pycni status` that must name it."""
    words: str
    """In the row's cause."""
    is_broken: bool = True
    """Whether packets of pods are lost, so that the exit status is 2, else 1."""
    within: float = EVENT
    """Seconds."""
    tidy: Callable[[Lab, LabNode], object] | None = None
    """Takes back what is others' and stays when ours is mended."""
    undo: Callable[[Lab, LabNode], object] | None = None
    """Of what the agent must leave to a person: how that person puts it right."""
    plugin_tells: bool = True
    """Whether it is among what the plugin's STATUS looks at."""

    def __str__(self) -> str:
        return self.name


def _ip(*arguments: str) -> Callable[[Lab, LabNode], object]:
    """ip(8) on the node."""
    return lambda _, node: _run(node, "ip", *arguments)


def _run(node: LabNode, *command: str) -> None:
    done = processes.run(node.netns, command)
    assert done.returncode == 0, done.stderr.decode()


def _nft(script: str) -> Callable[[Lab, LabNode], object]:
    """nft(8) on the node."""
    return lambda _, node: within(node.netns, lambda: nft.run(script, what="a test's damage"))


def _sysctl(*steps: tuple[str, str]) -> Callable[[Lab, LabNode], object]:
    """Kernel parameters, written one after the other; those of NODE_UPLINK are the uplink's,
    whatever its name is now."""

    def write() -> None:
        with Rtnl() as ipr:
            uplink = _uplink(ipr).ifname
        for name, value in steps:
            sysctl.write(name.replace(f"/{NODE_UPLINK}/", f"/{uplink}/"), value)

    return lambda _, node: within(node.netns, write)


def _on_links(change: Callable[[Rtnl], T]) -> Callable[[Lab, LabNode], T]:
    def do(_: Lab, node: LabNode) -> T:
        with open_rtnl(node.netns) as ipr:
            return change(ipr)

    return do


def _rename_overlay(ipr: Rtnl) -> None:
    """As udev and network services do it by rules for all interfaces of a kind."""
    device = ipr.link(DEVICE)
    assert device is not None
    ipr.rename(device, "vx9")


def _flush_addresses(ipr: Rtnl) -> None:
    device = ipr.ifindex(DEVICE)
    for address in ipr.addresses(device):
        prefixlen = address.interface.network.prefixlen
        ipr.delete_address(device, address.ip, prefixlen=prefixlen)


def _unroute_addresses(ipr: Rtnl) -> None:
    device = ipr.ifindex(DEVICE)
    for address in ipr.addresses(device):
        if address.is_global:
            ipr.delete_route(local_route(address.ip, device))


def _detach(*hooks: tuple[str, str]) -> Callable[[Lab, LabNode], object]:
    """Take programs off interfaces, by bpf(2) or with their qdisc: as they are attached."""

    def do(_: Lab, node: LabNode) -> None:
        def work() -> None:
            with Rtnl() as ipr:
                for ifname, program in hooks:
                    is_uplink = ifname == NODE_UPLINK
                    ifindex = _uplink(ipr).ifindex if is_uplink else ipr.ifindex(ifname)
                    if not tcx.detach(Hook(ifindex, program)):
                        assert attached(ipr, ifindex)
                        ipr.delete_clsact(ifindex)

        within(node.netns, work)

    return do


def pod_links(ipr: Rtnl) -> list[Link]:
    """The host ends of a node's pods."""
    found = (ipr.link_at(lease.ifindex) for lease in leases(ipr))
    return [link for link in found if link is not None]


def _take_clsact(ipr: Rtnl) -> None:
    for link in pod_links(ipr):
        ipr.delete_clsact(link.ifindex)


def _rename_mac(ipr: Rtnl) -> None:
    for link in pod_links(ipr):
        ipr.set_mac(link.ifindex, OTHER_MAC)


def _narrow(ipr: Rtnl) -> None:
    for link in pod_links(ipr):
        ipr.set_mtu(link.ifindex, LOWER - 200)


def _pods_down(_: Lab, node: LabNode) -> None:
    with open_iproute(node.netns) as ipr, open_rtnl(node.netns) as rtnl:
        for link in pod_links(rtnl):
            assert link.flags & IFF_UP
            ipr.link("set", index=link.ifindex, state="down")


def _open_pods(_: Lab, node: LabNode) -> None:
    def work() -> None:
        with Rtnl() as ipr:
            for link in pod_links(ipr):
                sysctl.write(f"net/ipv4/conf/{link.ifname}/forwarding", "1")
                sysctl.write(f"net/ipv6/conf/{link.ifname}/disable_ipv6", "0")

    within(node.netns, work)


def _empty(name: str) -> Callable[[Lab, LabNode], object]:
    def do(_: Lab, node: LabNode) -> None:
        with maps.open_table(load(node.settings_path).pin_root, name) as table:
            for key, _value in list(table.items()):
                table.remove(key)

    return do


def _mislead(name: str) -> Callable[[Lab, LabNode], object]:
    """Every entry leads to a node that is none: the map is not empty, and has all its keys."""

    def do(_: Lab, node: LabNode) -> None:
        with maps.open_table(load(node.settings_path).pin_root, name) as table:
            for key, value in list(table.items()):
                is_vtep = isinstance(value, maps.Vtep)
                other = replace(value, node=value.node + 100) if is_vtep else value + 100
                table.put(key, other)

    return do


def _exchange_endpoints(_: Lab, node: LabNode) -> None:
    """Each entry leads to a link that is another pod's, or no pod's."""
    with maps.open_table(load(node.settings_path).pin_root, "endpoints") as table:
        entries = dict(table.items())
        found = list({entry.ifindex: entry for entry in entries.values()}.values())
        others = [*found[1:], replace(found[0], ifindex=1)]
        led = {one.ifindex: other for one, other in zip(found, others, strict=True)}
        for address, entry in entries.items():
            table.put(address, led[entry.ifindex])


def _another_self(_: Lab, node: LabNode) -> None:
    with maps.open_self(load(node.settings_path).pin_root) as own:
        own.put(None, maps.Self(node.underlay[0].ip + 100, 0))


def _remove_pins(pattern: str) -> Callable[[Lab, LabNode], object]:
    def do(_: Lab, node: LabNode) -> None:
        root = load(node.settings_path).pin_root
        for pin in root.glob(pattern):
            shutil.rmtree(pin) if pin.is_dir() and not pin.is_symlink() else pin.unlink()

    return do


def _unmount_bpffs(lab: Lab, node: LabNode) -> None:
    _remove_pins("*")(lab, node)
    deadline = time.monotonic() + EVENT
    while True:
        try:
            libbpf.unmount(node.directory / "bpf")
        except OSError:  # the agent has something open there
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def _replug(name: str) -> Callable[[Lab, LabNode], object]:
    """The uplink goes, and comes again with MAC, addresses and routes, under this name."""

    def do(lab: Lab, node: LabNode) -> None:
        with open_rtnl(node.netns) as ipr:
            uplink = _uplink(ipr)
            ipr.delete_link(uplink.ifindex)
        _plug(lab, node, name, mac=uplink.mac)

    return do


def _plug(lab: Lab, node: LabNode, name: str, *, mac: str) -> None:
    """Give a node without an uplink one, as topology.make_node does."""
    deadline = time.monotonic() + EVENT
    while True:
        try:
            topology.make_uplink(lab.layout, node, name, mac=mac)
        except OSError:  # the old pair is not gone yet
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def _unplug(_: Lab, node: LabNode) -> None:
    """Its MAC is kept for `_plug_back`: other nodes remember it for a while."""
    with open_rtnl(node.netns) as ipr:
        uplink = _uplink(ipr)
        (node.directory / KEPT_MAC).write_text(uplink.mac)
        ipr.delete_link(uplink.ifindex)


def _plug_back(lab: Lab, node: LabNode) -> None:
    _plug(lab, node, NODE_UPLINK, mac=(node.directory / KEPT_MAC).read_text())


def _uplink(ipr: Rtnl) -> Link:
    return next(link for link in (ipr.link(NODE_UPLINK), ipr.link(OTHER_NAME)) if link is not None)


def _own_route(verb: str, *words: str) -> Callable[[Lab, LabNode], object]:
    """Of the uplink's IPv4 address, as `ip route flush table local` takes it. The word OWN stands
    for the address."""

    def do(lab: Lab, node: LabNode) -> None:
        own = str(node.underlay[0].ip)
        with open_rtnl(node.netns) as ipr:
            ifname = _uplink(ipr).ifname
        further = [own if word == "OWN" else word for word in words]
        _ip("route", verb, "local", own, "dev", ifname, "table", "local", *further)(lab, node)

    return do


def _uplink_mtu(*choices: int) -> Callable[[Lab, LabNode], object]:
    """The first of these MTUs that the uplink does not have."""

    def do(lab: Lab, node: LabNode) -> None:
        with open_rtnl(node.netns) as ipr, open_rtnl(lab.layout.underlay_netns) as underlay:
            link = _uplink(ipr)
            mtu = next(choice for choice in choices if choice != link.mtu)
            underlay.set_mtu(underlay.ifindex(node.port), max(mtu, MTU))
            ipr.set_mtu(link.ifindex, mtu)

    return do


def put_uplink_back(lab: Lab, node: LabNode) -> None:
    """Give the uplink its first name and MTU, whatever damages have left."""
    with open_rtnl(node.netns) as ipr:
        renamed = ipr.link(OTHER_NAME) is not None
    if renamed:
        _replug(NODE_UPLINK)(lab, node)
    with open_rtnl(node.netns) as ipr:
        ipr.set_mtu(_uplink(ipr).ifindex, MTU)


def _rule(verb: str) -> Callable[[Lab, LabNode], object]:
    """A routing rule before all others, as VPNs add them; its table has a default route."""

    def do(lab: Lab, node: LabNode) -> None:
        with open_rtnl(node.netns) as ipr:
            route = ("default", "dev", _uplink(ipr).ifname, "table", "52")
        _ip("route", "replace" if verb == "add" else "del", *route)(lab, node)
        _ip("rule", verb, "to", "10.244.0.0/16", "lookup", "52", "priority", "5")(lab, node)

    return do


def _remove_record(_: Lab, node: LabNode) -> None:
    record_path(load(node.settings_path)).unlink()


def _unregister(_: Lab, node: LabNode) -> None:
    settings = load(node.settings_path)
    assert open_store(settings.store_url, settings.cluster, create=False).remove(node.name)


def _mount_read_only(name: str) -> Callable[[Lab, LabNode], object]:
    """The directory of a setting."""

    def do(_: Lab, node: LabNode) -> None:
        directory = str(getattr(load(node.settings_path), name))
        _run(node, "mount", "--bind", directory, directory)
        _run(node, "mount", "-o", "remount,bind,ro", directory)

    return do


def _remount_bpffs(how: str) -> Callable[[Lab, LabNode], object]:
    return lambda _, node: _run(
        node, "mount", "-o", f"remount,{how}", str(load(node.settings_path).bpffs)
    )


def _unmount(name: str) -> Callable[[Lab, LabNode], object]:
    return lambda _, node: _run(node, "umount", str(getattr(load(node.settings_path), name)))


def _fill(_: Lab, node: LabNode) -> None:
    """A file system that has no room left, over the state directory."""
    state = load(node.settings_path).state_dir
    kept = (state / "node.json").read_bytes()
    _run(node, "mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(state))
    (state / "node.json").write_bytes(kept)
    with suppress(OSError), Path(state / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


CHAINS = {
    (masquerade.TABLE, masquerade.PART): ("postrouting",),
    (port_table.TABLE, port_table.PART): ("ports", "prerouting", "output", "postrouting"),
    (overlay_guard.TABLE, overlay_guard.PART): (
        "prerouting", "from_pods", "input", "forward", "postrouting",
    ),
}  # fmt: skip
"""The chains with rules, by our tables and the parts they belong to."""
HARMLESS = (overlay_guard.PART,)
"""Parts without which the node forwards."""


def _of_tables() -> Iterator[Damage]:
    """Each of our tables deleted or switched off, and each of its chains flushed or closed."""
    for (table, part), chains in CHAINS.items():
        broken = part not in HARMLESS
        yield Damage(f"nftables table {table} deleted", _nft(f"delete table inet {table}"), part,
                     "gone", is_broken=broken, plugin_tells=part == masquerade.PART)  # fmt: skip
        script = f"add table inet {table} {{ flags dormant; }}"
        yield Damage(f"nftables table {table} switched off", _nft(script), part, "switched off",
                     is_broken=broken, plugin_tells=part == masquerade.PART)  # fmt: skip
        hooked = "postrouting"  # each has one
        script = f"add chain inet {table} {hooked} {{ policy drop; }}"
        yield Damage(f"nftables table {table} drops by policy", _nft(script), part, hooked,
                     is_broken=broken, plugin_tells=part == masquerade.PART)  # fmt: skip
        if table != port_table.TABLE:  # others may add to that
            hook = "type filter hook forward priority 9; policy drop;"
            script = f"add chain inet {table} more {{ {hook} }}"
            yield Damage(f"nftables table {table} with one more chain", _nft(script), part,
                         "did not make", is_broken=broken,
                         plugin_tells=part == masquerade.PART)  # fmt: skip
        for chain in chains:
            script = f"flush chain inet {table} {chain}"
            yield Damage(f"nftables table {table}, chain {chain} flushed", _nft(script), part,
                         chain, is_broken=broken, plugin_tells=part == masquerade.PART)  # fmt: skip


FORWARD_DROP = """
    add table {0} filter
    add chain {0} filter FORWARD {{ type filter hook forward priority 0; policy drop; }}
"""
"""What `iptables -P FORWARD DROP` makes, as Docker and ufw call it."""
FAMILIES = ("ip", "ip6")


def _forward_drop(lab: Lab, node: LabNode) -> None:
    _nft("".join(FORWARD_DROP.format(family) for family in FAMILIES))(lab, node)


def _flush_forward(lab: Lab, node: LabNode) -> None:
    """As `iptables -F` of somebody who set the policy before."""
    _forward_drop(lab, node)
    record = Node.load(load(node.settings_path))
    within(node.netns, lambda: firewall_accepts.setup(record))
    _nft("flush chain ip filter FORWARD")(lab, node)


def _forward_tables_away(lab: Lab, node: LabNode) -> None:
    _nft("".join(f"add table {one} filter\ndelete table {one} filter\n" for one in FAMILIES))(
        lab, node
    )


OTHER_BRIDGE = "br9"


def _enslave_overlay(lab: Lab, node: LabNode) -> None:
    """As a network service with a rule for all interfaces does it."""
    _ip("link", "add", OTHER_BRIDGE, "up", "type", "bridge")(lab, node)
    _ip("link", "set", DEVICE, "master", OTHER_BRIDGE)(lab, node)


def _other_vtep(lab: Lab, node: LabNode) -> str:
    return str(next(one for one in lab.layout.nodes if one != node).underlay[0].ip)


def _to_other(*words: str) -> Callable[[Lab, LabNode], object]:
    """ip(8) with the VTEP of another node in the place of `VTEP`."""
    return lambda lab, node: _ip(*(w.replace("VTEP", _other_vtep(lab, node)) for w in words))(
        lab, node
    )


def _unroute(lab: Lab, node: LabNode) -> None:
    """The underlay's network and the default route of IPv4, as `ip route flush` takes them."""
    with open_rtnl(node.netns) as ipr:
        _ip("-4", "route", "flush", "dev", _uplink(ipr).ifname)(lab, node)


def _reroute(_: Lab, node: LabNode) -> None:
    with open_rtnl(node.netns) as ipr:
        uplink, own = _uplink(ipr), node.underlay[0]
        ipr.add_route(Route(own.network, uplink.ifindex, source=own.ip))
        ipr.add_route(Route(ip_network("0.0.0.0/0"), uplink.ifindex, UNDERLAY4.ip))


UPLINK4 = f"net/ipv4/conf/{NODE_UPLINK}/forwarding"
DEVICE4 = f"net/ipv4/conf/{DEVICE}/forwarding"
DEVICE6_OFF = f"net/ipv6/conf/{DEVICE}/disable_ipv6"
DEVICE_PART = f"device {DEVICE}"
ASTRAY = "10.244.1.128/25"
"""A part of the second node's pods."""
STOPPING = {
    "by interface": ("iif", DEVICE, "blackhole"),
    "by source": ("from", "10.244.0.0/16", "prohibit"),
}
"""Rules of others, in ip-rule(8)'s words."""
STOPS = "table ip others {{ chain it {{ type filter hook {}; ip saddr 10.244.0.0/16 drop; }}\n}}"
FIREWALLS = {
    "at prerouting": STOPS.format("prerouting priority -300"),
    "before routing, at an interface": STOPS.format(f"ingress device {DEVICE} priority 0").replace(
        "table ip ", "table netdev "),
    "in a chain of a chain": """
        table ip others {
            chain late { ip saddr 10.244.0.0/16 drop; }
            chain it { type filter hook forward priority 7; jump late; }
        }""",
}  # fmt: skip
"""Rules of others, in nft(8)'s words."""
FAR_POD = "10.244.1.77/32"
"""One of them."""
ALL6_OFF = "net/ipv6/conf/all/disable_ipv6"


def _switch_ipv6_on(lab: Lab, node: LabNode) -> None:
    """The uplink has lost its addresses meanwhile."""
    _sysctl((ALL6_OFF, "0"))(lab, node)
    with open_rtnl(node.netns) as ipr:
        uplink = _uplink(ipr).ifindex
        for one in node.underlay:
            if one.version == 6:
                ipr.add_address(uplink, one.ip, prefixlen=one.network.prefixlen)
        ipr.add_route(Route(ip_network("::/0"), uplink, UNDERLAY6.ip))


DAMAGES = (
    Damage("firewall reload: nft flush ruleset", _nft("flush ruleset"), masquerade.PART, "gone"),
    *_of_tables(),
    Damage("iptables policy of FORWARD is DROP", _forward_drop, firewall_accepts.PART,
           "without the rules", tidy=_forward_tables_away),
    Damage("iptables chain FORWARD flushed", _flush_forward, firewall_accepts.PART,
           "without the rules", tidy=_forward_tables_away),
    Damage("IPv4 forwarding on and off again",
           _sysctl(("net/ipv4/ip_forward", "1"), ("net/ipv4/ip_forward", "0")), "sysctls",
           "forwarding"),
    Damage("IPv4 forwarding off at the uplink", _sysctl((UPLINK4, "0")), "sysctls", "eth0"),
    Damage("IPv4 forwarding off at the overlay device", _sysctl((DEVICE4, "0")), "sysctls",
           DEVICE),
    Damage("IPv6 forwarding off", _sysctl((overlay.IPV6_FORWARDING, "0")), "sysctls", "ipv6"),
    Damage("loopback addresses not routed",
           _sysctl((f"net/ipv4/conf/{DEVICE}/route_localnet", "0")), "sysctls", "route_localnet"),
    Damage("source routes at the overlay device",
           _sysctl((f"net/ipv4/conf/{DEVICE}/accept_source_route", "1")), "sysctls",
           "accept_source_route"),
    Damage("IPv6 off at the overlay device", _sysctl((DEVICE6_OFF, "1")), "sysctls",
           "disable_ipv6"),
    Damage("IPv6 off on the whole host", _sysctl((ALL6_OFF, "1")), "addresses", "gone",
           undo=_switch_ipv6_on),
    Damage("IPv6 off and on at the overlay device", _sysctl((DEVICE6_OFF, "1"), (DEVICE6_OFF, "0")),
           "addresses", "gone"),
    Damage("IPv4 routes flushed", _ip("route", "flush", "dev", DEVICE), "routes", "10.244"),
    Damage("IPv6 routes flushed", _ip("-6", "route", "flush", "dev", DEVICE), "routes", "fd00"),
    Damage("addresses flushed", _on_links(_flush_addresses), "addresses", "gone",),
    Damage("local routes of addresses removed", _on_links(_unroute_addresses), "addresses",
           "local route", plugin_tells=False),
    Damage("overlay device down", _ip("link", "set", DEVICE, "down"), DEVICE_PART, "down"),
    Damage("overlay device down and up",
           lambda lab, node: (_ip("link", "set", DEVICE, "down")(lab, node),
                              _ip("link", "set", DEVICE, "up")(lab, node)), "routes", "gone"),
    Damage("overlay device deleted", _ip("link", "del", DEVICE), DEVICE_PART, "gone"),
    Damage("overlay device renamed", _on_links(_rename_overlay), DEVICE_PART, "renamed: it is vx9"),
    Damage("overlay device with another MAC", _ip("link", "set", DEVICE, "address", OTHER_MAC),
           DEVICE_PART, OTHER_MAC),
    Damage("overlay device with another MTU", _ip("link", "set", DEVICE, "mtu", "1300"),
           DEVICE_PART, "1300", is_broken=False, plugin_tells=False),
    Damage("overlay device without a carrier", _ip("link", "set", DEVICE, "protodown", "on"),
           DEVICE_PART, "carrier", undo=_ip("link", "set", DEVICE, "protodown", "off")),
    Damage("overlay device made a port of a bridge", _enslave_overlay, DEVICE_PART, "bridge",
           tidy=_ip("link", "del", OTHER_BRIDGE)),
    Damage("overlay device that resolves addresses", _ip("link", "set", DEVICE, "arp", "on"),
           DEVICE_PART, "NOARP", is_broken=False, plugin_tells=False),
    Damage("overlay device without its alias", _ip("link", "set", DEVICE, "alias", ""),
           claim.PART, "alias", is_broken=False, plugin_tells=False),
    Damage("program taken from the uplink", _detach((NODE_UPLINK, "from_underlay")), "hooks",
           "from_underlay"),
    Damage("programs taken from the overlay device",
           _detach((DEVICE, "from_overlay"), (DEVICE, "to_overlay")), "hooks", "to_overlay"),
    Damage("filters taken from pods", _on_links(_take_clsact), "hooks", "from_container"),
    Damage("pods' links down", _pods_down, "pods", "down"),
    Damage("pods' links with another MAC", _on_links(_rename_mac), "pods", OTHER_MAC),
    Damage("pods' links with a lower MTU", _on_links(_narrow), "pods", f"MTU {LOWER - 200}",
           within=LOOK),
    Damage("pods' links opened to the stack", _open_pods, "pods", "open", is_broken=False,
           within=LOOK, plugin_tells=False),
    Damage("map endpoints emptied", _empty("endpoints"), "endpoints", "no entry"),
    Damage("map endpoints with other links", _exchange_endpoints, "endpoints", "in an entry",
           within=LOOK),
    Damage("map remotes emptied", _empty("remotes"), "peers", "remotes", plugin_tells=False),
    Damage("map vteps emptied", _empty("vteps"), "peers", "vteps", plugin_tells=False),
    Damage("map remotes with other nodes", _mislead("remotes"), "peers", "remotes", within=LOOK,
           plugin_tells=False),
    Damage("map vteps with other ids", _mislead("vteps"), "peers", "vteps", within=LOOK,
           plugin_tells=False),
    Damage("map nodes with other nodes", _mislead("nodes"), "node addresses", "nodes", within=LOOK,
           plugin_tells=False),
    Damage("another address in the map self", _another_self, "peers", "self",
           plugin_tells=False),
    Damage("pins of maps removed", _remove_pins("maps/*"), "programs", "endpoints"),
    Damage("pins of programs removed", _remove_pins("programs-*"), "programs", "not loaded"),
    Damage("all pins removed", _remove_pins("*"), "programs", "not loaded"),
    Damage("bpffs unmounted", _unmount_bpffs, "programs", "bpf"),
    Damage("uplink made anew", _replug(NODE_UPLINK), "hooks", "from_underlay"),
    Damage("uplink made anew under another name", _replug(OTHER_NAME), "uplink", "is on",
           plugin_tells=False),
    Damage("uplink back under its name", _replug(NODE_UPLINK), "uplink", "is on",
           plugin_tells=False),
    Damage("uplink's MTU lowered", _uplink_mtu(LOWER, LOWER - 20), "uplink", "MTU",
           plugin_tells=False),
    Damage("uplink's MTU raised", _uplink_mtu(MTU, HIGHER), "uplink", "MTU", is_broken=False,
           plugin_tells=False),
    Damage("record removed from the store", _unregister, "registration", "not in the store",
           is_broken=False, plugin_tells=False, within=STORE),
    *(Damage(f"{name} directory read-only", _mount_read_only(f"{name}_dir"), "directories",
             "read-only", is_broken=False, undo=_unmount(f"{name}_dir"))
      for name in ("state", "run")),
    Damage("state directory full", _fill, "directories", "full", is_broken=False,
           undo=_unmount("state_dir")),
    Damage("bpffs read-only", _remount_bpffs("ro"), "programs", "read-only", is_broken=False,
           undo=_remount_bpffs("rw")),
    Damage("a rule that leads pods' packets away", _rule("add"), "routes", "not pycni0",
           undo=_rule("del")),
    *(Damage(f"a rule that stops pods {what}", _ip("rule", "add", *words, "priority", "50"),
             "routes", "nowhere, though", is_broken=False, plugin_tells=False,
             undo=_ip("rule", "del", "priority", "50"))
      for what, words in STOPPING.items()),
    *(Damage(f"a firewall of others that stops pods {where}", _nft(script), "firewalls",
             "stopping pods' IPv4 packets", is_broken=False, plugin_tells=False,
             undo=_nft(f"delete table {script.split()[1]} others"))
      for where, script in FIREWALLS.items()),
    Damage("a rule that leads packets for another node's pods away",
           _ip("rule", "add", "to", ASTRAY, "blackhole", "priority", "50"), "routes",
           f"{ASTRAY} is nowhere", undo=_ip("rule", "del", "priority", "50")),
    Damage("a route that leads packets for another node's pods away",
           _ip("route", "add", "blackhole", ASTRAY), "routes", f"{ASTRAY} is nowhere",
           undo=_ip("route", "del", "blackhole", ASTRAY)),
    Damage("an address of another node's pod on this host",
           _ip("address", "add", FAR_POD, "dev", "lo"), "routes",
           f"{FAR_POD} is to this host",
           undo=_ip("address", "del", FAR_POD, "dev", "lo")),
    Damage("the underlay's routes flushed", _unroute, "underlay", "this node has no route there",
           plugin_tells=False, undo=_reroute),
    Damage("a route to another node that leads nowhere",
           _to_other("route", "add", "unreachable", "VTEP"), "underlay", "nowhere",
           plugin_tells=False, undo=_to_other("route", "del", "unreachable", "VTEP")),
    Damage("a route to another node that leads into the host",
           _to_other("route", "add", "VTEP", "dev", "lo"), "underlay", "out of lo",
           plugin_tells=False, undo=_to_other("route", "del", "VTEP", "dev", "lo")),
    Damage("a rule that keeps VXLAN in",
           _to_other("rule", "add", "to", "VTEP", "prohibit", "priority", "51"), "underlay",
           "nowhere", plugin_tells=False, undo=_ip("rule", "del", "priority", "51")),
    Damage("local route of this node's address removed", _own_route("del"), "uplink",
           "is gone", undo=_own_route("add", "proto", "kernel", "src", "OWN")),
    Damage("uplink gone", _unplug, "uplink", "no interface", undo=_plug_back),
)  # fmt: skip
"""In an order in which each may follow the one before it."""

FORGOTTEN_RECORD = Damage(
    "the node's record removed", _remove_record, "node", "gone", is_broken=False, within=LOOK,
    plugin_tells=False,
)  # fmt: skip
"""Only an agent that runs remembers it."""
