# SPDX-License-Identifier: Apache-2.0
"""G1 to G19: the IPAM plugin a configuration delegates to.

CNI specification 1.1.0, section 4 "Plugin Delegation": same environment, same stdin, its errors are
ours, and after a failure its DEL is called.
"""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable
from pathlib import Path

from conformance import namespaces
from conformance.bench import Bench, addresses_of, bare
from conformance.call import Json, refused, silent
from conformance.fake_ipam import FakeIpam
from conformance.netlink import RT_TABLE_MAIN, Rtnl
from conformance.registry import case
from conformance.results import Skip

REFUSAL: Json = {"code": 123, "msg": "the fake refuses", "details": "for a reason of its own"}
SWALLOWED = ("not found", "no such file or directory")
"""containerd takes a failing DEL with such a text for a success."""


@case("G1", "the IPAM plugin gets the same environment and the same bytes")
def protocol(bench: Bench) -> None:
    ipam, second = bench.fake_ipam(), bench.fake_ipam()
    attachment = bench.delegated(ipam)
    attachment.cni_path = f"/nonexistent:{ipam.directory}:{second.directory}:{attachment.cni_path}"
    stdin = json.dumps(attachment.config(), indent=3).encode()

    attachment.attach(stdin=stdin)
    attachment.detach()

    assert not second.calls(), "the order of CNI_PATH does not count"
    (added,) = ipam.calls("ADD")
    assert base64.b64decode(added["stdin"]) == stdin, "the bytes on stdin are others"
    assert added["argv"] == [str(ipam.program)], f"executed as {added['argv']}"
    for name, value in attachment.env("ADD").items():
        assert added["env"].get(name) == value, f"{name} is {added['env'].get(name)!r}"
    assert len(ipam.calls("DEL")) == 1, f"DEL was called {len(ipam.calls('DEL'))} times"
    assert not ipam.leases(), f"{ipam.leases()} are still leased"


def _path_outside(_: Path) -> str:
    return "../fakeipam"


def _missing(_: Path) -> str:
    return "no-such-ipam"


def _not_executable(directory: Path) -> str:
    path = directory / "plain"
    path.write_text("#!/bin/false\n")
    path.chmod(0o644)
    return path.name


def _directory(directory: Path) -> str:
    (directory / "dir").mkdir()
    return "dir"


WRONG_TYPES: dict[str, Callable[[Path], str]] = {
    "path": _path_outside, "missing": _missing, "not executable": _not_executable,
    "directory": _directory,
}  # fmt: skip


@case("G2", "an IPAM type that cannot be executed is named in the error", over=WRONG_TYPES)
def wrong_type(bench: Bench, make: Callable[[Path], str]) -> None:
    ipam = bench.fake_ipam()
    its = make(ipam.directory)
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    attachment.conf["ipam"] = {"type": its}
    with bench.unchanged(pod):
        refused(attachment.call("ADD"), mentions=[its])


BAD_ANSWERS: dict[str, Json] = {
    "noise": {"stdout": "hello {}"},
    "empty": {"stdout": ""},
    "null": {"stdout": "null"},
    "unknown version": {"merge": {"cniVersion": "9.9.9"}},
    "no prefix": {"merge": {"ips": [{"address": "10.77.0.9"}], "ip4": {"ip": "10.77.0.9"}}},
    "no address": {"merge": {"ips": [{"address": "x/24"}], "ip4": {"ip": "x/24"}}},
    "no ips": {"merge": {"ips": []}},
    "error object": {"stdout": json.dumps(REFUSAL)},
}


@case("G3", "a useless answer of the IPAM plugin fails ADD, and what it leased is given back",
      over=BAD_ANSWERS)  # fmt: skip
def bad_answer(bench: Bench, how: Json) -> None:
    ipam = bench.fake_ipam()
    ipam.behave(ADD=how)
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    with bench.unchanged(pod):
        refused(attachment.call("ADD"))

    assert not ipam.leases(), "the lease was not given back"
    assert len(ipam.calls("DEL")) == 1, f"its DEL was called {len(ipam.calls('DEL'))} times"


@case("G4", "an error of the IPAM plugin is passed on as it is")
def error_passed_on(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    ipam.behave(ADD={"error": REFUSAL})
    pod = bench.pod()
    with bench.unchanged(pod):
        error = refused(bench.delegated(ipam, pod).call("ADD"), REFUSAL["code"])

    assert (error["msg"], error.get("details")) == (REFUSAL["msg"], REFUSAL["details"]), error


@case("G5", "an IPAM plugin that dies, or fails without a word, fails ADD",
      over={"signal": {"signal": signal.SIGKILL}, "silent": {"stdout": "", "exit": 3}})  # fmt: skip
def ipam_dies(bench: Bench, how: Json) -> None:
    ipam = bench.fake_ipam()
    ipam.behave(ADD=how)
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.delegated(ipam, pod).call("ADD"))


def _stranger_in_the_way(pod: Path, _: FakeIpam) -> None:
    with Rtnl(pod) as rtnl:
        rtnl.add_stranger("eth0")


def _route_to_nowhere(_: Path, ipam: FakeIpam) -> None:
    bad = [{"dst": "192.0.2.0/24", "gw": "198.51.100.9"}]
    ipam.behave(ADD={"merge": {"routes": bad}})


LATE_FAILURES = {"name taken": _stranger_in_the_way, "impossible route": _route_to_nowhere}


@case("G6", "when ADD fails after IPAM's success, the address is given back once",
      over=LATE_FAILURES)  # fmt: skip
def late_failure(bench: Bench, hinder: Callable[[Path, FakeIpam], None]) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    hinder(pod.path, ipam)
    with bench.unchanged(pod):
        attachment = bench.delegated(ipam, pod)
        answer = attachment.add()
        if answer.status == 0:
            attachment.detach()
            raise Skip("ADD succeeds all the same")
        refused(answer)

    assert not ipam.leases(), "the lease was not given back"
    added, deleted = len(ipam.calls("ADD")), len(ipam.calls("DEL"))
    assert added == deleted, f"ADD was called {added} times, DEL {deleted} times"


@case("G10", "a second ADD does not give the first one's address back")
def duplicate(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    first = bench.delegated(ipam, pod)
    first.attach()
    leased = ipam.leases()

    refused(bench.delegated(ipam, pod, container_id=first.container_id).call("ADD"))
    assert ipam.leases() == leased, f"{leased} were leased, now {ipam.leases()}"
    refused(bench.delegated(ipam, pod).call("ADD"))
    assert ipam.leases() == leased, f"{leased} were leased, now {ipam.leases()}"
    first.detach()


@case("G11", "DEL without the IPAM plugin does its own part and fails; later it succeeds")
def plugin_missing(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    attachment.attach()
    ipam.program.unlink()

    answer = attachment.delete()

    refused(answer)
    _not_swallowed(answer.text)
    assert pod.link() is None, "the interface is still in the pod"
    ipam.install()
    attachment.detach()
    assert not ipam.leases(), f"{ipam.leases()} are still leased"


@case("G12", "an error of the IPAM plugin on DEL is passed on, after its own part is done")
def delete_error(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    attachment.attach()
    ipam.behave(DEL={"error": REFUSAL})

    answer = attachment.delete()

    refused(answer, REFUSAL["code"], mentions=[REFUSAL["msg"]])
    _not_swallowed(answer.text)
    assert pod.link() is None, "the interface is still in the pod"
    ipam.behave()
    attachment.detach()
    assert not ipam.leases(), f"{ipam.leases()} are still leased"


@case("G13", "DEL reaches the IPAM plugin also without a namespace, and without an ADD",
      over={"gone": True, "never": False})  # fmt: skip
def always_forwarded(bench: Bench, was_added: bool) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)
    if was_added:
        attachment.attach()
    namespaces.remove(pod.path)

    attachment.detach(env={"CNI_NETNS": ""})

    assert ipam.calls("DEL"), "its DEL was not called"
    assert not ipam.leases(), f"{ipam.leases()} are still leased"


@case("G14", "CHECK asks the IPAM plugin, and passes its error on")
def checked(bench: Bench) -> None:
    bench.needs("0.4.0", "CHECK")
    ipam = bench.fake_ipam()
    attachment = bench.delegated(ipam)
    attachment.attach()
    silent(attachment.check())
    assert len(ipam.calls("CHECK")) == 1, f"asked {len(ipam.calls('CHECK'))} times"
    ipam.behave(CHECK={"error": REFUSAL})

    refused(attachment.check(), REFUSAL["code"], mentions=[REFUSAL["msg"]])


@case("G15", "addresses and routes are the IPAM plugin's, with its gateway where a route has none")
def applied(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    gateway = ipam.subnets[0].partition("/")[0][:-1] + "1"
    if ":" in gateway:
        raise Skip("the first subnet is not IPv4")
    ipam.behave(ADD={"merge": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24"}]}})
    pod = bench.pod()
    attachment = bench.delegated(ipam, pod)

    result = attachment.attach()

    assert set(bare(result)) == ipam.leases(), f"{addresses_of(result)}, leased {ipam.leases()}"
    has = {one.address for one in pod.addresses()}
    assert has == set(addresses_of(result)), f"has {has}, the result {addresses_of(result)}"
    with Rtnl(pod.path) as rtnl:
        routes = {(one.dst, one.gateway) for one in rtnl.routes() if one.table == RT_TABLE_MAIN}
    for dst in ("0.0.0.0/0", "192.0.2.0/24"):
        assert (dst, gateway) in routes, f"no route to {dst} via {gateway}"
        assert dst in [one["dst"] for one in result.get("routes", [])], f"{dst}: {result}"


@case("G16", "what the IPAM plugin writes to stderr does no harm")
def noise_on_stderr(bench: Bench) -> None:
    ipam = bench.fake_ipam()
    ipam.behave(ADD={"stderr": 200_000})
    attachment = bench.delegated(ipam)

    attachment.attach()
    attachment.detach()


@case("G17", "CNI_PATH is needed to delegate", over={"unset": None, "empty": ""})
def no_path(bench: Bench, path: str | None) -> None:
    ipam = bench.fake_ipam()
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.delegated(ipam, pod).call("ADD", env={"CNI_PATH": path}))


def _not_swallowed(text: str) -> None:
    swallowed = [phrase for phrase in SWALLOWED if phrase in text.lower()]
    assert not swallowed, f"containerd would take it for a success: {text!r}"
