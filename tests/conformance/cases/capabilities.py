# SPDX-License-Identifier: Apache-2.0
"""G30 to G37: capabilities the plugin's configuration declares: ports, bandwidth, dns.

CNI conventions, "Dynamic Plugin specific fields". containerd spells the keys HostPort, IngressRate
and so on, because Go finds JSON keys in any case.
"""

from __future__ import annotations

from typing import Any

from conformance import traffic
from conformance.bench import Bench, Pod, bare
from conformance.call import Json, refused
from conformance.registry import case
from conformance.results import Skip
from conformance.runtime import Attachment
from conformance.sandbox import HOST, WORLD_NETNS

HOST_PORT, PORT = 18443, 443
RATE, BURST = 20_000_000, 1_000_000
"""Bits per second, and bits."""
SIZE = 4_000_000
"""Bytes of a transfer to measure: 1.6 s."""
UNLIMITED_BURST = 2**32 - 1
"""What containerd sends."""
WORD = b"mapped"


def _capitals(value: Any) -> Any:
    """Keys as Go's structs without tags have them."""
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: _capitals(one) for key, one in value.items()}
    return [_capitals(one) for one in value] if isinstance(value, list) else value


def _mapping(**changes: Any) -> Json:
    return {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp", **changes}


def _mapped(bench: Bench, *mappings: Json, **fields: Any) -> tuple[Pod, Attachment]:
    network = bench.declares("portMappings")
    return bench.attached(network=network, capabilities={"portMappings": list(mappings)}, **fields)


def _host(address: str) -> str:
    return HOST[traffic.version_of(address)].partition("/")[0]


@case("G30", "a mapped port leads to the pod, from everywhere", over={"tcp": "tcp", "udp": "udp"})
def port_mapping(bench: Bench, protocol: str) -> None:
    pod, attachment = _mapped(bench, _mapping(protocol=protocol))
    other, _ = bench.attached(network=bench.declares("portMappings"))
    assert attachment.result is not None
    for address in bare(attachment.result):
        host = _host(address)
        local = "127.0.0.1" if traffic.version_of(address) == 4 else ""
        askers = [
            ("the world", WORLD_NETNS, host),
            ("the host", None, host),
            ("another pod", other.path, host),
            ("the pod itself", pod.path, host),
            *([("the host's loopback", None, local)] if local else []),
        ]
        with traffic.answering(pod.path, address, PORT, kind=protocol, word=WORD):
            for name, netns, target in askers:
                answer = traffic.asked(netns, target, HOST_PORT, kind=protocol)
                assert answer == WORD, f"{name} does not reach {target}:{HOST_PORT}/{protocol}"
    attachment.detach()


@case("G31", "the keys of a mapping count in any case, as does the protocol",
      over={"capitals": _capitals(_mapping()), "TCP": _mapping(protocol="TCP"),
            "hostIP empty": _mapping(hostIP="")})  # fmt: skip
def spelling(bench: Bench, mapping: Json) -> None:
    pod, attachment = _mapped(bench, mapping)

    _reaches(pod, attachment, HOST_PORT)
    attachment.detach()


@case("G32", "a mapping with a hostIP is for that address only")
def host_address(bench: Bench) -> None:
    host = HOST[4].partition("/")[0]
    pod, attachment = _mapped(bench, _mapping(hostIP=host))
    assert attachment.result is not None
    (address, *_) = bare(attachment.result)
    if traffic.version_of(address) != 4:
        raise Skip("the pod's first address is not IPv4")
    with traffic.answering(pod.path, address, PORT, kind="tcp", word=WORD):
        assert traffic.asked(WORLD_NETNS, host, HOST_PORT, kind="tcp") == WORD, "not reached"
        assert traffic.asked(None, "127.0.0.1", HOST_PORT, kind="tcp") is None, "by 127.0.0.1, too"
    attachment.detach()


@case("G33", "DEL ends a mapping without being told of it, and the port can be used again")
def mapping_ends(bench: Bench) -> None:
    _, attachment = _mapped(bench, _mapping())
    attachment.capabilities = {}
    attachment.detach()
    pod, second = _mapped(bench, _mapping())

    _reaches(pod, second, HOST_PORT)
    second.detach()


@case("G34", "of two pods that want one port, one gets it, and the other can have it afterwards")
def same_port(bench: Bench) -> None:
    _, first = _mapped(bench, _mapping())
    pod = bench.pod()
    second = bench.attachment(
        pod, network=bench.declares("portMappings"), capabilities={"portMappings": [_mapping()]}
    )
    answer = second.add()
    if answer.status != 0:
        refused(answer)
        first.detach()
        second.attach()
    else:
        first.detach()

    _reaches(pod, second, HOST_PORT)
    second.detach()


BAD_MAPPINGS: dict[str, Any] = {
    "port 0": [_mapping(hostPort=0)], "port 65536": [_mapping(hostPort=65536)],
    "negative": [_mapping(containerPort=-1)], "protocol": [_mapping(protocol="foo")],
    "text": [_mapping(hostPort="80")], "hostIP": [_mapping(hostIP="x")], "no list": {"hostPort": 1},
}  # fmt: skip


@case("G35", "an impossible mapping is refused and nothing is kept", over=BAD_MAPPINGS)
def bad_mapping(bench: Bench, mappings: Any) -> None:
    network = bench.declares("portMappings")
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network, capabilities={"portMappings": mappings})
    with bench.unchanged(pod):
        refused(attachment.call("ADD"))


BANDWIDTH = {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST}


@case("G36", "bandwidth is limited in both directions, the keys in any case",
      over={"camel": BANDWIDTH, "capitals": _capitals(BANDWIDTH)})  # fmt: skip
def bandwidth(bench: Bench, limits: Json) -> None:
    network = bench.declares("bandwidth")
    pod, attachment = bench.attached(network=network, capabilities={"bandwidth": limits})
    other, _ = bench.attached(network=network)
    assert attachment.result is not None
    (address, *_) = bare(attachment.result)

    into = 8 * SIZE / traffic.transfer(other.path, pod.path, address, SIZE)
    out = 8 * SIZE / traffic.transfer(pod.path, None, _host(address), SIZE)

    for name, rate in (("ingress", into), ("egress", out)):
        assert 0.85 * RATE < rate < 1.1 * RATE, f"{name} is {rate / 1e6:.1f} Mbit/s"
    attachment.detach()


BAD_BANDWIDTH: dict[str, Any] = {
    "no burst": {"ingressRate": RATE}, "no rate": {"egressBurst": BURST},
    "negative": {"ingressRate": -1, "ingressBurst": BURST}, "text": {"ingressRate": "10M"},
}  # fmt: skip


@case("G37", "an impossible bandwidth is refused and nothing is kept", over=BAD_BANDWIDTH)
def bad_bandwidth(bench: Bench, limits: Any) -> None:
    network = bench.declares("bandwidth")
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network, capabilities={"bandwidth": limits})
    with bench.unchanged(pod):
        refused(attachment.call("ADD"))


@case("G38", "the burst that containerd sends is accepted")
def unlimited_burst(bench: Bench) -> None:
    limits = {key: UNLIMITED_BURST if "Burst" in key else RATE for key in BANDWIDTH}
    network = bench.declares("bandwidth")
    _, attachment = bench.attached(network=network, capabilities={"bandwidth": _capitals(limits)})

    attachment.detach()


DNS = {"servers": ["192.0.2.53"], "searches": ["svc.example"], "options": ["ndots:5"]}


@case("G39", "dns of the runtime is in the result, the keys in any case",
      over={"camel": DNS, "capitals": _capitals(DNS)})  # fmt: skip
def dns(bench: Bench, wanted: Json) -> None:
    network = bench.declares("dns")
    _, attachment = bench.attached(network=network, capabilities={"dns": wanted})
    assert attachment.result is not None
    found = attachment.result.get("dns", {})

    assert found.get("nameservers") == DNS["servers"], found
    assert found.get("search") == DNS["searches"], found
    assert found.get("options") == DNS["options"], found
    attachment.detach()


def _reaches(pod: Pod, attachment: Attachment, port: int) -> None:
    assert attachment.result is not None
    (address, *_) = bare(attachment.result)
    with traffic.answering(pod.path, address, PORT, kind="tcp", word=WORD):
        answer = traffic.asked(WORLD_NETNS, _host(address), port, kind="tcp")
    assert answer == WORD, f"the world does not reach port {port}"
