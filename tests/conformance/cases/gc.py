# SPDX-License-Identifier: Apache-2.0
"""F10 to F20: GC, which came with 1.1.0.

CNI specification 1.1.0, section 2 "GC": `cni.dev/valid-attachments` is the set to keep. libcni
sends the same list as `cni.dev/attachments`, too, and JSON null for an empty one.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from conformance import namespaces, traffic
from conformance.bench import Bench, Pod, bare
from conformance.call import Answer, Json, refused, silent
from conformance.netlink import Rtnl
from conformance.registry import case
from conformance.runtime import Attachment

VALID, LEGACY = "cni.dev/valid-attachments", "cni.dev/attachments"
BAD_ENVIRONMENT, DECODING, INVALID = 4, 6, 7


def _attached(bench: Bench, **fields: Any) -> tuple[Pod, Attachment]:
    bench.needs("1.1.0", "GC")
    return bench.attached(version="1.1.0", **fields)


def _pair(attachment: Attachment, **changes: str) -> Json:
    return {"containerID": attachment.container_id, "ifname": attachment.ifname, **changes}


def _collect(bench: Bench, valid: object, **fields: Any) -> Answer:
    return bench.node("GC", conf={VALID: valid, LEGACY: valid}, **fields)


def _answers(attachment: Attachment) -> None:
    assert attachment.result is not None
    for address in bare(attachment.result):
        assert traffic.pings(None, address), f"{address} no longer answers"


def _forgotten(*attachments: Attachment) -> None:
    """They are left to GC: what is still there after the case is residue."""
    for one in attachments:
        one.result = None


@case("F10", "GC keeps what the list names and removes the rest, namespace alive or not")
def keeps_the_listed(bench: Bench) -> None:
    _, kept = _attached(bench)
    alive, stale = _attached(bench)
    gone, lost = _attached(bench)
    namespaces.remove(gone.path)
    with Rtnl(alive.path) as rtnl:
        assert rtnl.link("eth0") is not None

    silent(_collect(bench, [_pair(kept)]))

    assert alive.link() is None, "a stale attachment's interface is still in its pod"
    _forgotten(stale, lost)
    _answers(kept)


@case("F11", "GC of a network with an empty list removes all of it and nothing of another",
      over={"[]": [], "null": None})  # fmt: skip
def nothing_is_valid(bench: Bench, valid: list[Json] | None) -> None:
    other_conf = {"name": f"{bench.network.conf['name']}-too"}
    first, stale = _attached(bench)
    _, other = _attached(bench, conf=other_conf)

    silent(_collect(bench, valid))

    assert first.link() is None, "a stale attachment's interface is still in its pod"
    _forgotten(stale)
    _answers(other)


@case("F12", "GC without a list leaves what is alive")
def no_list(bench: Bench) -> None:
    _, attachment = _attached(bench)

    silent(bench.node("GC"))

    _answers(attachment)


@case("F13", "GC takes the list under libcni's older name if that is the only one")
def older_name(bench: Bench) -> None:
    _, kept = _attached(bench)
    pod, stale = _attached(bench)

    silent(bench.node("GC", conf={LEGACY: [_pair(kept)]}))

    assert pod.link() is None, "a stale attachment's interface is still in its pod"
    _forgotten(stale)
    _answers(kept)


@case("F14", "GC compares container and interface, and does not mind unknown and double entries")
def exact_pairs(bench: Bench) -> None:
    _, kept = _attached(bench)
    pod, other = _attached(bench, container_id=kept.container_id, ifname="net1")
    unknown = {"containerID": "nobody-knows", "ifname": "eth0"}
    mixed = {"containerID": "nobody-knows", "ifname": "net1"}

    silent(_collect(bench, [unknown, _pair(kept), _pair(kept), mixed]))

    assert pod.link("net1") is None, "another interface of a listed container was kept"
    _forgotten(other)
    _answers(kept)


@case("F15", "GC goes on when one removal fails, and reports it")
def goes_on(bench: Bench) -> None:
    bench.needs("1.1.0", "GC")
    ipam = bench.fake_ipam()
    pods = [bench.pod() for _ in range(3)]
    stale = [bench.delegated(ipam, pod, version="1.1.0") for pod in pods]
    for one in stale:
        one.attach()
    error = {"code": 123, "msg": "the fake refuses"}
    ipam.behave(DEL={"only": stale[1].container_id, "error": error})

    answer = _collect(bench, [], network=bench.delegating(), ipam=ipam)

    assert [pod.link() for pod in pods] == [None] * 3, "an interface is still in its pod"
    refused(answer, mentions=["the fake refuses"])
    kept = len(ipam.subnets)
    assert len(ipam.leases()) == kept, f"{ipam.leases()} are leased, of {kept} that must be"
    ipam.behave()
    silent(_collect(bench, [], network=bench.delegating(), ipam=ipam))
    assert not ipam.leases(), f"{ipam.leases()} are still leased after the second GC"
    _forgotten(*stale)


@case("F16", "GC asks the IPAM plugin with the same stdin, and passes its error on")
def of_ipam(bench: Bench) -> None:
    bench.needs("1.1.0", "GC")
    ipam = bench.fake_ipam()

    silent(_collect(bench, [], network=bench.delegating(), ipam=ipam))

    (asked,) = ipam.calls("GC")
    stdin = json.loads(base64.b64decode(asked["stdin"]))
    assert (stdin[VALID], stdin["ipam"]["type"]) == ([], ipam.conf["type"]), stdin
    ipam.behave(GC={"error": {"code": 123, "msg": "the fake cannot"}})
    refused(
        _collect(bench, [], network=bench.delegating(), ipam=ipam), mentions=["the fake cannot"]
    )


@case("F17", "GC of nothing succeeds, any number of times")
def of_nothing(bench: Bench) -> None:
    with bench.unchanged():
        silent(_collect(bench, []))
        silent(_collect(bench, []))


@case("F18", "GC that must delegate fails with 4 without CNI_PATH")
def no_path(bench: Bench) -> None:
    bench.needs("1.1.0", "GC")
    ipam = bench.fake_ipam()
    answer = _collect(bench, [], network=bench.delegating(), ipam=ipam, env={"CNI_PATH": None})

    refused(answer, BAD_ENVIRONMENT, mentions=["CNI_PATH"])


WRONG_LISTS: dict[str, object] = {
    "text": "x",
    "object": {},
    "numbers": [5],
    "half": [{"ifname": 5}],
}


@case("F19", "GC with a list that is none removes nothing", over=WRONG_LISTS)
def wrong_list(bench: Bench, valid: object) -> None:
    _, attachment = _attached(bench)
    with bench.unchanged():
        refused(_collect(bench, valid), DECODING, INVALID)
    _answers(attachment)


@case("F20", "what GC removed can be deleted and attached again")
def after(bench: Bench) -> None:
    _, attachment = _attached(bench)
    silent(_collect(bench, []))

    attachment.detach()
    attachment.attach()
    attachment.detach()
