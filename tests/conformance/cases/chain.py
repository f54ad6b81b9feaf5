# SPDX-License-Identifier: Apache-2.0
"""G20 to G26: with other plugins before and after it in a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conformance import traffic
from conformance.bench import Bench, Pod, bare, pod_interface
from conformance.call import Json, silent, succeeded
from conformance.registry import case
from conformance.runtime import Attachment
from conformance.sandbox import HOST, WORLD_NETNS

VERSION = "1.0.0"
"""Debian 12's plugins speak it."""

NEW_MAC = "02:00:00:00:00:42"
PORTS = (18080, 80)
RATE, BURST = 20_000_000, 1_000_000
"""Bits per second, and bits."""

FIRST: Json = {
    "cniVersion": VERSION,
    "interfaces": [{"name": "first0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "192.0.2.9/24", "interface": 0}],
    "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}],
    "dns": {"nameservers": ["192.0.2.53"]},
}


@dataclass
class Chain:
    """The plugin under test and one after it, called as libcni calls a list."""

    pod: Pod
    first: Attachment
    second: Attachment

    def attach(self) -> Json:
        result = self.first.attach()
        return self.second.attach(conf={"prevResult": result})

    def check(self) -> None:
        """Of the plugin under test, with the final result; the other's own bugs are not its."""
        silent(self.first.call("CHECK", conf={"prevResult": self.second.result}))

    def detach(self) -> None:
        final = self.second.result
        self.second.detach()
        silent(self.first.call("DEL", conf={"prevResult": final}))
        self.first.result = None


def _chain(bench: Bench, name: str, conf: Json, **capabilities: Any) -> Chain:
    binary, pod = bench.binary(name), bench.pod()
    bench.needs(VERSION)
    first = bench.attachment(pod, version=VERSION)
    second = bench.attachment(
        pod,
        plugin=binary,
        container_id=first.container_id,
        capabilities=capabilities,
    )
    second.conf = {
        "cniVersion": VERSION, "name": first.conf["name"], "type": name,
        "capabilities": dict.fromkeys(capabilities, True), **conf,
    }  # fmt: skip
    return Chain(pod, first, second)


def _once(chain: Chain) -> None:
    chain.attach()
    chain.detach()


AFTER: dict[str, tuple[str, Json]] = {
    "tuning": ("tuning", {"sysctl": {"net.ipv4.conf.eth0.arp_ignore": "1"}}),
    "tuning MAC": ("tuning", {"mac": NEW_MAC}),
    "tuning MTU": ("tuning", {"mtu": 1300}),
    "firewall": ("firewall", {"backend": "iptables"}),
    "bandwidth": ("bandwidth", {"ingressRate": RATE, "ingressBurst": BURST,
                                "egressRate": RATE, "egressBurst": BURST}),
}  # fmt: skip


@case("G20", "another plugin works after it: ADD, CHECK, traffic and DEL", over=AFTER)
def followed(bench: Bench, plugin: tuple[str, Json]) -> None:
    bench.warm_up(lambda before: _once(_chain(before, *plugin)))
    chain = _chain(bench, *plugin)
    with bench.unchanged(chain.pod):
        result = chain.attach()
        assert pod_interface(chain.second), result
        chain.check()
        for address in bare(result):
            assert traffic.pings(None, address), f"host to pod {address}"
        chain.detach()


@case("G21", "portmap works after it: a port of the host leads to the pod",
      over={"tcp": "tcp", "udp": "udp"})  # fmt: skip
def portmap(bench: Bench, protocol: str) -> None:
    host_port, port = PORTS
    mapping = {"hostPort": host_port, "containerPort": port, "protocol": protocol}

    def make(of: Bench) -> Chain:
        return _chain(of, "portmap", {"snat": True}, portMappings=[mapping])

    bench.warm_up(lambda before: _once(make(before)))
    chain = make(bench)
    result = chain.attach()
    (address, *_) = bare(result)
    host = HOST[traffic.version_of(address)].partition("/")[0]
    with traffic.answering(chain.pod.path, address, port, kind=protocol, word=b"mapped"):
        answer = traffic.asked(WORLD_NETNS, host, host_port, kind=protocol)

    assert answer == b"mapped", f"the world does not reach {host}:{host_port}"
    chain.check()
    chain.detach()


@case("G22", "bandwidth after it limits both directions")
def bandwidth(bench: Bench) -> None:
    chain = _chain(bench, *AFTER["bandwidth"])
    (address, *_) = bare(chain.attach())
    host = HOST[traffic.version_of(address)].partition("/")[0]

    into = 8 * 4_000_000 / traffic.transfer(None, chain.pod.path, address, 4_000_000)
    out = 8 * 4_000_000 / traffic.transfer(chain.pod.path, None, host, 4_000_000)

    for name, rate in (("ingress", into), ("egress", out)):
        assert 0.8 * RATE < rate < 1.15 * RATE, f"{name} is {rate / 1e6:.1f} Mbit/s"
    chain.detach()


@case("G23", "later in a chain it keeps the earlier plugins' result and adds its own")
def later(bench: Bench) -> None:
    bench.needs(VERSION)
    pod = bench.pod()
    attachment = bench.attachment(pod, version=VERSION)

    result = succeeded(attachment.add(conf={"prevResult": FIRST})).document

    assert FIRST["interfaces"][0] in result["interfaces"], f"first0 is lost: {result}"
    earlier = next((one for one in result["ips"] if one["address"] == "192.0.2.9/24"), None)
    assert earlier is not None, f"the earlier address is lost: {result['ips']}"
    assert result["interfaces"][earlier["interface"]]["name"] == "first0", "an index is wrong"
    assert FIRST["routes"][0] in result.get("routes", []), f"the route is lost: {result}"
    own = [one for one in result["ips"] if result["interfaces"][one["interface"]]["name"] == "eth0"]
    has = {one.address for one in pod.addresses()}
    assert has == {one["address"] for one in own}, f"has {has}, the result {own}"
    attachment.detach()


@case("G24", "its DEL succeeds in a chain whose later plugin failed, and without its ADD")
def after_a_failure(bench: Bench) -> None:
    pod, attachment = bench.attached()
    silent(attachment.call("DEL"))
    attachment.result = None

    assert pod.link() is None, "the interface is still in the pod"
