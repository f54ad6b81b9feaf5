# SPDX-License-Identifier: Apache-2.0
"""C: ADD, and whether its result is what the kernel has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from pathlib import Path

from conformance import namespaces, schema, traffic
from conformance.bench import Bench, Pod, addresses_of, bare, host_link, pod_interface
from conformance.call import Json, refused
from conformance.netlink import RT_TABLE_MAIN, STRANGER_MAC, Rtnl
from conformance.registry import case
from conformance.results import Skip
from conformance.runtime import Attachment
from conformance.sandbox import HOST, WORLD

SINCE_INTERFACES = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CYCLES = 25
TRANSFER = 10_000_000


@case("C1", "the result is of the version asked for, and is what the pod has",
      versions=True, networks=True)  # fmt: skip
def result(bench: Bench, *, version: str, network: str) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network, version=version)

    found = attachment.attach()

    wrong = schema.problems(found, version)
    assert not wrong, "; ".join(wrong)
    link = pod.its()
    assert link.up, "the interface is down"
    has = {one.address for one in pod.addresses()}
    assert has == set(addresses_of(found)), f"has {has}, the result {addresses_of(found)}"
    missing = list(_routes_missing(pod, found))
    assert not missing, f"the pod has no {'; '.join(missing)}"
    if version in SINCE_INTERFACES:
        entry = pod_interface(attachment)
        assert entry["sandbox"] == attachment.netns, f"sandbox is {entry['sandbox']}"
        assert entry.get("mac", "").lower() == link.mac, f"mac {entry.get('mac')}, has {link.mac}"
        assert entry.get("mtu", link.mtu) == link.mtu, f"mtu {entry['mtu']}, has {link.mtu}"
    attachment.detach()


@case("C2", "the result lists the host's end, and addresses point to the pod's interface",
      versions=SINCE_INTERFACES, networks=True)  # fmt: skip
def cross_references(bench: Bench, *, version: str, network: str) -> None:
    pod, attachment = bench.attached(network=network, version=version)
    assert attachment.result is not None
    interfaces = attachment.result["interfaces"]
    host = host_link(attachment, pod)

    entries = [one for one in interfaces if one["name"] == host.name and "sandbox" not in one]
    assert len(entries) == 1, f"{host.name} is listed {len(entries)} times without a sandbox"
    assert entries[0].get("mac", "").lower() == host.mac, f"{entries[0]}, has {host.mac}"
    for ip in attachment.result["ips"]:
        assert interfaces[ip["interface"]] == pod_interface(attachment), f"{ip} is not the pod's"


@case("C3", "a first packet of any size arrives as soon as ADD returns", networks=True)
def first_packet(bench: Bench, *, network: str) -> None:
    one, first = bench.attached(network=network)
    other, second = bench.attached(network=network)
    assert first.result is not None
    assert second.result is not None
    for address in bare(second.result):
        family = traffic.version_of(address)
        whole = min(one.its().mtu, other.its().mtu) - traffic.ICMP_HEADERS[family]
        assert traffic.pings(one.path, address, size=1), f"pod to pod {address}, 1 byte"
        assert traffic.pings(one.path, address, size=whole, fragment=False), (
            f"pod to pod {address}, {whole} bytes with DF"
        )
        assert traffic.pings(None, address), f"host to pod {address}"
        host = HOST[family].partition("/")[0]
        assert traffic.pings(one.path, host), f"pod to the host {host}"
        traffic.transfer(one.path, other.path, address, TRANSFER)


@case("C4", "a second ADD of the same interface fails and the first goes on")
def duplicate(bench: Bench) -> None:
    pod, first = bench.attached()
    assert first.result is not None
    again = bench.attachment(pod, container_id=first.container_id)

    with bench.unchanged(pod):
        refused(again.call("ADD"))

    _reached(first)
    first.detach()


@case("C5", "ADD of another container to a taken interface fails and the first goes on")
def taken_by_another(bench: Bench) -> None:
    pod, first = bench.attached()
    other = bench.attachment(pod)

    with bench.unchanged(pod):
        refused(other.call("ADD"))

    _reached(first)
    with bench.unchanged(pod):
        other.detach()
    _reached(first)


@case("C6", "a container has several interfaces, each with its own addresses")
def two_interfaces(bench: Bench) -> None:
    pod, first = bench.attached()
    second = bench.attachment(pod, container_id=first.container_id, ifname="net1")
    answer = second.add()
    if answer.status != 0:
        # a second default route may be refused; an interface may not be left for it
        refused(answer)
        assert pod.link("net1") is None, "net1 was left by a failing ADD"
        raise Skip(f"a second interface is refused: {answer.document['msg']}")
    assert first.result is not None
    assert second.result is not None

    assert not set(bare(first.result)) & set(bare(second.result)), "an address was given twice"
    second.detach()
    _reached(first)


@case("C7", "somebody else's interface is not touched: ADD fails")
def stranger(bench: Bench) -> None:
    pod = bench.pod()
    with Rtnl(pod.path) as rtnl:
        rtnl.add_stranger("eth0")
    with bench.unchanged(pod):
        refused(bench.attachment(pod).call("ADD"))


@case("C12", "somebody else's link on the host is not taken, whatever its name")
def host_name_taken(bench: Bench) -> None:
    pod, attachment = bench.attached()
    name = host_link(attachment, pod).name
    attachment.detach()
    with _host_link(name):
        answer = attachment.add()
        with Rtnl() as rtnl:
            found = rtnl.link(name)
        assert found is not None, "it was deleted"
        assert found.mac == STRANGER_MAC, f"it was changed: {found}"
        if answer.status != 0:
            refused(answer)
        silenced = attachment.delete()
        assert silenced.status == 0, f"DEL failed: {silenced.told}"
        with Rtnl() as rtnl:
            assert rtnl.link(name) is not None, "DEL deleted it"


@case("C13", "in a pod without IPv6, ADD enables it or fails, unless it is not needed",
      networks=True)  # fmt: skip
def no_ipv6(bench: Bench, *, network: str) -> None:
    pod = bench.pod()
    _disable_ipv6(pod)
    families = bench.world.networks[network].families
    attachment = bench.attachment(pod, network=network)
    with bench.unchanged():
        answer = attachment.add()
        if 6 not in families or answer.status == 0:
            assert answer.status == 0, f"IPv6 is not needed: {answer.told}"
            has = {one.address for one in pod.addresses()}
            assert has == set(addresses_of(answer.document)), f"has {has}: {answer.told}"
            attachment.detach()
        else:
            refused(answer)
        assert pod.link() is None, "the interface is still in the pod"


@case("C14", "addresses can be used when ADD returns: none is tentative", networks=True)
def not_tentative(bench: Bench, *, network: str) -> None:
    pod, _ = bench.attached(network=network)

    tentative = [one.address for one in pod.addresses() if one.tentative]

    assert not tentative, f"tentative: {', '.join(tentative)}"


@case("C15", "ADD of two families takes less than half a second, three times in a row")
def quick(bench: Bench) -> None:
    networks = [one for one in bench.world.networks.values() if one.families == (4, 6)]
    if not networks:
        raise Skip("no network of this subject has both families")
    seconds = []
    for _ in range(3):
        attachment = bench.attachment(bench.pod(), network=networks[0])
        answer = attachment.add()
        assert answer.status == 0, answer.told
        seconds.append(answer.seconds)
        attachment.detach()
    assert min(seconds) < 0.5, f"at best {min(seconds):.2f} s"


@case("C18", f"{CYCLES} times ADD and DEL of one container leave nothing and always work")
def cycles(bench: Bench) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod)
    with bench.unchanged(pod):
        for _ in range(CYCLES):
            attachment.attach()
            attachment.detach()


@case("C19", "other interfaces of the pod are left alone")
def neighbours_in_the_pod(bench: Bench) -> None:
    pod = bench.pod()
    with Rtnl(pod.path) as rtnl:
        index = rtnl.add_stranger("other0")
        rtnl.set_link(index, up=True)
        rtnl.add_address(index, "192.0.2.7/24")
    attachment = bench.attachment(pod)
    with bench.unchanged(pod):
        attachment.attach()
        other = pod.its("other0")
        assert (other.up, other.mac) == (True, STRANGER_MAC), f"it was changed: {other}"
        assert [one.address for one in pod.addresses("other0")] == ["192.0.2.7/24"]
        attachment.detach()


@case("C20", "pods reach the world beyond the host when the configuration says ipMasq",
      networks=True)  # fmt: skip
def masquerade(bench: Bench, *, network: str) -> None:
    if not bench.world.networks[network].conf.get("ipMasq"):
        raise Skip("the network's configuration does not say ipMasq")
    pod, attachment = bench.attached(network=network)
    assert attachment.result is not None
    for address in bare(attachment.result):
        world = WORLD[traffic.version_of(address)]
        assert traffic.pings(pod.path, world), f"{address} does not reach {world}"


@case("C21", "the same container and interface name in two networks are two attachments")
def two_networks(bench: Bench) -> None:
    pod, first = bench.attached()
    other = bench.pod()
    second = bench.attachment(
        other, container_id=first.container_id, conf={"name": f"{first.conf['name']}-too"}
    )
    second.attach()
    second.detach()

    assert pod.link() is not None, "DEL in one network detached the other"
    _reached(first)
    first.detach()


def _reached(attachment: Attachment) -> None:
    assert attachment.result is not None
    for address in bare(attachment.result):
        assert traffic.pings(None, address), f"{address} no longer answers"


def _routes_missing(pod: Pod, found: Json) -> Iterator[str]:
    """Routes of a result that the pod has not; without `gw` the family's first gateway counts."""
    halves = [found[key] for key in ("ip4", "ip6") if key in found]
    wanted = [*found.get("routes", []), *(one for half in halves for one in half.get("routes", []))]
    gateways: dict[int, str] = {}
    for one in [*found.get("ips", []), *halves]:
        version = ip_interface(one.get("address") or one["ip"]).version
        gateways.setdefault(version, one.get("gateway", ""))
    with Rtnl(pod.path) as rtnl:
        has = {(one.dst, one.gateway) for one in rtnl.routes() if one.table == RT_TABLE_MAIN}
    for one in wanted:
        network = ip_network(one["dst"], strict=False)
        gateway = one.get("gw") or gateways.get(network.version, "")
        if (str(network), gateway) not in has:
            yield f"route to {network} via {gateway or 'the link'}"


@contextmanager
def _host_link(name: str) -> Iterator[None]:
    with Rtnl() as rtnl:
        index = rtnl.add_stranger(name)
        try:
            yield
        finally:
            rtnl.delete_link(index)


def _disable_ipv6(pod: Pod) -> None:
    def write() -> None:
        for where in ("default", "all"):
            Path(f"/proc/sys/net/ipv6/conf/{where}/disable_ipv6").write_text("1")

    namespaces.within(pod.path, write)
